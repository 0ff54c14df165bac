"""The rows of one block: what every file format is read to, and how a row that does not fit leaves them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from envs.data.raw.ids import encode_ids
from envs.errors import UserError

MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "UNKNOWN")
"""How a value that is not there is written."""


class Kind(Enum):
    """What a column holds; the value is what an error calls it."""

    ID = "an id"
    TEXT = "text"
    WHOLE = "a whole number"
    NUMBER = "a number"
    FLAG = "0 or 1"
    DATETIME = "a date and time like 2024-01-31 12:00:00"
    ZONED = "a date and time with its zone like 2024-01-31 12:00:00Z"
    LIST = "a list"


TYPES = {
    Kind.ID: pa.string(),
    Kind.TEXT: pa.string(),
    Kind.WHOLE: pa.int64(),
    Kind.NUMBER: pa.float64(),
    Kind.FLAG: pa.bool_(),
    Kind.DATETIME: pa.timestamp("us"),
    Kind.ZONED: pa.timestamp("us", "UTC"),
    Kind.LIST: pa.string(),
}
"""The Arrow type of each kind as parsed; ids become dictionaries then, and lists of Parquet keep their type."""


class Column(NamedTuple):
    """One wanted column; an ``optional`` one may lack values, which are then null."""

    kind: Kind
    optional: bool = False


Columns = Mapping[str, Column]


class BadRow(NamedTuple):
    """A row that does not fit: its position in the block, from 0, and why; a ``fatal`` one ends the file."""

    place: int
    what: str
    fatal: bool = False


@dataclass
class Rows:
    """The rows of a block that fit so far.

    Attributes:
        table: the wanted columns, R rows.
        places: int64 (R,), ascending: the position of each row in its block, from 0.
        total: rows of the block, with those that do not fit.
        limit: how many rows may not fit; of more only the first are described.
        bad: the rows that do not fit, in the order of their discovery.
    """

    table: pa.Table
    places: NDArray[np.int64]
    total: int
    limit: int = 0
    bad: list[BadRow] = field(default_factory=list)

    def refuse(self, bad: NDArray[np.bool_], describe: Callable[[int], str]) -> None:
        """Take out the rows that are ``bad``, a bool (R,); ``describe`` says of a row what is wrong with it."""
        if not bad.any():
            return
        first = np.flatnonzero(bad)[: self.limit + 1]
        self.bad += [BadRow(int(self.places[row]), describe(int(row))) for row in first]
        self.table, self.places = self.table.filter(pa.array(~bad)), self.places[~bad]

    def check(self, columns: Columns) -> None:
        """Refuse rows without a required value, and numbers that are not finite; trim the ids."""
        for name, (kind, optional) in columns.items():
            if kind is Kind.ID:
                self._check_ids(name)
            elif kind is Kind.NUMBER:
                infinite = pc.invert(pc.is_finite(self.table[name])).fill_null(False).to_numpy()
                self.refuse_all(infinite, f"column {name!r}: not finite")
            if not optional and self.table[name].null_count:
                self.refuse_all(self.table[name].is_null().to_numpy(), f"column {name!r}: is missing")

    def _check_ids(self, name: str) -> None:
        ids = encode_ids(self.table[name])
        self.table = self.table.set_column(self.table.column_names.index(name), name, ids)
        absent = pc.is_in(ids.dictionary, pa.array(MISSING)).to_numpy(zero_copy_only=False)
        if absent.any():
            codes = ids.indices.fill_null(0).to_numpy()
            self.refuse_all(absent[codes], f"column {name!r}: is missing")

    def refuse_all(self, bad: NDArray[np.bool_], what: str) -> None:
        """Take out the rows that are ``bad``, a bool (R,), all for the same reason."""
        self.refuse(bad, lambda _: what)


class Located(Protocol):
    """A file whose rows an error can name."""

    path: Path

    def where(self, row: int) -> str:
        """How an error names a row of the file, from 0."""


class RawFile(Located, Protocol):
    """A file of rows that is read in blocks."""

    columns: tuple[str, ...]

    @property
    def blocks(self) -> int:
        """How many blocks it has."""

    def read(self, block: int, columns: Columns, limit: int) -> Rows:
        """Read some columns of a block, and at most ``limit`` + 1 rows that do not fit."""

    def sample(self) -> pa.Table:
        """The first rows, at most a thousand, of all columns: texts where the format has no types."""


def require_columns(file: RawFile, names: Mapping[str, object] | tuple[str, ...], hint: str = "") -> None:
    """Refuse a file that lacks one of ``names``.

    Raises:
        UserError: names the first one that is missing, and the columns that there are.
    """
    for name in names:
        if name not in file.columns:
            raise UserError(f"{file.path}: no column {name!r}; it has {listed(file.columns)}{hint}")


def listed(columns: tuple[str, ...]) -> str:
    """The names of columns as an error shows them: a file without a header has its first row for names."""
    shown = ", ".join(shortened(name, 24) for name in columns[:30])
    return shown + (f" and {len(columns) - 30} more" if len(columns) > 30 else "")


def shortened(text: str, most: int = 80) -> str:
    """A text in quotes, cut off if it is longer than ``most``."""
    return repr(text[:most]) + ("…" if len(text) > most else "")
