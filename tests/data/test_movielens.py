import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from envs.data.dataset import Dataset, Split
from envs.data.logs import Logs
from envs.data.movielens import load_1m, load_100k
from envs.data.prepare import PrepareSettings, Raw, prepare
from envs.data.raw.bad_rows import BadRows
from envs.errors import UserError


def _replace_line(path: Path, number: int, text: str) -> None:
    lines = path.read_text(encoding="latin-1").split("\n")
    lines[number - 1] = text
    path.write_text("\n".join(lines), encoding="latin-1")


def _named_exposures(logs: Logs) -> list[tuple[str, str, int]]:
    shown = logs.sessions.exposures()
    users, items = logs.user_ids[shown.user], logs.item_ids[shown.item - 1]
    return sorted(zip(users.tolist(), items.tolist(), shown.feedback.tolist(), strict=True))


def test_100k_becomes_indices_and_features(ml_100k: Path) -> None:
    _replace_line(ml_100k / "u.data", 1, "7\t4\t4\t879999995")
    _replace_line(ml_100k / "u.data", 2, "7\t5\t3\t879999996")
    _replace_line(ml_100k / "u.item", 2, "2|Undated|||http://example.org" + "|0" * 18 + "|1")
    logs = load_100k(ml_100k, positive_above=3, slate_size=10)

    own = logs.sessions.user == 6
    assert logs.sessions.time[own].min() == 880_000_000 - 5
    assert logs.sessions.items[own][0, :2].tolist() == [4, 5]
    assert logs.sessions.feedback[own][0, :2].tolist() == [1, 0]
    assert logs.item_titles[3] == "Café 4 (1984)"
    assert logs.item_ids[3] == "4"
    genres, years = logs.item_features[:, :-1], logs.item_features[:, -1]
    names = [name for name, flag in zip(logs.item_feature_names, genres[3], strict=False) if flag]
    assert names == ["genre=Animation", "genre=Children's"]
    dated = np.array([1981, *range(1983, 1990)])
    assert years[1] == 0.0, "an unknown year is the mean"
    assert np.delete(years, 1) == pytest.approx((dated - dated.mean()) / dated.std())
    assert logs.user_feature_names == (
        "age",
        "gender=F",
        "gender=M",
        "occupation=artist",
        "occupation=none",
    )
    assert logs.user_features[0, 1:].tolist() == [1, 0, 0, 1]
    assert logs.user_features[:, 0].mean() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("title", "year"),
    [
        ("Jar, The (1995/I)", 1995),
        ("Fall (1997) (V)", 1997),
        ("1984 (1956) ", 1956),
        ("(1941) Redux (1979)", 1979),
    ],
)
def test_the_year_is_the_last_bracketed_one(ml_100k: Path, title: str, year: int) -> None:
    flags = "|0" * 18 + "|1"
    _replace_line(ml_100k / "u.item", 1, f"1|{title}|||{flags}")
    _replace_line(ml_100k / "u.item", 2, f"2|Same ({year})|||{flags}")
    years = load_100k(ml_100k, 3, 10).item_features[:, -1]

    assert years[0] == years[1] != 0.0


def test_the_order_of_the_lists_does_not_change_what_ratings_mean(ml_100k: Path) -> None:
    before = load_100k(ml_100k, 3, 10)
    for file in ("u.item", "u.user"):
        lines = (ml_100k / file).read_bytes().splitlines()
        (ml_100k / file).write_bytes(b"\n".join(lines[::-1]))
    after = load_100k(ml_100k, 3, 10)

    assert _named_exposures(after) == _named_exposures(before)


def test_quotes_belong_to_the_title(ml_100k: Path) -> None:
    _replace_line(ml_100k / "u.item", 1, '1|"Open (1990)|||' + "|0" * 18 + "|1")

    assert load_100k(ml_100k, 3, 10).item_titles[0] == '"Open (1990)'


