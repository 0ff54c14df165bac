"""How long work reports itself: the library calls, the command line draws."""

from typing import Protocol


class Progress(Protocol):
    """Receives the state of one piece of long work."""

    def __call__(self, done: int, total: int, message: str = "") -> None:
        """Report that ``done`` of ``total`` units are finished; ``message`` holds current figures."""


def silent(done: int, total: int, message: str = "") -> None:
    """The default progress: says nothing."""
