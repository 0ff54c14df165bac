"""Every case of the corpus is refused in one line that names the place; bad rows are counted exactly."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rl_rec.cli.main import main
from tests.data.malformed.corpus import CASES, Case
from tests.data.malformed.faults import WHOLE_FILE, Fault, at, column, content, line, put
from tests.data.malformed.good import LOADERS, good_files, lay_out, run


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("good")


@pytest.mark.parametrize("name", LOADERS)
def test_the_good_files_are_accepted(name: str, root: Path, tmp_path: Path) -> None:
    folder = lay_out(good_files(name, root), tmp_path / "raw")

    assert run(name, folder, tmp_path / "out").dataset is not None


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_malformed_file_is_refused_by_its_place(case: Case, root: Path, tmp_path: Path) -> None:
    if case.what == "unreadable" and os.geteuid() == 0:
        pytest.skip("root reads everything")
    folder = lay_out(good_files(case.loader, root), tmp_path / "raw")
    case.damage(folder / case.file)
    outcome = run(case.loader, folder, tmp_path / "out")

    assert outcome.code == 2
    name = re.escape(Path(case.file).name)
    assert re.search(rf"{name}:? ?({case.says})", outcome.stderr), outcome.stderr


def _bad(name: str) -> Fault:
    """Three rows of the log that do not fit, each for another reason."""
    separator = {"rl4rs": b"@", "ml-1m": b"::", "ml-100k": b"\t"}.get(name, b",")
    first = {
        "rl4rs": put(4, b"0,1,0,1", separator),
        "kuairand": put(5, b"2"),
        "ml-1m": put(2, b"good", separator),
        "ml-100k": put(2, b"good", separator),
    }.get(name, put(3, b"2"))
    steps = [line(3, first), line(5, put(0, b"", separator)), line(6, lambda row: row + separator + b"more")]

    def damage(path: Path) -> None:
        for step in steps:
            step(path)

    return damage


@pytest.mark.parametrize("name", [name for name in LOADERS if name != "own-parquet"])
def test_bad_rows_are_counted_exactly(name: str, root: Path, tmp_path: Path) -> None:
    folder = lay_out(good_files(name, root), tmp_path / "raw")
    log = LOADERS[name].files[0]
    _bad(name)(folder / log)
    skipped = run(name, folder, tmp_path / "three", "--skip-bad-rows", "3").dataset
    refused = run(name, folder, tmp_path / "two", "--skip-bad-rows", "2")

    assert skipped is not None and {f: n["skipped"] for f, n in skipped.source["bad_rows"].items()} == {
        Path(log).name: 3
    }
    assert re.search(r":6: expected \d+ .*; 2 bad rows were skipped before it", refused.stderr)


def test_bad_rows_of_parquet_are_counted_exactly(root: Path, tmp_path: Path) -> None:
    folder = lay_out(good_files("own-parquet", root), tmp_path / "raw")
    column("click", at(4, 2))(folder / "interactions.parquet")
    column("user_id", at(7, None))(folder / "interactions.parquet")
    skipped = run("own-parquet", folder, tmp_path / "two", "--skip-bad-rows", "2").dataset
    refused = run("own-parquet", folder, tmp_path / "one", "--skip-bad-rows", "1")

    assert skipped is not None and skipped.source["bad_rows"]["interactions.parquet"]["skipped"] == 2
    assert "row 8: column 'user_id': is missing; 1 bad rows" in refused.stderr


@pytest.mark.parametrize("name", ["own", "rl4rs", "kuairand"])
def test_the_order_of_columns_does_not_matter(name: str, root: Path, tmp_path: Path) -> None:
    folder = lay_out(good_files(name, root), tmp_path / "raw")
    expected = run(name, folder, tmp_path / "out").dataset
    separator = b"@" if name == "rl4rs" else b","
    content(lambda data: b"\n".join(separator.join(row.split(separator)[::-1]) for row in data.split(b"\n")))(
        folder / LOADERS[name].files[0]
    )
    reordered = run(name, folder, tmp_path / "reordered").dataset

    assert expected is not None and reordered is not None
    assert reordered.fingerprint == expected.fingerprint


def test_a_refused_preparation_does_not_block_the_next_one(root: Path, tmp_path: Path) -> None:
    files = good_files("own", root)
    folder = lay_out(files, tmp_path / "raw")
    line(9, put(3, b"2"))(folder / "interactions.csv")
    command = ["data", "prepare", *LOADERS["own"].arguments(folder), "--out", str(tmp_path / "out")]
    assert main(command) == 2
    lay_out(files, folder)

    assert main(command) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "raw"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc")
@pytest.mark.parametrize("what", ["gzip", "a billion characters in line 2"])
@pytest.mark.parametrize("name", ["own", "ml-1m"])
def test_a_process_says_one_line_fast_and_in_little_memory(
    name: str, what: str, root: Path, tmp_path: Path
) -> None:
    folder = lay_out(good_files(name, root), tmp_path / "raw")
    WHOLE_FILE[what](folder / LOADERS[name].files[0])
    arguments = ["data", "prepare", *LOADERS[name].arguments(folder), "--out", str(tmp_path / "out")]
    program = (  # getrusage would count the process that it was forked from
        "import sys; from rl_rec.cli.main import main; code = main(sys.argv[1:]);"
        "status = open('/proc/self/status').read();"
        "print(int(status.partition('VmHWM:')[2].split()[0]) >> 10); sys.exit(code)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60
    )

    assert ended.returncode == 2
    assert re.fullmatch(r"error: .*" + re.escape(LOADERS[name].files[0]) + ".*\n", ended.stderr)
    assert int(ended.stdout) < 600, "MiB"


def test_an_error_holds_no_control_characters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["data", "prepare", "own", "--interactions", "no\x1b[31m.csv", "--out", str(tmp_path / "o")]) == 2
    )
    assert capsys.readouterr().err.startswith("error: no file matches no\ufffd[31m.csv")