def test_1m_keeps_rated_movies_only(make_ml_1m: Callable[..., Path]) -> None:
    folder = make_ml_1m()
    logs = load_1m(folder, positive_above=3, slate_size=10)
    rows = [line.split("::") for line in (folder / "ratings.dat").read_text().splitlines()]

    listed = [line.split("::") for line in (folder / "movies.dat").read_text("latin-1").splitlines()]
    rated = [movie for movie in listed if movie[0] in {row[1] for row in rows}]

    assert logs.item_ids.tolist() == [movie[0] for movie in rated]
    assert len(logs.item_ids) == len(logs.item_titles) == len(logs.item_features) < len(listed)
    given = sorted((row[0], row[1], int(int(row[2]) > 3)) for row in rows)
    assert _named_exposures(logs) == given, "ids with gaps map back"
    assert logs.item_titles.tolist() == [movie[1] for movie in rated], "Latin-1, and single colons stay"
    genres = [len(movie[2].split("|")) for movie in rated]
    assert logs.item_features[:, :-1].sum(axis=1).tolist() == genres


def test_1m_with_windows_line_ends_is_the_same(make_ml_1m: Callable[..., Path]) -> None:
    folder = make_ml_1m()
    before = prepare("ml-1m", folder, PrepareSettings(factors=4)).fingerprint
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))

    assert prepare("ml-1m", folder, PrepareSettings(factors=4)).fingerprint == before


ITEM = "3|A (1990)|||" + "|0" * 19
MALFORMED_100K = [
    (
        "u.data",
        17,
        "1\t2\t3",
        "expected 4 tab-separated numbers 'user item rating timestamp', got '1\\t2\\t3'",
    ),
    ("u.data", 1, "1\t2\t3\t4\t5", "expected 4 tab-separated numbers"),
    ("u.data", 17, "", "expected 4 tab-separated numbers 'user item rating timestamp', got ''"),
    ("u.data", 200, "1\t2\tgood\t880000000", "expected 4 tab-separated numbers"),
    ("u.data", 17, "1\t2\t3.5\t880000000", "expected 4 tab-separated numbers"),
    ("u.data", 17, "1\t\t3\t880000000", "expected 4 tab-separated numbers"),
    ("u.data", 17, "1\tNaN\t3\t880000000", "expected 4 tab-separated numbers"),
    ("u.data", 17, "1\t2\t3\t99999999999999999999", "expected 4 tab-separated numbers"),
    ("u.data", 17, "1\t2\t6\t880000000", "rating 6 is not within 1..5"),
    ("u.data", 17, "1\t2\t0\t880000000", "rating 0 is not within 1..5"),
    ("u.data", 17, "99\t2\t3\t880000000", "user 99 is not listed in u.user"),
    ("u.data", 17, "1\t0\t3\t880000000", "item 0 is not listed in u.item"),
    ("u.user", 5, "3|30|M|none|1", "user 3 is listed already on line 3"),
    (
        "u.user",
        5,
        "5|x|M|none|1",
        "expected 5 '|'-separated fields 'user age gender occupation zip' with a whole",
    ),
    ("u.user", 5, "5|30|X|none|1", "gender is M or F, got 'X'"),
    ("u.item", 3, "3|A (1990)|||", "expected 24 '|'-separated fields, got '3|A (1990)|||'"),
    ("u.item", 3, ITEM[:-1] + "2", "genre flags are 0 or 1"),
    ("u.item", 4, ITEM, "item 3 is listed already on line 3"),
]
MALFORMED_1M = [
    (
        "ratings.dat",
        8,
        "1::2::3",
        "expected 4 '::'-separated numbers 'user item rating timestamp', got '1::2::3'",
    ),
    ("ratings.dat", 8, "1,2,3,4", "expected 4 '::'-separated numbers"),
    ("ratings.dat", 8, "1::9999::3::978300760", "item 9999 is not listed in movies.dat"),
    (
        "movies.dat",
        2,
        "x::B (1990)::Drama",
        "expected 3 '::'-separated fields 'item title genres' with a whole",
    ),
    ("users.dat", 2, "2::M::25", "expected 5 '::'-separated fields"),
]


