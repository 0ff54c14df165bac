"""What reaches a person as a single line instead of a traceback."""


class UserError(ValueError):
    """Something the user gave is wrong; the message is one line that says what to change."""


class Terminated(BaseException):
    """The process was told to end (SIGTERM). As after Ctrl-C, what was saved can be gone on with.

    Not a KeyboardInterrupt, which click would turn into one of its own.
    """
