"""Delimited text to columns at Arrow's speed; a line that does not fit is named by its number."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from envs.data.raw.bad_rows import BadRows
from envs.data.raw.opening import refuse_binary
from envs.data.raw.reading import Records
from envs.data.raw.rows import BadRow
from envs.data.raw.text import MAX_LINE
from envs.errors import UserError

_SEPARATOR_NAMES = {"\t": "tab"}
_PIECE = 1 << 20
_WHOLE_NUMBER = re.compile(r"[ \t]*-?[0-9]{1,19}[ \t]*", re.ASCII)


class DelimitedFile:
    """A file without a header: row r is line r + 1."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def where(self, row: int) -> str:
        """``path:line`` of a row, from 0."""
        return f"{self.path}:{row + 1}"


def read_delimited(
    path: Path, columns: Mapping[str, type], separator: str, bad_rows: BadRows | None = None
) -> Records:
    """Read a Latin-1 file without header or quoting.

    Args:
        path: the file.
        columns: name and type (``int`` or ``str``) of every column, in order.
        separator: one or more characters between two fields.
        bad_rows: takes the lines that do not fit; none is borne by default.

    Returns:
        A table of int64 and string columns without nulls.

    Raises:
        UserError: the file cannot be read, is empty, or has too many lines that do not fit.
    """
    content = _read(path)
    delimiter = separator
    if len(separator) > 1:  # Arrow splits at single bytes only
        unused = [byte for byte in map(chr, range(1, 9)) if byte.encode() not in content]
        if not unused:
            raise UserError(f"{path} is not a text file")
        delimiter = unused[0]
        content = content.replace(separator.encode(), delimiter.encode())
    file, bad_rows = DelimitedFile(path), bad_rows or BadRows()
    try:
        table = _parse(content, columns, delimiter)
        return Records(file, table, np.arange(len(table)))
    except pa.ArrowInvalid as refused:
        error = refused
    lines = re.split(rb"\r\n|\n|\r", content)
    bad = list(islice(_bad_lines(lines, columns, separator, delimiter), bad_rows.limit + 1))
    if not bad:
        raise UserError(f"{path}: {str(error).splitlines()[0]}")
    bad_rows.add(file, 0, bad)
    rows = np.delete(np.arange(len(lines)), [row.place for row in bad])
    if not len(rows):
        raise UserError(f"{path}: no row fits")
    try:
        return Records(file, _parse(b"\n".join(lines[row] for row in rows), columns, delimiter), rows)
    except pa.ArrowInvalid as refused:
        raise UserError(f"{path}: {str(refused).splitlines()[0]}") from None


def _parse(content: bytes, columns: Mapping[str, type], delimiter: str) -> pa.Table:
    kinds = {name: pa.int64() if kind is int else pa.string() for name, kind in columns.items()}
    return pyarrow.csv.read_csv(
        pa.BufferReader(content),
        read_options=pyarrow.csv.ReadOptions(column_names=list(columns)),
        parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, quote_char=False, ignore_empty_lines=False),
        convert_options=pyarrow.csv.ConvertOptions(column_types=kinds, null_values=[]),
    )


def _read(path: Path) -> bytes:
    try:
        content = b"".join(_pieces(path))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    content = content.rstrip(b"\r\n")
    if not content.strip():
        raise UserError(f"{path} is empty")
    refuse_binary(path, content[:_PIECE])
    return content if content.isascii() else content.decode("latin-1").encode()


def _pieces(path: Path) -> Iterator[bytes]:
    """The content in pieces, up to the first line that is too long: such a file may not fit into memory."""
    length, line = 0, 1
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            length = length + len(piece) if b"\n" not in piece else len(piece) - piece.rindex(b"\n") - 1
            line += piece.count(b"\n")
            if length > MAX_LINE:
                raise UserError(f"{path}:{line}: the line is longer than {MAX_LINE >> 20} MiB")
            yield piece


def _bad_lines(
    lines: Sequence[bytes], columns: Mapping[str, type], separator: str, delimiter: str
) -> Iterator[BadRow]:
    names = list(columns)
    numbers = [place for place, kind in enumerate(columns.values()) if kind is int]
    plain = "numbers" if len(numbers) == len(names) else "fields"
    expected = f"{len(names)} {_SEPARATOR_NAMES.get(separator, repr(separator))}-separated {plain}"
    if len(names) <= 8:
        expected += f" '{' '.join(names)}'"
    for place, line in enumerate(lines):
        text = line.decode()
        fields = text.split(delimiter)
        got = repr(text.replace(delimiter, separator)[:100])
        if len(fields) != len(names):
            yield BadRow(place, f"expected {expected}, got {got}")
        elif wrong := [names[number] for number in numbers if not _is_whole(fields[number])]:
            yield BadRow(place, f"expected {expected} with a whole number as {wrong[0]!r}, got {got}")


def _is_whole(text: str) -> bool:
    return _WHOLE_NUMBER.fullmatch(text) is not None and -(2**63) <= int(text) < 2**63
