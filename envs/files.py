"""Output that is either whole or absent: write beside the target, then rename."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from envs.errors import UserError


@contextmanager
def new_directory(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary sibling of ``path`` that becomes ``path`` when the block succeeds.

    Args:
        path: the directory to create.
        overwrite: replace an existing directory; otherwise one that holds anything is refused.

    Raises:
        UserError: ``path`` exists and ``overwrite`` is off, also when somebody else wrote it meanwhile, or its
            parent cannot be written.
    """
    path = Path(path)
    if path.exists() and not overwrite and not (path.is_dir() and not any(path.iterdir())):
        raise UserError(f"{path} exists already; name another folder or add --overwrite")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    except OSError as error:
        raise UserError(f"cannot write to {path.parent}: {error.strerror}") from None
    try:
        yield draft
        draft.chmod(0o755)
        if not overwrite:
            _rename_to_new(draft, path)
        elif path.exists():
            discarded = draft.with_suffix(".old")
            os.rename(path, discarded)
            os.rename(draft, path)
            shutil.rmtree(discarded) if discarded.is_dir() else discarded.unlink()
        else:
            os.rename(draft, path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


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
