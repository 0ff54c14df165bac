"""Where the time goes: seconds by named part."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class StopWatch:
    """Adds up wall-clock seconds of named parts, beside the time since it was made."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began = time.perf_counter()

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Charge the time inside to ``part``."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - began

    @property
    def total_s(self) -> float:
        """Seconds since the watch was made."""
        return time.perf_counter() - self._began
