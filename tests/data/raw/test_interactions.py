"""Interactions of any number: the same sessions whatever the blocks, threads and interruptions."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from envs.data.raw.bad_rows import BadRows
from envs.data.raw.interactions import LARGEST_PAGE, Interactions, merge_parts, part_table
from envs.data.raw.parts import Parsed, WorkFolder, write_parts
from envs.data.raw.reading import Reading, in_order, open_file
from envs.data.raw.rows import Column, Kind, RawFile
from envs.data.sessions import Origin, build_sessions
from envs.errors import UserError
from envs.progress import silent

COLUMNS = {
    "user": Column(Kind.ID),
    "item": Column(Kind.ID),
    "ms": Column(Kind.WHOLE),
    "click": Column(Kind.FLAG),
    "page": Column(Kind.ID),
}


class Reader:
    """Reads blocks, remembers which, and may be stopped after some."""

    def __init__(self, skip: int, stop_after: int | None = None) -> None:
        self.skip, self.stop_after, self.read = skip, stop_after, 0

    def parse(self, file: RawFile, block: int) -> Parsed:
        if self.read == self.stop_after:
            raise KeyboardInterrupt
        self.read += 1
        rows = file.read(block, COLUMNS, self.skip)
        table = rows.table
        clicks, ms = table["click"].to_numpy().astype(np.int8), table["ms"].to_numpy()
        return Parsed(rows, {"rows": part_table(table["user"], table["item"], clicks, ms, page=table["page"])})


def dictionary(*texts: str) -> pa.Array:
    return pa.array(texts).dictionary_encode()


def write_log(path: Path, rows: int = 900, users: int = 40) -> Path:
    rng = np.random.default_rng(0)
    lines = ["user,item,ms,click,page"]
    for _ in range(rows):
        user, item, page = rng.integers(0, users), rng.integers(100, 120), rng.integers(0, 5)
        lines.append(f"{user},i{item},{rng.integers(0, 9000)},{rng.integers(0, 2)},p{page}")
    lines[10], lines[200] = "lost,i999,none,1,gone", "lost,i999,5,1,"
    path.write_text("\n".join(lines) + "\n")
    return path


def run(
    path: Path, work: WorkFolder, reading: Reading, reader: Reader, rows_per_range: int = 100
) -> tuple[Interactions, BadRows]:
    bad_rows = BadRows(reader.skip)
    parts = write_parts(
        [open_file(path, reading)], reader.parse, {"columns": "those"}, work, bad_rows, reading, silent
    )
    return merge_parts(parts, 3, reading, silent, rows_per_range=rows_per_range), bad_rows


def content(merged: Interactions) -> tuple:
    return (
        merged.user_ids.to_pylist(),
        merged.item_ids.to_pylist(),
        *(part.tobytes() for part in merged.sessions),
    )


@pytest.mark.parametrize("block_bytes", [50, 1 << 10, 1 << 20])
@pytest.mark.parametrize(("threads", "rows_per_range"), [(1, 1 << 20), (4, 50)])
def test_blocks_threads_and_ranges_do_not_change_the_result(
    tmp_path: Path, block_bytes: int, threads: int, rows_per_range: int
) -> None:
    path = write_log(tmp_path / "log.csv", rows=300 if block_bytes == 50 else 900)
    whole, skipped = run(path, WorkFolder(), Reading(1, 1 << 20), Reader(2))
    merged, again = run(path, WorkFolder(), Reading(threads, block_bytes), Reader(2), rows_per_range)

    assert content(merged) == content(whole)
    assert again.summary() == skipped.summary() and skipped.count == 2
    assert whole.user_ids.to_pylist() == [str(user) for user in range(40)], (
        "numeric ids in the order of numbers"
    )
    assert "i999" not in whole.item_ids.to_pylist(), "ids of bad rows are no ids"


def test_the_result_is_that_of_all_rows_in_memory(tmp_path: Path) -> None:
    path = write_log(tmp_path / "log.csv")
    rows = [line.split(",") for line in path.read_text().splitlines()[1:] if "lost" not in line]
    users, items = sorted({row[0] for row in rows}, key=int), sorted({row[1] for row in rows})
    pages = list(dict.fromkeys(row[4] for row in rows))
    expected = build_sessions(
        [users.index(row[0]) for row in rows],
        [items.index(row[1]) + 1 for row in rows],
        [int(row[3]) for row in rows],
        [int(row[2]) for row in rows],
        3,
        page=[pages.index(row[4]) for row in rows],
    )
    merged, _ = run(path, WorkFolder(), Reading(2, 1000), Reader(2))

    assert np.array_equal(merged.sessions.time, expected.time // 1000), "milliseconds order, seconds remain"
    for name in ("user", "items", "feedback", "origin"):
        assert np.array_equal(getattr(merged.sessions, name), getattr(expected, name))


@pytest.mark.parametrize("threads", [1, 3])
def test_what_was_read_before_a_stop_is_not_read_again(tmp_path: Path, threads: int) -> None:
    path, reading = write_log(tmp_path / "log.csv"), Reading(threads, 1000)
    uninterrupted, _ = run(path, WorkFolder(), reading, Reader(2))
    blocks = open_file(path, reading).blocks
    stopped = Reader(2, stop_after=blocks // 2)
    with pytest.raises(KeyboardInterrupt), WorkFolder(tmp_path / ".out.prepare") as work:
        run(path, work, reading, stopped)
    resumed = Reader(2)
    with WorkFolder(tmp_path / ".out.prepare") as work:
        merged, bad_rows = run(path, work, reading, resumed)

    assert resumed.read == blocks - stopped.read
    assert content(merged) == content(uninterrupted) and bad_rows.count == 2
    assert not (tmp_path / ".out.prepare").exists()


@pytest.mark.parametrize("change", ["content", "time", "key", "cut off", "block size"])
def test_parts_of_something_else_are_not_used(tmp_path: Path, change: str) -> None:
    path, reading = write_log(tmp_path / "log.csv"), Reading(1, 1000)
    key: dict = {"columns": "those"}
    with pytest.raises(ZeroDivisionError), WorkFolder(tmp_path / ".w") as work:
        write_parts([open_file(path, reading)], Reader(2).parse, key, work, BadRows(2), reading, silent)
        raise ZeroDivisionError
    if change == "content":
        path.write_text(path.read_text() + "1,i100,5,1,p1\n")
    elif change == "time":
        os.utime(path, ns=(0, 0))
    elif change == "key":
        key = {"columns": "others"}
    elif change == "cut off":
        for rows in (tmp_path / ".w").glob("*/rows.arrow"):
            rows.write_bytes(rows.read_bytes()[:100])
    else:
        reading = Reading(1, 999)
    again = Reader(2)
    with WorkFolder(tmp_path / ".w") as work:
        write_parts([open_file(path, reading)], again.parse, key, work, BadRows(2), reading, silent)

    assert again.read == open_file(path, reading).blocks


def test_a_limit_that_is_passed_names_the_same_row_whatever_the_blocks(tmp_path: Path) -> None:
    path = write_log(tmp_path / "log.csv")
    messages = set()
    for reading in (Reading(1, 1 << 20), Reading(4, 100), Reading(2, 3000)):
        with pytest.raises(UserError) as raised:
            run(path, WorkFolder(), reading, Reader(1))
        messages.add(str(raised.value))

    assert len(messages) == 1 and messages.pop().startswith(f"{path}:201: column 'page': is missing")


def test_a_failure_leaves_the_work_for_the_next_attempt_and_nothing_without_any(tmp_path: Path) -> None:
    path, reading = write_log(tmp_path / "log.csv"), Reading(1, 1 << 20)
    with pytest.raises(UserError), WorkFolder(tmp_path / ".w") as work:
        run(path, work, reading, Reader(0))

    assert not (tmp_path / ".w").exists(), "the only block was bad"
    with pytest.raises(UserError), WorkFolder(tmp_path / ".w") as work:
        run(path, work, Reading(1, 100), Reader(0))
    assert len(list((tmp_path / ".w").glob("*/part.json"))) >= 1


def test_two_commands_do_not_share_a_work_folder(tmp_path: Path) -> None:
    with WorkFolder(tmp_path / ".w") as work:
        work.open()
        with (
            pytest.raises(UserError, match="another command is preparing the same output"),
            WorkFolder(tmp_path / ".w") as other,
        ):
            other.open()
        assert (tmp_path / ".w").exists()


def test_only_bad_rows_are_nothing_to_prepare(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item,ms,click,page\n1,2,x,1,p\n")
    with pytest.raises(UserError, match="no row of the interactions fits"):
        run(tmp_path / "log.csv", WorkFolder(), Reading(1), Reader(5))


def test_pages_in_their_order_with_the_history_of_the_first(tmp_path: Path) -> None:
    # The second page is dated before the first; what it knows as history, the first page has shown.
    table = part_table(
        dictionary("u", "u", "u", "u"),
        dictionary("a", "b", "c", "d"),
        np.array([1, 1, 0, 1], np.int8),
        np.array([5000, 9000, 9000, 5000]),
        np.array([Origin.HISTORY, Origin.HISTORY, Origin.LOGGED, Origin.LOGGED], np.int8),
        np.array([-3, -2, 1, 2]),
    )
    with pa.OSFile(str(tmp_path / "rows.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as file:
        file.write_table(table)
    sessions = merge_parts([tmp_path], 2, Reading(1), silent, in_page_order=True).sessions

    assert sessions.items.tolist() == [[2, 0], [3, 0], [4, 0]]
    assert sessions.time.tolist() == [9, 9, 9]
    assert sessions.origin.tolist() == [Origin.HISTORY, Origin.LOGGED, Origin.LOGGED]


@pytest.mark.parametrize(
    ("sizes", "given", "expected"),
    [([3] * 5, None, 3), ([3] * 5, 2, 2), ([2] * 300 + [7], None, 2), ([150], None, LARGEST_PAGE)],
)
def test_slates_are_as_large_as_nearly_all_pages(
    tmp_path: Path, sizes: list[int], given: int | None, expected: int
) -> None:
    rows = sum(sizes)
    page = np.repeat(np.arange(len(sizes)), sizes)
    table = part_table(
        dictionary(*["u"] * rows),
        dictionary(*map(str, range(rows))),
        np.zeros(rows, np.int8),
        np.arange(rows),
        page=page,
    )
    with pa.OSFile(str(tmp_path / "rows.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as file:
        file.write_table(table)
    assert merge_parts([tmp_path], given, Reading(1), silent).sessions.items.shape[1] == expected


@pytest.mark.parametrize("threads", [1, 3])
def test_results_come_in_order_and_errors_where_they_belong(threads: int) -> None:
    assert list(in_order(lambda n: n * n, range(20), threads)) == [n * n for n in range(20)]
    found = []
    with pytest.raises(ZeroDivisionError):
        for value in in_order(lambda n: 1 // (7 - n), range(20), threads):
            found.append(value)
    assert len(found) == 7


def test_parts_that_a_killed_command_left_half_are_cleared(tmp_path: Path) -> None:
    (tmp_path / "work" / ".half.partial").mkdir(parents=True)
    (tmp_path / "work" / "whole").mkdir()
    with WorkFolder(tmp_path / "work") as work:
        assert {path.name for path in work.open().iterdir()} == {"lock", "whole"}
