"""The notice that this process is to end (SIGTERM), and what is left of it: a spot machine's is 30 s."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

LASTS_S = 20.0
"""From the notice until nothing more is asked of storage: clouds give 30 s, and Ray needs some to stop."""
ENDS_S = 28.0
"""From the notice until the process ends, whatever still waits: a call into a library cannot be interrupted."""
_GLANCE_S = 0.2


class Notice:
    """Given once, from a signal's handler or a thread."""

    def __init__(self) -> None:
        self._ends_s = math.inf  # no lock: a handler may interrupt who holds it
        self._last_words: list[Callable[[], None]] = []

    def give(self) -> None:
        """Whoever waits stops doing so; the first one counts."""
        self._ends_s = min(self._ends_s, time.monotonic() + LASTS_S)

    def withdraw(self) -> None:
        """As if there had been none: a process may run several commands."""
        self._ends_s = math.inf

    @property
    def given(self) -> bool:
        """Whether there was one."""
        return math.isfinite(self._ends_s)

    @property
    def left_s(self) -> float:
        """Seconds until nothing more should be tried; infinity without a notice."""
        return max(self._ends_s - time.monotonic(), 0.0)

    def pause(self, seconds: float) -> None:
        """Sleep for half of what is left at most, and no longer than until the notice is given."""
        known, end = self.given, time.monotonic() + min(seconds, self.left_s / 2)
        while (left := end - time.monotonic()) > 0 and known == self.given:
            time.sleep(min(left, _GLANCE_S))

    @contextmanager
    def last_words(self, say: Callable[[], None]) -> Iterator[None]:
        """Have ``say`` called if the process must end before the block does."""
        self._last_words.append(say)
        try:
            yield
        finally:
            self._last_words.remove(say)

    def say_last_words(self) -> None:
        """Call what the open blocks have to say, the innermost first."""
        for say in reversed(self._last_words):
            with suppress(Exception):  # the others are to be heard as well
                say()


NOTICE = Notice()
"""This process's."""
