"""The files, line by line, against what is documented of the real ones."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from envs.data.generators import load_truth, text
from envs.data.movielens import load_1m
from tests.data.generators.folders import make, table

Generated = Callable[[str], Path]
KUAIRAND = ("kuairand-pure", "kuairand-1k")


def _never_falls(values: Iterable[int]) -> bool:
    return all(earlier <= later for earlier, later in pairwise(values))


def test_ml_1m_lines(generated: Generated) -> None:
    folder = generated("ml-1m")
    users = (folder / "users.dat").read_text().splitlines()
    movies = (folder / "movies.dat").read_bytes().decode("latin-1").splitlines()
    ratings = [line.split("::") for line in (folder / "ratings.dat").read_text().splitlines()]

    assert len(users) == 60
    assert all(re.fullmatch(r"\d+::[MF]::(1|18|25|35|45|50|56)::(1?\d|20)::\d{5}", line) for line in users)
    assert len(movies) == 300
    assert all(re.fullmatch(r"\d+::[^:].*? \((19|20)\d\d\)::[A-Z][\w'|-]*", line) for line in movies)
    assert any("é" in line for line in movies)
    assert all(list(map(str.isdigit, row)) == [True] * 4 and 1 <= int(row[2]) <= 5 for row in ratings)
    assert {row[2] for row in ratings} == set("12345")


def test_ml_1m_ids_have_gaps_and_are_all_known(generated: Generated) -> None:
    folder = generated("ml-1m")
    listed = [int(line.split(b"::")[0]) for line in (folder / "movies.dat").read_bytes().splitlines()]
    ratings = [tuple(map(int, line.split("::"))) for line in (folder / "ratings.dat").read_text().splitlines()]
    by_user = defaultdict(list)
    for user, movie, _, time in ratings:
        by_user[user].append((time, movie))

    assert listed == sorted(set(listed))
    assert listed[-1] > 300, "gaps"
    assert {movie for _, movie, _, _ in ratings} < set(listed)
    assert set(by_user) == set(range(1, 61))
    for rows in by_user.values():
        assert _never_falls(time for time, _ in rows)
        assert 956_703_932 <= rows[0][0] <= rows[-1][0] <= 1_046_454_590, (
            "seconds, of the years of the real set"
        )
        assert len({movie for _, movie in rows}) == len(rows) >= 10, "a movie is rated once"


def test_the_loader_reads_ml_1m(generated: Generated) -> None:
    logs = load_1m(generated("ml-1m"), positive_above=3, slate_size=10)

    assert len(logs.user_ids) == 60
    assert 200 < len(logs.item_ids) <= 275


def test_rl4rs_item_table(generated: Generated) -> None:
    lines = (generated("rl4rs") / "item_info.csv").read_text().splitlines()
    rows = [line.split(" ") for line in lines[1:]]

    assert lines[0] == "item_id item_vec price location special_item"
    assert [row[0] for row in rows] == [str(item) for item in range(1, 61)]
    number = r"-?\d+\.\d{1,4}"
    assert all(re.fullmatch(rf"{number}(,{number}){{39}}", row[1]) for row in rows)
    assert all(re.fullmatch(r"\d+\.\d", row[2]) for row in rows)
    assert [row[3] for row in rows] == sorted(row[3] for row in rows)
    assert {row[3] for row in rows} == {"1", "2", "3"}
    assert {row[4] for row in rows} <= {"0", "1", "2"}


def test_rl4rs_log_lines(generated: Generated) -> None:
    folder = generated("rl4rs")
    items = {row["item_id"]: row for row in table(folder / "item_info.csv", " ")}
    lines = (folder / "rl4rs_dataset_b_rl.csv").read_text().splitlines()

    assert lines[0] == (
        "timestamp@session_id@sequence_id@exposed_items@user_feedback@user_seqfeature@user_protrait@item_feature"
        "@behavior_policy_id"
    )
    for line in lines[1:]:
        time, session, sequence, exposed, feedback, history, portrait, features, policy = line.split("@")
        shown = exposed.split(",")
        assert time.isdigit() and session.isdigit() and sequence in "1234" and policy == "1"
        assert len(set(shown)) == 9
        assert [items[item]["location"] for item in shown] == list("111222333")
        assert re.fullmatch(r"[01](,[01]){8}", feedback)
        assert set(history.split(",")) <= set(items)
        assert re.fullmatch(r"\d+\.\d+(,\d+\.\d+){9}", portrait)
        assert features.split(";") == [items[item]["item_vec"] for item in shown]


def test_rl4rs_sessions(generated: Generated) -> None:
    rows = table(generated("rl4rs") / "rl4rs_dataset_b_rl.csv", "@")
    sessions = defaultdict(list)
    for row in rows:
        sessions[int(row["session_id"])].append(row)

    assert _never_falls(int(row["timestamp"]) for row in rows)
    assert list(sessions) == list(range(1, len(sessions) + 1))
    assert {len(pages) for pages in sessions.values()} == {1, 2, 3, 4}
    for pages in sessions.values():
        assert [row["sequence_id"] for row in pages] == [str(n) for n in range(1, len(pages) + 1)]
        assert len({(row["user_seqfeature"], row["user_protrait"]) for row in pages}) == 1


def test_rl4rs_history_is_what_was_clicked_before(generated: Generated) -> None:
    sessions: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in table(generated("rl4rs") / "rl4rs_dataset_b_rl.csv", "@"):
        sessions[row["session_id"]].append(row)
    people: dict[str, list[str]] = {}  # a portrait tells people apart
    for pages in sessions.values():
        person, history = pages[0]["user_protrait"], pages[0]["user_seqfeature"].split(",")
        assert history == people.setdefault(person, history)[-50:]
        pairs = [
            zip(row["exposed_items"].split(","), row["user_feedback"].split(","), strict=True) for row in pages
        ]
        clicked = [item for page in pairs for item, click in page if click == "1"]
        people[person] = people[person] + clicked

    assert len(people) == 40


def test_rl4rs_sessions_of_one_person_have_one_taste(generated: Generated) -> None:
    folder = generated("rl4rs")
    truth = load_truth(folder)
    tastes = defaultdict(set)
    for row in table(folder / "rl4rs_dataset_b_rl.csv", "@"):
        tastes[row["user_protrait"]].add(tuple(truth.taste[int(row["session_id"]) - 1]))

    assert [len(found) for found in tastes.values()] == [1] * 40
    assert len(set().union(*tastes.values())) == 40


def test_kuairand_files_and_headers(generated: Generated) -> None:
    for name in KUAIRAND:
        suffix = name.partition("-")[2]
        data = generated(name) / "data"
        assert sorted(path.name for path in data.iterdir()) == [
            f"log_random_4_22_to_5_08_{suffix}.csv",
            f"log_standard_4_08_to_4_21_{suffix}.csv",
            f"log_standard_4_22_to_5_08_{suffix}.csv",
            f"user_features_{suffix}.csv",
            f"video_features_basic_{suffix}.csv",
        ]
        header = (data / f"user_features_{suffix}.csv").read_text().partition("\n")[0]
        assert header == (
            "user_id,user_active_degree,is_lowactive_period,is_live_streamer,is_video_author,follow_user_num,"
            "follow_user_num_range,fans_user_num,fans_user_num_range,friend_user_num,friend_user_num_range,"
            "register_days,register_days_range," + ",".join(f"onehot_feat{n}" for n in range(18))
        )
        header = (data / f"video_features_basic_{suffix}.csv").read_text().partition("\n")[0]
        assert header == (
            "video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,server_width,"
            "server_height,music_id,music_type,tag"
        )
        for log in data.glob("log_*.csv"):
            assert log.read_text().partition("\n")[0] == (
                "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,"
                "long_view,play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,"
                "tab"
            )


def _logs(generated: Generated) -> Iterable[tuple[str, Path, list[dict[str, int]]]]:
    for name in KUAIRAND:
        for log in sorted((generated(name) / "data").glob("log_*.csv")):
            yield name, log, [{key: int(value) for key, value in row.items()} for row in table(log)]


def test_kuairand_logs_agree_with_themselves(generated: Generated) -> None:
    beijing = timezone(timedelta(hours=8))
    for _, log, rows in _logs(generated):
        days = ("0408", "0421") if "4_08" in log.name else ("0422", "0508")
        for row in rows:
            time = datetime.fromtimestamp(row["time_ms"] / 1000, beijing)
            assert row["date"] == int(time.strftime("%Y%m%d"))
            assert row["hourmin"] == 100 * time.hour
            assert int(f"2022{days[0]}") <= row["date"] <= int(f"2022{days[1]}")
            enough = min(row["duration_ms"], 18_000)
            assert row["long_view"] == (row["play_time_ms"] >= enough)
            assert row["is_click"] == (row["play_time_ms"] > 7_000)
            assert (row["profile_stay_time"] > 0) == row["is_profile_enter"] <= row["is_click"]
            assert row["is_rand"] == ("random" in log.name)
            assert 0 <= row["tab"] <= 14
        for earlier, later in pairwise(rows):
            assert (earlier["user_id"], earlier["time_ms"]) <= (later["user_id"], later["time_ms"])


def test_kuairand_ids_are_known_and_the_random_log_is_drawn_from_the_pool(generated: Generated) -> None:
    for name, log, rows in _logs(generated):
        suffix = name.partition("-")[2]
        users = {int(row["user_id"]) for row in table(log.with_name(f"user_features_{suffix}.csv"))}
        videos = {
            int(row["video_id"]): row for row in table(log.with_name(f"video_features_basic_{suffix}.csv"))
        }
        shown = {row["video_id"] for row in rows}
        assert {row["user_id"] for row in rows} <= users
        assert shown <= set(videos)
        for row in rows:
            assert videos[row["video_id"]]["video_duration"] in ("", f"{row['duration_ms']}.0")
        if "random" in log.name and name == "kuairand-1k":
            assert max(shown) < 70
        elif name == "kuairand-1k":
            assert max(shown) >= 70


def test_kuairand_likes_come_with_clicks_and_hates_without(tmp_path: Path) -> None:
    folder = make("kuairand-pure", tmp_path / "out", "random_per_user=400", "rates.is_hate=0.02")
    rows = table(folder / "data/log_random_4_22_to_5_08_pure.csv")
    likes = [row["is_click"] for row in rows if row["is_like"] == "1"]
    hates = [row["is_click"] for row in rows if row["is_hate"] == "1"]

    assert likes.count("1") > 0.9 * len(likes) > 100
    assert hates.count("1") < 0.3 * len(hates) > 50
    assert all(row["is_click"] == "1" for row in rows if row["long_view"] == "1")


def test_kuairand_features(generated: Generated) -> None:
    data = generated("kuairand-pure") / "data"
    tags = set()
    for row in table(data / "video_features_basic_pure.csv"):
        assert row["video_type"] in ("NORMAL", "AD")
        assert datetime.strptime(row["upload_dt"], "%Y-%m-%d").date() <= datetime(2022, 5, 8).date()
        assert {row["server_width"], row["server_height"]} == {"720.0", "1280.0"}
        assert re.fullmatch(r"(\d+(,\d+)*)?", row["tag"])
        tags.add(row["tag"].count(",") if row["tag"] else None)
    assert tags >= {0, 1}
    assert re.search(r',"\d+,\d+(,\d+)?"$', (data / "video_features_basic_pure.csv").read_text(), re.MULTILINE)
    for row in table(data / "user_features_pure.csv"):
        assert row["user_active_degree"] in ("high_active", "full_active", "middle_active", "UNKNOWN")
        low, high = re.fullmatch(r"\(?(\d+),?(\d*)[\]+]?", row["follow_user_num_range"]).groups()  # type: ignore[union-attr]
        assert int(row["follow_user_num"]) >= int(low)
        assert int(row["follow_user_num"]) <= int(high or row["follow_user_num"])
        assert int(row["onehot_feat3"]) <= 1470


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_own_files(kind: str, generated: Generated, tmp_path: Path) -> None:
    folder = generated("own") if kind == "csv" else make("own", tmp_path / "own", "format=parquet")
    tables = {}
    for name in ("interactions", "items", "users"):
        path = folder / f"{name}.{kind}"
        tables[name] = table(path) if kind == "csv" else pq.read_table(path).to_pylist()
    pages = defaultdict(list)
    for row in tables["interactions"]:
        pages[row["user_id"], int(row["page"])].append(row)

    assert list(tables["interactions"][0]) == [
        "user_id",
        "item_id",
        "timestamp",
        "click",
        "purchase",
        "random",
        "page",
    ]
    assert list(tables["items"][0]) == ["item_id", "title", "price", "category", "tags"]
    assert list(tables["users"][0]) == ["user_id", "age", "country", "interests"]
    assert {row["user_id"] for row in tables["interactions"]} == {row["user_id"] for row in tables["users"]}
    items = [row["item_id"] for row in tables["items"]]
    assert {row["item_id"] for row in tables["interactions"]} <= set(items)
    assert len(set(items)) == 80
    assert {(int(row["click"]), int(row["purchase"])) for row in tables["interactions"]} == {
        (0, 0),
        (1, 0),
        (1, 1),
    }
    assert 0.1 < sum(int(row["random"]) for row in tables["interactions"]) / len(tables["interactions"]) < 0.3
    assert all(len({row["item_id"] for row in rows}) == len(rows) == 6 for rows in pages.values())
    assert any("|" in row["tags"] for row in tables["items"]) and any(
        not row["tags"] for row in tables["items"]
    )
    assert any("," in row["title"] for row in tables["items"]) and any(
        '"' in row["title"] for row in tables["items"]
    )
    assert all(float(row["price"]) > 0 for row in tables["items"])
    assert all(16 <= int(row["age"]) <= 90 for row in tables["users"])


def test_own_has_no_purchase_without_a_click(tmp_path: Path) -> None:
    """Also where the taste decides purchases so much more that they would be likelier than clicks."""
    extreme = ("strength=0", "purchase_strength=50", "users=400", "like_rate=0.3", "purchase_rate=0.1")
    folder = make("own", tmp_path / "own", *extreme, "random_share=1")
    rows = table(folder / "interactions.csv")
    bought = [row for row in rows if row["purchase"] == "1"]

    assert {row["click"] for row in bought} == {"1"}
    assert 0.08 < len(bought) / len(rows) < 0.12, "the rate is kept"
    ids = [row["user_id"] for row in rows], [row["item_id"] for row in rows]
    planted = load_truth(folder).probability(*ids)
    assert (planted[:, 1] <= planted[:, 0]).all()
    assert abs(len(bought) - planted[:, 1].sum()) < 5 * (planted[:, 1].sum()) ** 0.5


def test_own_is_in_order_of_time_within_a_user(generated: Generated) -> None:
    by_user = defaultdict(list)
    for row in table(generated("own") / "interactions.csv"):
        by_user[row["user_id"]].append((int(row["timestamp"]), int(row["page"])))

    assert all(rows == sorted(rows) for rows in by_user.values())
    assert all(1_700_000_000 <= time <= 1_730_000_000 for rows in by_user.values() for time, _ in rows)
    assert len(by_user) == 60


def test_both_kinds_of_own_hold_the_same(
    generated: Generated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "_ROWS_PER_GROUP", 500)
    parquet = make("own", tmp_path / "own", "format=parquet", chunk_rows=100)
    for name in ("interactions", "items", "users"):
        read = pq.read_table(parquet / f"{name}.parquet").to_pylist()
        written = table(generated("own") / f"{name}.csv")
        assert [{key: str(value) for key, value in row.items()} for row in read] == written
    assert pq.ParquetFile(parquet / "interactions.parquet").num_row_groups > 2
