"""Parquet files, whose row groups are the blocks."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from envs.data.raw.rows import TYPES, Columns, Kind, Rows, require_columns
from envs.errors import UserError

_SAMPLE_ROWS = 1000


class ParquetFile:
    """One Parquet file.

    Raises:
        UserError: not a whole Parquet file, or one without rows.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with pq.ParquetFile(path) as file:
                self._schema = file.schema_arrow
                self._groups = file.num_row_groups
                rows = file.metadata.num_rows
        except (pa.ArrowException, OSError) as error:
            raise self._broken(error) from None
        self.columns: tuple[str, ...] = tuple(self._schema.names)
        if not rows:
            raise UserError(f"{path} has no rows")

    @property
    def blocks(self) -> int:
        """How many row groups it has."""
        return self._groups

    def where(self, row: int) -> str:
        """``path: row n`` of a row, from 0."""
        return f"{self.path}: row {row + 1}"

    def require(self, names: Columns) -> None:
        """Refuse a file that lacks one of ``names``, or has it in a type that cannot be what is wanted."""
        require_columns(self, names)
        for name, (kind, _) in names.items():
            found = self._schema.field(name).type
            if not _convertible(found, kind):
                raise UserError(f"{self.path}: column {name!r} is {found}, expected {kind.value}")

    def read(self, block: int, columns: Columns, limit: int) -> Rows:
        """Read some columns of one row group; as ``TextFile.read``, but a list keeps its type."""
        try:
            with pq.ParquetFile(self.path) as file:
                table = file.read_row_group(block, columns=list(columns), use_threads=False)
            table.validate(full=True)  # Arrow reads texts that are not UTF-8 without complaint
        except (pa.ArrowException, OSError) as error:
            raise self._broken(error) from None
        rows = Rows(table.select(list(columns)), np.arange(len(table)), len(table), limit)
        for name, (kind, _) in columns.items():
            self._convert(rows, name, kind)
        rows.check(columns)
        return rows

    def sample(self) -> pa.Table:
        """The first rows, at most a thousand, in the types of the file."""
        return self._head

    @cached_property
    def _head(self) -> pa.Table:
        try:
            with pq.ParquetFile(self.path) as file:
                batch = next(file.iter_batches(_SAMPLE_ROWS, use_threads=False))
        except (pa.ArrowException, OSError) as error:
            raise self._broken(error) from None
        return pa.Table.from_batches([batch])

    def read_texts(self, block: int) -> pa.Table:
        """All columns of one row group as strings; a list shows its values, separated by commas."""
        try:
            with pq.ParquetFile(self.path) as file:
                table = file.read_row_group(block, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise self._broken(error) from None
        return pa.table({name: _texts(table[name]) for name in table.column_names})

    def _convert(self, rows: Rows, name: str, kind: Kind) -> None:
        """Give a column the type of its kind; refuse the rows whose value would change by that."""
        column = rows.table[name]
        target = TYPES[kind]
        if kind not in (Kind.ID, Kind.LIST) and column.type != target:
            if kind is Kind.FLAG:
                numbers = column.cast(pa.float64(), safe=False)
                self._refuse(rows, name, kind, pc.and_(pc.not_equal(numbers, 0), pc.not_equal(numbers, 1)))
                converted = pc.equal(rows.table[name].cast(pa.float64(), safe=False), 1)
            elif kind is Kind.WHOLE:
                if pa.types.is_floating(column.type):
                    fits = pc.and_(pc.equal(column, pc.floor(column)), pc.less(pc.abs(column), 2.0**53))
                    self._refuse(rows, name, kind, pc.and_(pc.invert(fits), pc.is_finite(column)))
                    column = rows.table[name]
                    nan = pc.is_nan(column)
                    column = pc.if_else(nan, pa.scalar(None, column.type), column)
                elif pa.types.is_uint64(column.type):
                    self._refuse(rows, name, kind, pc.greater(column, pa.scalar(2**63 - 1, pa.uint64())))
                    column = rows.table[name]
                converted = column.cast(pa.int64(), safe=False)
            elif kind is Kind.NUMBER:
                converted = column.cast(pa.float64(), safe=False)
            else:
                converted = column.cast(target, safe=False)
            place = rows.table.column_names.index(name)
            rows.table = rows.table.set_column(place, name, converted)
        if kind is Kind.NUMBER:  # as in text, NaN is how a missing number is written
            values = rows.table[name]
            place = rows.table.column_names.index(name)
            missing = pa.scalar(None, pa.float64())
            rows.table = rows.table.set_column(place, name, pc.if_else(pc.is_nan(values), missing, values))

    def _refuse(self, rows: Rows, name: str, kind: Kind, bad: Any) -> None:
        values = rows.table[name]
        rows.refuse(
            bad.fill_null(False).to_numpy(),
            lambda row: f"column {name!r}: expected {kind.value}, got {values[row].as_py()!r}",
        )

    def _broken(self, error: Exception) -> UserError:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, OSError) and error.strerror:
            return UserError(f"{self.path}: {error.strerror}")
        return UserError(f"{self.path} is not a whole Parquet file ({reason})")


def _texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    try:
        return column.cast(pa.string())
    except pa.ArrowException:  # lists, structures, bytes
        shown = (None if value is None else str(value).strip("[]") for value in column.to_pylist())
        return pa.chunked_array([pa.array(shown, pa.string())])


def _convertible(found: pa.DataType, kind: Kind) -> bool:
    if pa.types.is_dictionary(found):
        found = found.value_type
    is_text = pa.types.is_string(found) or pa.types.is_large_string(found)
    is_whole = pa.types.is_integer(found)
    is_number = is_whole or pa.types.is_floating(found) or pa.types.is_decimal(found)
    is_list = pa.types.is_list(found) or pa.types.is_large_list(found) or pa.types.is_fixed_size_list(found)
    return {
        Kind.ID: is_text or is_whole,
        Kind.TEXT: not is_list and not pa.types.is_nested(found) and not pa.types.is_binary(found),
        Kind.WHOLE: is_whole or pa.types.is_floating(found),
        Kind.NUMBER: is_number or pa.types.is_boolean(found),
        Kind.FLAG: is_number or pa.types.is_boolean(found),
        Kind.DATETIME: pa.types.is_timestamp(found) or pa.types.is_date(found),
        Kind.ZONED: pa.types.is_timestamp(found),
        Kind.LIST: is_list or is_text,
    }[kind]
