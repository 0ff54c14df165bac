"""KuaiRand by hand: three users, four videos, two of which occur in the logs."""

from pathlib import Path

import numpy as np
import pytest

from envs.data.dataset import Dataset
from envs.data.kuairand import BEHAVIOURS
from envs.data.prepare import PrepareSettings, Raw, prepare
from envs.data.raw.reading import Reading
from envs.data.sessions import Origin
from envs.errors import UserError

LOG = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,"
    "play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab"
)
NUMS = ("follow_user_num", "fans_user_num", "friend_user_num", "register_days")
USER = (
    "user_id,user_active_degree,is_lowactive_period,is_live_streamer,is_video_author,"
    + ",".join(f"{name},{name}_range" for name in NUMS)
    + ","
    + ",".join(f"onehot_feat{place}" for place in range(18))
)
VIDEO = (
    "video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,server_width,"
    "server_height,music_id,music_type,tag"
)
SETTINGS = PrepareSettings(test_fraction=0.0, validation_fraction=0.0, factors=1, slate_size=2)


def shown(user: int, video: int, ms: int, responses: str, is_random: int = 0) -> str:
    return f"{user},{video},20220408,1200,{ms},{','.join(responses)},1000,9000,0,0,0,{is_random},1"


def write(folder: Path, size: str = "pure") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        # click, like, follow, comment, forward, hate, long_view
        "log_standard_4_08_to_4_21": [
            LOG,
            shown(10, 7, 1_650_000_002_500, "1000000"),
            shown(10, 5, 1_650_000_002_400, "1100001"),
            shown(9, 5, 1_650_000_001_000, "0000010"),
        ],
        "log_standard_4_22_to_5_08": [LOG, shown(9, 7, 1_660_000_000_000, "1011100")],
        "log_random_4_22_to_5_08": [LOG, shown(10, 5, 1_660_000_000_999, "0000000", 1)],
        "user_features": [
            USER,
            "9,full_active,0,0,1," + "0,0,3,(1;5],7,x,100,y" + ",1" * 18,
            "10,UNKNOWN,0,-124,0," + "1,0,3,(1;5],7,x,,y" + ",1" * 17 + ",",
            "11,middle_active,0,0,1," + "0,0,3,(1;5],7,x,100,y" + ",1" * 18,
        ],
        "video_features_basic": [
            VIDEO,
            '5,1,NORMAL,2022-04-01,ShortImport,1,9000,720,1280,3,9,"12,34"',
            "7,1,AD,2022-04-01,,1,,720,1280,3,9,34",
            "8,1,NORMAL,2022-04-01,LongImport,1,9000,720,1280,3,9,",
            "6,2,NORMAL,2022-04-01,LongImport,1,9000,720,1280,3,9,1",
        ],
    }
    for name, lines in files.items():
        (folder / f"{name}_{size}.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path)


def load(folder: Path, skip: int = 0, reading: Reading | None = None, size: str = "pure") -> Dataset:
    return prepare(f"kuairand-{size}", Raw(folder, skip_bad_rows=skip), SETTINGS, reading=reading)


def test_logs_become_slates_by_origin(folder: Path) -> None:
    dataset = load(folder)

    assert dataset.user_ids.tolist() == ["9", "10"], (
        "numbers in their order, and only users who were shown something"
    )
    assert dataset.item_ids.tolist() == ["", "5", "7"], "only videos of the logs"
    assert dataset.session_user.tolist() == [0, 1, 1]
    assert dataset.session_items.tolist() == [[1, 2], [1, 2], [1, 0]]
    assert dataset.session_time.tolist() == [1_650_000_001, 1_650_000_002, 1_660_000_000]
    assert dataset.session_origin.tolist() == [Origin.LOGGED, Origin.LOGGED, Origin.RANDOM]
    assert [behaviour.name for behaviour in dataset.behaviours] == list(BEHAVIOURS)
    # bits: click 1, long_view 2, like 4, comment 8, follow 16, forward 32, hate 64
    assert dataset.session_feedback.tolist() == [[64, 1 + 16 + 8 + 32], [1 + 4 + 2, 1], [0, 0]]


def test_features_of_users(folder: Path) -> None:
    dataset = load(folder)
    columns = dict(zip(dataset.user_feature_names, dataset.user_features.T.tolist(), strict=True))

    assert columns["follow_user_num"] == [-1, 1], "log(1 + x), standardised"
    assert columns["register_days"] == [0, 0] and columns["register_days:missing"] == [0, 1]
    assert columns["user_active_degree=full_active"] == [1, 0] and columns["user_active_degree:missing"] == [
        0,
        1,
    ]
    assert columns["is_live_streamer=-124"] == [0, 1]
    assert columns["onehot_feat17=1"] == [1, 0] and columns["onehot_feat17:missing"] == [0, 1]


def test_features_of_videos(folder: Path) -> None:
    dataset = load(folder)
    columns = dict(zip(dataset.item_feature_names, dataset.item_features[1:].T.tolist(), strict=True))

    assert columns["tag=12"] == [1, 0] and columns["tag=34"] == [1, 1]
    assert columns["video_type=AD"] == [0, 1]
    assert columns["upload_type=ShortImport"] == [1, 0] and columns["upload_type:missing"] == [0, 1]
    assert columns["video_duration"] == [0, 0] and columns["video_duration:missing"] == [0, 1]
    assert "factor_0" in columns


def test_kuairand_1k_has_the_same_format_in_its_data_folder(tmp_path: Path) -> None:
    write(tmp_path / "KuaiRand-1K" / "data", "1k")
    pure = load(write(tmp_path / "pure"))

    assert load(tmp_path / "KuaiRand-1K", size="1k").fingerprint == pure.fingerprint
    assert PrepareSettings().factors is None
    with pytest.raises(
        UserError, match=r"log_standard_4_08_to_4_21_1k\.csv is missing: pass the .* KuaiRand-1K"
    ):
        load(tmp_path / "pure", size="1k")


def test_behaviours_can_be_left_out(folder: Path) -> None:
    log = folder / "log_standard_4_22_to_5_08_pure.csv"
    log.write_text(log.read_text().replace("1,0,1,1,1,0,0", "1,0,x,1,1,0,0"))  # a follow that is no flag
    kept = SETTINGS.model_copy(update={"kuairand_behaviours": ("is_hate", "is_like")})
    dataset = prepare("kuairand-pure", Raw(folder), kept)

    assert [behaviour.name for behaviour in dataset.behaviours] == ["is_click", "is_like", "is_hate"]
    assert dataset.session_feedback.tolist() == [[4, 1], [1 + 2, 1], [0, 0]]
    clicks = SETTINGS.with_overrides(["kuairand_behaviours=is_click"])
    assert [behaviour.name for behaviour in prepare("kuairand-pure", Raw(folder), clicks).behaviours] == [
        "is_click"
    ]


def test_an_unknown_behaviour_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match=r"kuairand_behaviours: .*no behaviour 'is_share'; it has is_click, "):
        prepare("kuairand-pure", Raw(folder), SETTINGS.with_overrides(["kuairand_behaviours=is_like,is_share"]))


