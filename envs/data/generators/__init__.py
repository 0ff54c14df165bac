"""Log files in the exact formats of public data sets, drawn from a planted world and with its truth."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envs.data.generators import kuairand, movielens, own, rl4rs
from envs.data.generators.planted import CHUNK_ROWS, GeneratorSettings
from envs.data.generators.truth import (
    DESCRIPTION,
    Behaviour,
    Truth,
    Written,
    load_truth,
    true_probability,
)
from envs.errors import UserError
from envs.files import new_directory, read_json, write_json
from envs.progress import Progress, silent

__all__ = ["FORMATS", "Behaviour", "Truth", "default_settings", "generate", "load_truth", "true_probability"]


@dataclass(frozen=True)
class Format:
    """A format: its settings at the size of the real set, and what writes it."""

    settings: GeneratorSettings
    write: Callable[[Path, Any, int, Progress], Written]


FORMATS: Mapping[str, Format] = {
    "ml-1m": Format(movielens.MovieLensSettings(), movielens.write),
    "rl4rs": Format(rl4rs.RL4RSSettings(), rl4rs.write),
    "kuairand-pure": Format(kuairand.PURE, kuairand.write_pure),
    "kuairand-1k": Format(kuairand.ONE_K, kuairand.write_1k),
    "own": Format(own.OwnSettings(), own.write),
}


def default_settings(name: str) -> GeneratorSettings:
    """The settings of the format ``name``.

    Raises:
        UserError: no such format.
    """
    return _format(name).settings


def generate(
    name: str,
    out: Path,
    settings: GeneratorSettings,
    *,
    overwrite: bool = False,
    progress: Progress = silent,
    chunk_rows: int = CHUNK_ROWS,
) -> dict[str, Any]:
    """Write the folder ``out``: the files of the format and their truth, whole or not at all.

    The same settings give the same bytes, whatever the chunks.

    Args:
        name: of ``FORMATS``.
        out: the folder to write.
        settings: of that format.
        overwrite: replace ``out``, if all its files were generated.
        progress: told of the rows written.
        chunk_rows: rows in memory at a time; more only for a user who alone has more.

    Returns:
        The content of ``truth.json``.

    Raises:
        UserError: no such format, ``out`` exists or holds something else, or settings that do not fit.
    """
    form = _format(name)
    assert isinstance(settings, type(form.settings))
    if overwrite:
        _check_generated(out)
    with new_directory(out, overwrite=overwrite) as draft:
        written = form.write(draft, settings, chunk_rows, progress)
        written.truth.save(draft)
        description = {
            "format": name,
            "seed": settings.seed,
            "counts": dict(written.counts),
            **written.truth.describe(),
            "logs": {log: tally.figures() for log, tally in written.tallies.items()},
            "settings": settings.model_dump(),
            "files": sorted([*_files(draft), DESCRIPTION]),
        }
        write_json(draft / DESCRIPTION, description)
    return description


def _check_generated(out: Path) -> None:
    """Refuse a folder with any file that ``generate`` did not write."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file, not a generated folder: name another folder")
    found = _files(out)
    if not found:
        return
    if DESCRIPTION not in found:
        raise UserError(f"{out} holds files that were not generated, perhaps a download: name another folder")
    description = read_json(out / DESCRIPTION, "a folder of rl-rec data generate")
    written = description.get("files") if isinstance(description, dict) else None
    if not isinstance(written, list):
        raise UserError(f"{out / DESCRIPTION} does not list the files it came with: name another folder")
    foreign = [name for name in found if name not in written]
    if foreign:
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        raise UserError(
            f"{out} holds {foreign[0]}{more}, which was not generated: move it away or name another folder"
        )


def _files(folder: Path) -> list[str]:
    """Everything in ``folder`` but folders, by relative name."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_symlink() or not path.is_dir())
    return [path.relative_to(folder).as_posix() for path in found]


def _format(name: str) -> Format:
    if name not in FORMATS:
        raise UserError(f"unknown format {name!r}; use one of: {', '.join(FORMATS)}")
    return FORMATS[name]