@pytest.mark.parametrize(("file", "number", "text", "message"), MALFORMED_100K)
def test_a_malformed_line_of_100k_is_named(
    ml_100k: Path, file: str, number: int, text: str, message: str
) -> None:
    _replace_line(ml_100k / file, number, text)
    with pytest.raises(UserError) as raised:
        load_100k(ml_100k, 3, 10)

    assert str(raised.value).startswith(f"{ml_100k / file}:{number}: {message}")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("file", "number", "text", "message"), MALFORMED_1M)
def test_a_malformed_line_of_1m_is_named(
    make_ml_1m: Callable[..., Path], file: str, number: int, text: str, message: str
) -> None:
    folder = make_ml_1m()
    _replace_line(folder / file, number, text)
    with pytest.raises(UserError) as raised:
        load_1m(folder, 3, 10)

    assert str(raised.value).startswith(f"{folder / file}:{number}: {message}")


def test_bad_lines_of_100k_can_be_left_out(ml_100k: Path) -> None:
    before = load_100k(ml_100k, 3, 10)
    lines = (ml_100k / "u.data").read_text().splitlines()
    left_out = [3, 9, 20, 30, *(n for n, line in enumerate(lines) if line.startswith("5\t"))]
    _replace_line(ml_100k / "u.data", 4, "1\t2\t3")
    _replace_line(ml_100k / "u.data", 10, lines[9].replace("\t", "\tx", 1))
    _replace_line(ml_100k / "u.data", 21, "1\t2\t6\t880000000")
    _replace_line(ml_100k / "u.data", 31, "1\t2\t3\t99999999999999")
    _replace_line(ml_100k / "u.user", 5, "5|30|X|none|1")
    with (ml_100k / "u.item").open("a", encoding="latin-1") as file:
        file.write("3|A (1990)|||" + "|0" * 19 + "\n9|A (1990)|||" + "|0" * 18 + "|7\n")
    bad_rows = BadRows(limit=100)
    after = load_100k(ml_100k, 3, 10, bad_rows)

    kept = [line.split("\t") for n, line in enumerate(lines) if n not in left_out]
    assert _named_exposures(after) == sorted((u, i, int(int(rating) > 3)) for u, i, rating, _ in kept)
    assert after.item_ids.tolist() == before.item_ids.tolist()
    assert after.user_ids.tolist() == [user for user in before.user_ids if user != "5"]
    assert bad_rows.summary() == {
        "u.user": {"skipped": 1, "first": "5: gender is M or F, got 'X'"},
        "u.item": {"skipped": 2, "first": "10: item 3 is listed already on line 3"},
        "u.data": {
            "skipped": len(set(left_out)),
            "first": f"{first}: user 5 is not listed in u.user"
            if (first := min(left_out[4:]) + 1) < 4
            else "4: expected 4 tab-separated numbers 'user item rating timestamp', got '1\\t2\\t3'",
        },
    }
    with pytest.raises(UserError, match=f"{bad_rows.count - 1} bad rows were skipped before it"):
        load_100k(ml_100k, 3, 10, BadRows(limit=bad_rows.count - 1))


