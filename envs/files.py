"""Output that is either whole or absent: write beside the target, then rename."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from envs.errors import UserError

_LOCK = "lock"


@contextmanager
def new_directory(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``path`` when the block succeeds.

    Args:
        path: the directory to create.
        overwrite: replace an existing directory; otherwise one that holds anything is refused.

    Raises:
        UserError: ``path`` exists and ``overwrite`` is off, also when somebody else wrote it meanwhile, another
            command is writing it, or its parent cannot be written.
    """
    path = Path(path)
    _refuse_existing(path, overwrite)  # before anything is written
    with _draft_of(path) as (draft, replaced):
        _refuse_existing(path, overwrite)  # by a command that ended meanwhile, or put back
        draft.mkdir()
        yield draft
        if overwrite and path.exists():
            os.rename(path, replaced)
            os.rename(draft, path)
        else:
            _rename_to_new(draft, path)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a temporary file name; what the block writes there replaces ``path`` when it succeeds.

    Raises:
        UserError: another command is writing ``path``, or it cannot be written.
    """
    path = Path(path)
    with _draft_of(path) as (draft, _):
        try:
            yield draft
            os.replace(draft, path)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}") from None


@contextmanager
def _draft_of(path: Path) -> Iterator[tuple[Path, Path]]:
    """Where ``path`` may be drafted, and where what it replaces may be put; neither is there at first.

    Both lie in one folder beside ``path`` that this process holds by a lock, which ends with the process: what
    a killed one left is found and cleared by the next.
    """
    folder = path.with_name(f".{path.name}.partial")
    draft, replaced = folder / "draft", folder / "replaced"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _locked(folder, path)
    except OSError as error:
        raise UserError(f"cannot write to {path.parent}: {error.strerror}") from None
    try:
        _clear(draft, replaced, path)
        yield draft, replaced
    finally:
        _clear(draft, replaced, path)
        (folder / _LOCK).unlink(missing_ok=True)  # last: from here on the folder may be another command's
        with suppress(OSError):
            folder.rmdir()
        os.close(lock)


def _locked(folder: Path, path: Path) -> int:
    """Make ``folder`` and hold it: the descriptor of its lock."""
    while True:
        folder.mkdir(exist_ok=True)
        try:
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # its holder has just removed the folder
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), os.stat(folder / _LOCK)):
                return lock
        except BlockingIOError:
            os.close(lock)
            raise UserError(
                f"another command is writing {path}: wait for its end or name another output"
            ) from None
        except FileNotFoundError:
            pass
        except OSError:
            os.close(lock)
            raise
        os.close(lock)  # of a lock that its holder has just removed


def _clear(draft: Path, replaced: Path, path: Path) -> None:
    if replaced.exists() and not path.exists():  # ended between the two renames
        os.rename(replaced, path)
    for left in (draft, replaced):
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _refuse_existing(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite and not (path.is_dir() and not any(path.iterdir())):
        raise UserError(f"{path} exists already; name another folder or add --overwrite")


def _rename_to_new(draft: Path, path: Path) -> None:
    try:
        os.rename(draft, path)  # onto nothing or an empty folder
    except OSError as error:
        if path.exists():
            raise UserError(f"{path} was written by another command meanwhile: name another folder") from None
        raise UserError(f"cannot write {path}: {error.strerror}") from None


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as readable JSON, atomically."""
    path = Path(path)
    draft = path.with_name(f".{path.name}.partial")
    draft.write_text(json.dumps(value, indent=2, sort_keys=False) + "\n")
    os.replace(draft, path)


def read_json(path: Path, what: str) -> Any:
    """Read JSON; ``what`` names the expected content in the error.

    Raises:
        UserError: the file is missing, unreadable or malformed (with the line number).
    """
    try:
        return json.loads(Path(path).read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path} is missing: {Path(path).parent} is not {what}") from None
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): {Path(path).parent} is not {what}"
        ) from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: malformed JSON ({error.msg})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a text file: {Path(path).parent} is not {what}") from None
