"""Files opened, read block by block in parallel, and handed over in their order."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from envs.data.raw.bad_rows import BadRows
from envs.data.raw.columnar import ParquetFile
from envs.data.raw.ids import IdIndex
from envs.data.raw.rows import BadRow, Columns, Located, Rows
from envs.data.raw.text import BLOCK_BYTES, TextFile
from envs.data.raw.vectors import Vectors
from envs.errors import UserError

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class Reading(NamedTuple):
    """How files are read, which changes nothing in what is read."""

    threads: int = 0
    """0 takes one for each core, at most 8: each holds a block and what it is parsed to, some 150 MB."""
    block_bytes: int = BLOCK_BYTES

    @property
    def workers(self) -> int:
        """The number of threads."""
        return self.threads or min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4, 8)


class Records(NamedTuple):
    """A file that fits into memory: ``table`` of R rows, and ``rows`` int64 (R,), their numbers in the file."""

    file: Located
    table: pa.Table
    rows: NDArray[np.int64]


def open_file(
    path: Path, reading: Reading, separator: str | None = None, quoted: bool = True
) -> TextFile | ParquetFile:
    """Open a Parquet file (``.parquet`` or ``.pq``) or delimited text.

    Raises:
        UserError: the file is missing or is not what its name says.
    """
    if not path.is_file():
        raise UserError(f"{path} is not a file" if path.exists() else f"{path} does not exist")
    if path.suffix.lower() in (".parquet", ".pq"):
        return ParquetFile(path)
    return TextFile(path, separator, quoted, reading.block_bytes)


def read_records(
    file: TextFile | ParquetFile, columns: Columns, bad_rows: BadRows, reading: Reading, key: str | None = None
) -> Records:
    """Read some columns of a whole file.

    Args:
        file: of profiles or metadata.
        columns: what to read.
        bad_rows: takes the rows that do not fit.
        reading: threads and block size.
        key: a column of ids that may occur once only; a row that repeats one does not fit.

    Raises:
        UserError: a missing column, or too many rows that do not fit.
    """
    file.require(columns)
    tables, numbers, first = [], [], 0
    for rows in in_order(
        lambda block: file.read(block, columns, bad_rows.limit), range(file.blocks), reading.workers
    ):
        bad_rows.add(file, first, rows.bad)
        tables.append(rows.table)
        numbers.append(first + rows.places)
        first += rows.total
    table = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
    records = Records(file, table, np.concatenate(numbers))
    if key is not None:
        records = _once(records, key, bad_rows)
    if not len(records.table):
        raise UserError(f"{file.path}: no row fits")
    return records


def in_order(task: Callable[[ItemT], ResultT], items: Sequence[ItemT], threads: int) -> Iterator[ResultT]:
    """Run ``task`` on every item in threads and yield the results in the order of the items.

    Waits with further items until the consumer has taken results: about ``threads`` of them exist at a time.
    """
    if threads == 1:
        yield from map(task, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[Future[ResultT]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(task, item))
                if len(pending) > threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def refuse_records(
    records: Records, bad: NDArray[np.bool_], describe: Callable[[int], str], bad_rows: BadRows
) -> Records:
    """Take out the rows that are ``bad``, a bool (R,); ``describe`` says of a row what is wrong with it.

    Raises:
        UserError: too many rows that do not fit by now.
    """
    first = np.flatnonzero(bad)[: bad_rows.limit + 1]
    bad_rows.add(records.file, 0, [BadRow(int(records.rows[row]), describe(int(row))) for row in first])
    return Records(records.file, records.table.filter(pa.array(~bad)), records.rows[~bad])


def refuse_unknown(rows: Rows, column: str, listed: IdIndex, where: str) -> None:
    """Take out the rows whose id is not ``listed``; ``where`` names the file that lists them."""
    ids = rows.table[column].combine_chunks()
    unknown = listed.positions(ids.dictionary) < 0
    if unknown.any():
        rows.refuse(
            unknown[ids.indices.to_numpy()],
            lambda row: f"column {column!r}: {ids[row].as_py()!r} is not listed in {where}",
        )


def refuse_vectors(records: Records, name: str, vectors: Vectors, bad_rows: BadRows) -> Records:
    """Take out the rows whose vector in the column ``name`` is bad."""
    texts = records.table[name]
    return refuse_records(
        records, vectors.bad, lambda row: f"column {name!r}: {vectors.describe(texts[row].as_py())}", bad_rows
    )


def _once(records: Records, key: str, bad_rows: BadRows) -> Records:
    column = records.table[key].combine_chunks()
    codes = column.indices.to_numpy()
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    earlier = first[inverse]  # (R,) the row where each id was first listed
    file, rows = records.file, records.rows

    def describe(row: int) -> str:
        where = file.where(int(rows[earlier[row]])).removeprefix(str(file.path)).lstrip(": ")
        name = column.dictionary[int(codes[row])].as_py()
        return f"column {key!r}: {name!r} is listed already ({where if 'row' in where else f'line {where}'})"

    return refuse_records(records, earlier != np.arange(len(codes)), describe, bad_rows)