def test_bad_lines_of_1m_can_be_left_out(make_ml_1m: Callable[..., Path]) -> None:
    folder = make_ml_1m()
    lines = (folder / "ratings.dat").read_text().splitlines()
    _replace_line(folder / "ratings.dat", 8, "1::2::x::978300760")
    with (folder / "movies.dat").open("a") as file:
        file.write("x::B (1990)::Drama\n")
    dataset = prepare("ml-1m", Raw(folder, skip_bad_rows=2), PrepareSettings(factors=4))

    assert (dataset.session_items > 0).sum() == len(lines) - 1
    assert {file: of["skipped"] for file, of in dataset.source["bad_rows"].items()} == {
        "movies.dat": 1,
        "ratings.dat": 1,
    }
    assert dataset.source["bad_rows"]["ratings.dat"]["first"].startswith("8: expected 4 '::'-separated")
    assert "'rating'" in dataset.source["bad_rows"]["ratings.dat"]["first"]
    with pytest.raises(UserError, match=r"ratings\.dat:8: .*; 1 bad rows were skipped before it"):
        prepare("ml-1m", Raw(folder, skip_bad_rows=1), PrepareSettings(factors=4))


def test_a_file_of_bad_lines_alone_is_refused(ml_100k: Path) -> None:
    (ml_100k / "u.data").write_text("1\t2\n" * 5)
    with pytest.raises(UserError, match=r"u\.data: no row fits"):
        load_100k(ml_100k, 3, 10, BadRows(limit=100))


def test_a_missing_file_says_what_to_download(ml_100k: Path) -> None:
    (ml_100k / "u.item").unlink()
    with pytest.raises(UserError, match=r"u\.item is missing: .*ml-100k\.zip.*grouplens"):
        load_100k(ml_100k, 3, 10)


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_an_empty_file_is_reported(ml_100k: Path, content: bytes) -> None:
    (ml_100k / "u.data").write_bytes(content)
    with pytest.raises(UserError, match=r"u\.data is empty"):
        load_100k(ml_100k, 3, 10)


def test_a_binary_file_is_reported(make_ml_1m: Callable[..., Path]) -> None:
    folder = make_ml_1m()
    (folder / "ratings.dat").write_bytes(bytes(range(256)))
    with pytest.raises(UserError, match=r"ratings\.dat is not a text file"):
        load_1m(folder, 3, 10)


@pytest.fixture(scope="module")
def real_100k() -> Dataset:
    folder = os.environ.get("RL_REC_ML100K")
    if not folder:
        pytest.skip(
            "set RL_REC_ML100K to the folder of the unpacked ml-100k.zip (its licence forbids a copy here)"
        )
    return prepare("ml-100k", Path(folder))


def test_real_100k_has_its_published_counts(real_100k: Dataset) -> None:
    assert (real_100k.users, real_100k.items) == (943, 1682)
    assert (real_100k.session_items > 0).sum() == 100_000
    assert len(real_100k.likes) == 55_375
    assert real_100k.item_features.shape == (1683, 19 + 1 + 24)
    assert real_100k.user_features.shape == (943, 1 + 2 + 21)
    assert real_100k.item_titles[1] == "Toy Story (1995)"


def test_real_100k_users_rate_in_order(real_100k: Dataset) -> None:
    assert [len(real_100k.users_in(split)) for split in Split] == [660, 94, 189]
    same = np.diff(real_100k.session_user) == 0
    assert (np.diff(real_100k.session_time)[same] >= 0).all()


# VmHWM and not getrusage, whose peak a child inherits from the process that started it.
_MEASURED = """
import sys
from pathlib import Path
from envs.data.prepare import prepare
dataset = prepare("ml-1m", Path(sys.argv[1]))
assert (dataset.users, dataset.items) == (6040, 3706)
assert (dataset.session_items > 0).sum() == int(sys.argv[2]) > 990_000
status = Path("/proc/self/status").read_text()
print(status.partition("VmHWM:")[2].split()[0])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc")
def test_1m_at_its_real_size_stays_within_time_and_memory(make_ml_1m: Callable[..., Path]) -> None:
    folder = make_ml_1m(users=6040)
    rows = json.loads((folder / "truth.json").read_text())["counts"]["rows"]
    command = [sys.executable, "-c", _MEASURED, str(folder), str(rows)]
    peak_kib = subprocess.run(command, check=True, timeout=30, capture_output=True, text=True).stdout

    assert int(peak_kib) * 1024 < 1e9
