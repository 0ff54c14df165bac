"""Storage that tests write to, and look into."""

from pathlib import Path

import pyarrow.fs as arrow

from envs.storage.patience import PatientHandler


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


class Failing(PatientHandler):
    """A file system of which some operations fail now and then, as storage does that is away for a moment."""

    def __init__(self, failures: int, error: OSError | None = None) -> None:
        super().__init__(arrow.LocalFileSystem())
        self.left, self.error, self.calls = failures, error or OSError("503 slow down"), 0

    def _again(self, attempt, path):  # type: ignore[no-untyped-def]
        self.calls += 1
        if self.left > 0:
            self.left -= 1
            raise self.error
        return attempt()
