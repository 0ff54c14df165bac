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
            command is writing it, it is a place that no folder can be renamed to, or cannot be written.
    """
    path = _real(path)
    _check_new(path, overwrite)  # before anything is written
    with _draft_of(path) as (draft, replaced):
        _check_new(path, overwrite)  # by a command that ended meanwhile, or put back
        with _writing(path):
            draft.mkdir()
        yield draft
        with _writing(path):
            if overwrite and path.exists():
                os.rename(path, replaced)
            _rename_to_new(draft, path)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a temporary file name; what the block writes there replaces ``path`` when it succeeds.

    Raises:
        UserError: another command is writing ``path``, it is a folder, or it cannot be written.
    """
    path = _real(path)
    with _writing(path):
        if path.is_dir():
            raise UserError(f"{path} is a folder; name a file")
    with _draft_of(path) as (draft, _), _writing(path):
        yield draft
        os.replace(draft, path)


def _real(path: Path) -> Path:
    """Where links lead: a draft lies beside the target itself, and the link stays."""
    try:
        return Path(os.path.realpath(path))
    except OSError as error:  # the folder that the command was started in is gone
        raise UserError(f"cannot write {path}: {error.strerror}; name an absolute path") from None


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None


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
        raise UserError(f"cannot write to {path.parent}: {error.strerror}: {error.filename}") from None
    try:
        with _writing(path):
            _clear(draft, replaced, path)
        if draft.exists() or replaced.exists():
            raise UserError(f"cannot clear {folder}, which an earlier command left: remove it")
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


def _check_new(path: Path, overwrite: bool) -> None:
    with _writing(path):
        if path.exists() and not overwrite and not (path.is_dir() and not any(path.iterdir())):
            raise UserError(f"{path} exists already; name another folder or add --overwrite")
        if path.is_symlink():
            raise UserError(f"{path} is a link that leads in a circle: name another folder")
        # Nothing can take the place of the one, and whoever is in the other would not see what did.
        if os.path.ismount(path) or _around_us(path):
            raise UserError(f"{path} is a mount point or the folder you are in: name a folder in it")


def _around_us(path: Path) -> bool:
    try:
        return Path.cwd().is_relative_to(path)
    except FileNotFoundError:  # removed meanwhile
        return False


def _rename_to_new(draft: Path, path: Path) -> None:
    try:
        os.rename(draft, path)  # onto nothing or an empty folder
    except OSError:
        if path.exists():
            raise UserError(f"{path} was written by another command meanwhile: name another folder") from None
        raise


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
