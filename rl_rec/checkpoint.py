"""What tells a whole checkpoint from a torn one: a list of its files with their hashes, written last."""

import hashlib
from pathlib import Path

from envs.errors import UserError
from envs.files import read_json, write_json

_MANIFEST = "manifest.json"


def seal(folder: Path) -> None:
    """Write the manifest of every file below ``folder``."""
    write_json(folder / _MANIFEST, _hashes(folder))


def verify(folder: Path) -> None:
    """Check ``folder`` against its manifest.

    Raises:
        UserError: no manifest, or files that are missing, extra or changed.
    """
    expected = read_json(folder / _MANIFEST, "a whole checkpoint")
    if not isinstance(expected, dict):
        raise UserError(f"{folder / _MANIFEST} does not list a checkpoint's files; use an older checkpoint")
    found = _hashes(folder)
    if found != expected:
        wrong = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
        raise UserError(f"{folder} is damaged: {wrong[0]} is not what was saved; use an older checkpoint")


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _MANIFEST)
    # Tune adds its own hidden files next to ours.
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if not path.name.startswith(".")
    }
