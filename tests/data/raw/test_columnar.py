"""Parquet files: their row groups are blocks, and a value that does not fit is named by its row."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from envs.data.raw.bad_rows import BadRows
from envs.data.raw.reading import Reading, open_file, read_records
from envs.data.raw.rows import Column, Kind
from envs.errors import UserError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    columns = {
        "id": pa.array([1, 2, 2, None]),
        "text": [" a", "b", "", "b"],
        "whole": [1.0, 2.5, float("nan"), 3.0],
        "flag": [0, 1, 2, 1],
        "big": pa.array([1, 2, 2**64 - 1, 3], pa.uint64()),
        "list": [["x"], [], None, ["y", "z"]],
    }
    pq.write_table(pa.table(columns), tmp_path / "logs.parquet", row_group_size=3)
    return tmp_path / "logs.parquet"


def values(path: Path, name: str, column: Column, skip: int = 9) -> tuple[list[Any], list[int], BadRows]:
    bad_rows, reading = BadRows(skip), Reading(threads=2)
    records = read_records(open_file(path, reading), {name: column}, bad_rows, reading)
    return records.table[name].to_pylist(), records.rows.tolist(), bad_rows


@pytest.mark.parametrize(
    ("name", "column", "expected", "first"),
    [
        ("id", Column(Kind.ID), ["1", "2", "2"], "row 4: column 'id': is missing"),
        ("text", Column(Kind.ID), ["a", "b", "b"], "row 3: column 'text': is missing"),
        ("whole", Column(Kind.WHOLE), [1, 3], "row 2: column 'whole': expected a whole number, got 2.5"),
        ("whole", Column(Kind.NUMBER), [1.0, 2.5, 3.0], "row 3: column 'whole': is missing"),
        ("whole", Column(Kind.NUMBER, optional=True), [1.0, 2.5, None, 3.0], None),
        ("flag", Column(Kind.FLAG), [False, True, True], "row 3: column 'flag': expected 0 or 1, got 2"),
        ("big", Column(Kind.WHOLE), [1, 2, 3], "row 3: column 'big': expected a whole number"),
        ("list", Column(Kind.LIST, optional=True), [["x"], [], None, ["y", "z"]], None),
    ],
)
def test_columns_become_their_kind(
    path: Path, name: str, column: Column, expected: list, first: str | None
) -> None:
    found, _, bad_rows = values(path, name, column)

    assert found == expected
    assert bad_rows.count == 4 - len(expected)
    if first is not None:
        assert bad_rows.summary()["logs.parquet"]["first"].startswith(first)
        with pytest.raises(UserError) as raised:
            values(path, name, column, skip=0)
        assert str(raised.value).startswith(f"{path}: {first}")


@pytest.mark.parametrize(
    ("name", "kind", "what"),
    [
        ("x", Kind.ID, "no column 'x'; it has 'id', 'text'"),
        ("whole", Kind.ID, "column 'whole' is double, expected an id"),
        ("text", Kind.NUMBER, "column 'text' is string, expected a number"),
        ("list", Kind.TEXT, "expected text"),
        ("id", Kind.DATETIME, "column 'id' is int64, expected a date and time"),
    ],
)
def test_a_column_that_is_missing_or_of_another_type_is_refused(
    path: Path, name: str, kind: Kind, what: str
) -> None:
    with pytest.raises(UserError) as raised:
        values(path, name, Column(kind))
    assert str(raised.value).startswith(str(path)) and what in str(raised.value)


def test_a_file_that_is_cut_off_is_refused(path: Path) -> None:
    content = path.read_bytes()
    for broken in (content[:-20], content[:2], b""):
        path.write_bytes(broken)
        with pytest.raises(UserError, match=r"is not a whole Parquet file \(") as raised:
            open_file(path, Reading())
        assert "\n" not in str(raised.value)
    path.write_bytes(content[:50] + bytes(100) + content[150:])  # damage within the data
    with pytest.raises(UserError, match="is not a whole Parquet file"):
        values(path, "id", Column(Kind.ID))


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": pa.array([], pa.int64())}), tmp_path / "empty.parquet")
    with pytest.raises(UserError, match=r"empty\.parquet has no rows"):
        open_file(tmp_path / "empty.parquet", Reading())


def test_texts_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "logs.parquet"
    pq.write_table(pa.table({"id": pa.array([b"a", b"\xc3("]).view(pa.string())}), path)
    with pytest.raises(UserError, match=r"logs\.parquet is not a whole Parquet file \(.*UTF8"):
        values(path, "id", Column(Kind.ID))
