"""What a source is read from, and with what."""

from dataclasses import dataclass, field
from pathlib import Path

from envs.data.prepare_settings import PrepareSettings
from envs.data.raw.bad_rows import BadRows
from envs.data.raw.parts import WorkFolder
from envs.data.raw.reading import Reading
from envs.progress import Progress, silent


@dataclass(frozen=True)
class Raw:
    """The files of a source.

    Attributes:
        folder: of the downloaded files of a public source.
        interactions: files, folders or patterns of own logs.
        items, users: files that describe own items and users.
        roles: ``column=role``, what the columns of own files mean; the rest is guessed.
        skip_bad_rows: how many rows that do not fit may be left out, in all files together.
    """

    folder: Path | None = None
    interactions: tuple[str, ...] = ()
    items: Path | None = None
    users: Path | None = None
    roles: tuple[str, ...] = ()
    skip_bad_rows: int = 0


@dataclass
class Job:
    """One preparation, as its reader is given it; ``settings`` have the source's own defaults filled in."""

    raw: Raw
    settings: PrepareSettings
    bad_rows: BadRows
    work: WorkFolder = field(default_factory=WorkFolder)
    reading: Reading = field(default_factory=Reading)
    progress: Progress = silent
    notes: dict[str, object] = field(default_factory=dict)
    """What the reader tells about its decisions, as plain data; it joins the dataset's description."""

    parts: list[Path] = field(default_factory=list)
    """The parts that the reader has made, in the order of the rows; none where it reads files whole."""

    @property
    def slate_size(self) -> int:
        """K of the sources that have one, which is known by the time that they are read."""
        assert self.settings.slate_size is not None
        return self.settings.slate_size