@pytest.mark.parametrize(("threads", "block_bytes"), [(1, 50), (4, 130)])
def test_blocks_and_threads_do_not_change_the_result(folder: Path, threads: int, block_bytes: int) -> None:
    assert load(folder, reading=Reading(threads, block_bytes)).fingerprint == load(folder).fingerprint


@pytest.mark.parametrize(
    ("file", "line", "what"),
    [
        (
            "log_random_4_22_to_5_08",
            shown(12, 5, 1, "0000000"),
            "column 'user_id': '12' is not listed in user_f",
        ),
        (
            "log_random_4_22_to_5_08",
            shown(9, 4, 1, "0000000"),
            "column 'video_id': '4' is not listed in video_f",
        ),
        ("log_random_4_22_to_5_08", shown(9, 5, 1, "0020000"), "column 'is_follow': expected 0 or 1, got '2'"),
        ("log_random_4_22_to_5_08", shown(9, 5, -1, "0000000"), "column 'time_ms': -1 is not a time in milli"),
        ("user_features", "9" + "," * 30, "column 'user_id': '9' is listed already (line 2)"),
        (
            "video_features_basic",
            "9,1,AD,,,1,long,,,,,",
            "column 'video_duration': expected a number or nothing",
        ),
    ],
)
def test_a_line_that_does_not_fit_is_named_or_skipped(folder: Path, file: str, line: str, what: str) -> None:
    path = folder / f"{file}_pure.csv"
    before = load(folder).fingerprint
    number = len(path.read_text().splitlines()) + 1
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(UserError) as raised:
        load(folder)

    assert str(raised.value).startswith(f"{path}:{number}: {what}")
    assert load(folder, skip=1).fingerprint == before


def test_features_are_finite_and_named_once(folder: Path) -> None:
    dataset = load(folder)

    assert len(set(dataset.user_feature_names)) == len(dataset.user_feature_names)
    assert np.isfinite(dataset.item_features).all()
