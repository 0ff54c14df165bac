"""Progress of long work on stderr: a bar in a terminal, a plain line now and then in a log."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from envs.progress import Progress
from rl_rec.cli import output

LINE_EVERY_S = 5.0


@contextmanager
def reporting(label: str, console: Console | None = None) -> Iterator[Progress]:
    """Show one piece of long work while the block runs.

    Args:
        label: what is being done, in one or two words.
        console: where to draw; stderr by default.

    Yields:
        The callback that the library calls with (done, total, message).
    """
    console = console or output.console
    if not console.is_terminal:
        yield _Lines(label, console)
        return
    bar = Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[message]}"),
        console=console,
        transient=True,
    )
    with bar:
        task = bar.add_task(label, total=None, message="")

        def report(done: int, total: int, message: str = "") -> None:
            bar.update(task, completed=done, total=total, message=message)

        yield report


class _Lines:
    """Prints at most one line per ``LINE_EVERY_S`` seconds, and none for work that ends sooner."""

    def __init__(self, label: str, console: Console) -> None:
        self._label, self._console = label, console
        self._last_s = time.monotonic()

    def __call__(self, done: int, total: int, message: str = "") -> None:
        now_s = time.monotonic()
        if now_s - self._last_s >= LINE_EVERY_S:
            self._last_s = now_s
            self._console.print(
                f"{self._label}: {done}/{total} {message}".rstrip(), markup=False, soft_wrap=True
            )
