"""First pass over interactions of any number: every block of every file becomes one compact part on disk.

A part is named by what went into it, so that a preparation that was killed goes on where it stopped.
"""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import pyarrow as pa
from typing_extensions import Self

from envs.data.raw.bad_rows import BadRows
from envs.data.raw.reading import Reading, in_order
from envs.data.raw.rows import BadRow, RawFile, Rows
from envs.errors import UserError
from envs.progress import Progress

VERSION = 1
"""Raised whenever the same files give other parts."""
_SUMMARY = "part.json"
_LOCK = "lock"


class Parsed(NamedTuple):
    """A block: its rows, for their bad ones, and the tables to keep of it."""

    rows: Rows
    tables: Mapping[str, pa.Table]


Parse = Callable[[RawFile, int], Parsed]


class WorkFolder:
    """Where parts lie until the dataset is written; exists from the first part on.

    As a context it is removed at success; after a failure it stays for the next attempt.

    Args:
        path: None for a temporary folder, which never stays.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._lock: int | None = None

    @classmethod
    def beside(cls, out: Path) -> Self:
        """The folder that belongs to the output ``out``."""
        return cls(out.parent / f".{out.name}.prepare")

    def open(self) -> Path:
        """Make the folder and keep other commands out of it.

        Raises:
            UserError: it cannot be written, or another command is at work in it.
        """
        if self._path is None:
            self._temporary = self._temporary or tempfile.TemporaryDirectory(prefix="prepare-")
            return Path(self._temporary.name)
        if self._lock is None:
            try:
                self._path.mkdir(parents=True, exist_ok=True)
                lock = os.open(self._path / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(lock)
                    raise UserError(f"another command is preparing the same output in {self._path}") from None
                self._lock = lock
                for left in self._path.glob(".*.partial"):  # of a command that was killed
                    shutil.rmtree(left)
            except OSError as error:
                raise UserError(f"cannot write to {self._path}: {error.strerror}") from None
        return self._path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._temporary is not None:
            self._temporary.cleanup()
        if self._path is None or self._lock is None:
            return
        if kind is None or {entry.name for entry in self._path.iterdir()} == {_LOCK}:
            shutil.rmtree(self._path, ignore_errors=True)
        os.close(self._lock)
        self._lock = None


def write_parts(
    files: Sequence[RawFile],
    parse: Parse,
    key: Mapping[str, Any],
    work: WorkFolder,
    bad_rows: BadRows,
    reading: Reading,
    progress: Progress,
) -> list[Path]:
    """Parse every block of ``files`` that is not on disk yet.

    Args:
        files: in the order in which their rows count.
        parse: reads one block; runs in several threads.
        key: all that decides what ``parse`` makes of a block, as plain data.
        work: where parts are written and found.
        bad_rows: takes the rows that do not fit.
        reading: threads and block size.
        progress: called after every block.

    Returns:
        The folders of the parts, in the order of the rows.

    Raises:
        UserError: too many rows that do not fit, or a part cannot be written.
    """
    folder = work.open()
    blocks = [(file, block) for file in files for block in range(file.blocks)]
    names = [_name(file, block, key, reading) for file, block in blocks]

    def write(place: int) -> tuple[int, list[BadRow]]:
        target = folder / names[place]
        known = _summary(target)
        if known is not None:
            return known
        rows, tables = parse(*blocks[place])
        if len(rows.bad) <= bad_rows.limit and not any(row.fatal for row in rows.bad):
            _write(target, rows, tables)
        return rows.total, rows.bad

    first, current = 0, None
    progress(0, len(blocks), "reading")
    for place, (total, bad) in enumerate(in_order(write, range(len(blocks)), reading.workers)):
        file = blocks[place][0]
        if file is not current:
            first, current = 0, file
        bad_rows.add(file, first, bad)
        first += total
        skipped = f", {bad_rows.count:,} bad rows skipped" if bad_rows.count else ""
        progress(place + 1, len(blocks), f"reading {file.path.name}{skipped}")
    pa.default_memory_pool().release_unused()
    return [folder / name for name in names]


def read_part(part: Path, table: str = "rows") -> pa.Table:
    """A table of a part, mapped from disk rather than read."""
    return pa.ipc.open_file(pa.memory_map(str(part / f"{table}.arrow"))).read_all()


def file_stamp(path: Path) -> dict[str, Any]:
    """What tells whether a file is still the same: its name, size and time of change."""
    status = path.stat()
    return {"name": path.name, "size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _name(file: RawFile, block: int, key: Mapping[str, Any], reading: Reading) -> str:
    stamp = {**file_stamp(file.path), "path": str(file.path.resolve())}
    content = [VERSION, stamp, block, reading.block_bytes, dict(key)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _summary(part: Path) -> tuple[int, list[BadRow]] | None:
    try:
        summary = json.loads((part / _SUMMARY).read_text())
        for table in summary["tables"]:
            read_part(part, table)
        return summary["total"], [BadRow(*row) for row in summary["bad"]]
    except (OSError, ValueError, LookupError, pa.ArrowException):
        return None  # not there, or cut off by a crash of the machine


def _write(target: Path, rows: Rows, tables: Mapping[str, pa.Table]) -> None:
    try:
        draft = Path(tempfile.mkdtemp(prefix=".", suffix=".partial", dir=target.parent))
        for name, table in tables.items():
            table = table.combine_chunks()
            if rows.bad:
                table = _used_only(table)
            with (
                pa.OSFile(str(draft / f"{name}.arrow"), "wb") as sink,
                pa.ipc.new_file(sink, table.schema) as file,
            ):
                file.write_table(table)
        summary = {"total": rows.total, "bad": sorted(rows.bad), "tables": list(tables)}
        (draft / _SUMMARY).write_text(json.dumps(summary))
        if target.exists():  # what a crash of the machine left
            shutil.rmtree(target)
        os.rename(draft, target)
    except OSError as error:
        raise UserError(f"cannot write to {target.parent}: {error.strerror}") from None


def _used_only(table: pa.Table) -> pa.Table:
    """Drop ids from the dictionaries that only occurred in rows that are gone."""
    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            texts = table.column(place).combine_chunks().dictionary_decode()
            table = table.set_column(place, field.name, texts.dictionary_encode())
    return table
