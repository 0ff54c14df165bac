"""What reaches a person as a single line instead of a traceback."""

import signal


class UserError(ValueError):
    """Something the user gave is wrong; the message is one line that says what to change."""


class Terminated(SystemExit):
    """The process was told to end (SIGTERM). As after Ctrl-C, what was saved can be gone on with.

    Not a KeyboardInterrupt, which click would turn into one of its own. What is neither of the two is kept by
    asyncio where a signal comes inside a callback.
    """

    CODE = 128 + signal.SIGTERM
    """The exit code."""

    def __init__(self) -> None:
        super().__init__(self.CODE)
