"""KuaiRand-Pure and KuaiRand-1K: short videos, seven behaviours, and a log of videos shown at random."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from envs.data.behaviours import Behaviour, pack
from envs.data.feature_columns import Features, categories, join, lists, numbers, split_lists
from envs.data.logs import Logs
from envs.data.prepare_settings import PrepareSettings
from envs.data.raw.ids import IdIndex
from envs.data.raw.interactions import merge_parts, part_table
from envs.data.raw.job import Job, Raw
from envs.data.raw.parts import Parsed, file_stamp, write_parts
from envs.data.raw.reading import Records, read_records, refuse_unknown
from envs.data.raw.rows import Column, Kind, RawFile
from envs.data.raw.text import TextFile
from envs.data.raw.times import to_milliseconds
from envs.data.sessions import Origin
from envs.errors import UserError

DOWNLOAD = "https://kuairand.com"
BEHAVIOURS = ("is_click", "long_view", "is_like", "is_comment", "is_follow", "is_forward", "is_hate")
"""The columns of the responses; the first is the positive one."""
_LOGS = ("log_standard_4_08_to_4_21", "log_standard_4_22_to_5_08", "log_random_4_22_to_5_08")
_COLUMNS = {
    "user_id": Column(Kind.ID),
    "video_id": Column(Kind.ID),
    "time_ms": Column(Kind.WHOLE),
}
USER_NUMBERS = ("follow_user_num", "fans_user_num", "friend_user_num", "register_days")
USER_CATEGORIES = (
    *("user_active_degree", "is_lowactive_period", "is_live_streamer", "is_video_author"),
    *(f"{name}_range" for name in USER_NUMBERS),
    *(f"onehot_feat{place}" for place in range(18)),
)
VIDEO_CATEGORIES = ("video_type", "upload_type", "visible_status", "music_type")
_MOST_OF_AN_AUTHOR = 1000
"""Above so many videos, an author's number says no more."""


def kuairand_files(raw: Raw, size: str) -> list[Path]:
    """The three logs, the users and the videos, of ``size`` pure or 1k, in the folder or its ``data``.

    Raises:
        UserError: one of them is missing.
    """
    name = f"KuaiRand-{'Pure' if size == 'pure' else '1K'}"
    if raw.folder is None:
        raise UserError(f"kuairand-{size} needs the folder of its raw files ({DOWNLOAD})")
    files = [f"{stem}_{size}.csv" for stem in (*_LOGS, "user_features", "video_features_basic")]
    folder = raw.folder / "data" if (raw.folder / "data" / files[0]).is_file() else raw.folder
    for file in files:
        if not (folder / file).is_file():
            raise UserError(f"{folder / file} is missing: pass the folder of the unpacked {name} ({DOWNLOAD})")
    return [folder / file for file in files]


def kept_behaviours(settings: PrepareSettings) -> tuple[str, ...]:
    """The behaviours to read, clicks first, in the order of ``BEHAVIOURS``.

    Raises:
        UserError: one that KuaiRand does not have.
    """
    wanted = settings.kuairand_behaviours or BEHAVIOURS
    for name in wanted:
        if name not in BEHAVIOURS:
            raise UserError(
                f"kuairand_behaviours: KuaiRand has no behaviour {name!r}; it has {', '.join(BEHAVIOURS)}"
            )
    return tuple(name for name in BEHAVIOURS if name == BEHAVIOURS[0] or name in wanted)


def read_kuairand(job: Job, size: str) -> Logs:
    """Read the logs of ``size``; videos that occur in none of them are left out, and so are such users.

    Raises:
        UserError: a missing file, a behaviour that there is not, or too many rows that do not fit.
    """
    behaviours = kept_behaviours(job.settings)
    columns = {**_COLUMNS, **dict.fromkeys(behaviours, Column(Kind.FLAG))}
    paths = kuairand_files(job.raw, size)
    *logs, users_file, videos_file = [
        TextFile(path, ",", block_bytes=job.reading.block_bytes) for path in paths
    ]
    for file in logs:
        file.require(columns)
    users = read_records(users_file, _user_columns(), job.bad_rows, job.reading, key="user_id")
    videos = read_records(videos_file, _video_columns(), job.bad_rows, job.reading, key="video_id")
    user_ids, video_ids = IdIndex(_ids(users, "user_id")), IdIndex(_ids(videos, "video_id"))

    def parse(file: RawFile, block: int) -> Parsed:
        rows = file.read(block, columns, job.raw.skip_bad_rows)
        refuse_unknown(rows, "user_id", user_ids, users_file.path.name)
        refuse_unknown(rows, "video_id", video_ids, videos_file.path.name)
        milliseconds = to_milliseconds(rows, "time_ms", "ms")
        table = rows.table
        feedback = pack(np.stack([table[name].to_numpy() for name in behaviours], axis=1))
        drawn = Origin.RANDOM if file.path.name.startswith("log_random") else Origin.LOGGED
        origin = np.full(len(table), drawn, np.int8)
        part = part_table(table["user_id"], table["video_id"], feedback, milliseconds, origin)
        return Parsed(rows, {"rows": part})

    key = {"source": "kuairand", "listed": [file_stamp(path) for path in paths[3:]], "behaviours": behaviours}
    parts = job.parts = write_parts(logs, parse, key, job.work, job.bad_rows, job.reading, job.progress)
    merged = merge_parts(parts, job.slate_size, job.reading, job.progress)
    most = job.settings.max_categories
    profiles = _user_features(_rows_of(users, "user_id", merged.user_ids), most)
    features = _video_features(_rows_of(videos, "video_id", merged.item_ids), most)
    titles = merged.item_ids.to_numpy(zero_copy_only=False)  # there are no others
    return Logs(
        user_ids=merged.user_ids.to_numpy(zero_copy_only=False),
        user_features=profiles.values,
        user_feature_names=profiles.names,
        item_ids=titles,
        item_titles=titles,
        item_features=features.values,
        item_feature_names=features.names,
        sessions=merged.sessions,
        behaviours=tuple(map(Behaviour, behaviours)),
    )


def _user_columns() -> dict[str, Column]:
    return {
        "user_id": Column(Kind.ID),
        **{name: Column(Kind.NUMBER, optional=True) for name in USER_NUMBERS},
        **{name: Column(Kind.TEXT, optional=True) for name in USER_CATEGORIES},
    }


def _video_columns() -> dict[str, Column]:
    return {
        "video_id": Column(Kind.ID),
        "author_id": Column(Kind.TEXT, optional=True),
        "video_duration": Column(Kind.NUMBER, optional=True),
        **{name: Column(Kind.TEXT, optional=True) for name in (*VIDEO_CATEGORIES, "tag")},
    }


def _user_features(table: pa.Table, most: int) -> Features:
    return join(
        *(numbers(name, table[name].to_numpy(), log=True) for name in USER_NUMBERS),
        *(categories(name, table[name].combine_chunks(), most) for name in USER_CATEGORIES),
    )


def _video_features(table: pa.Table, most: int) -> Features:
    authors = table["author_id"].combine_chunks().dictionary_encode()
    author = authors.indices.to_numpy()
    videos = np.bincount(author)[author]
    return join(
        numbers("video_duration", table["video_duration"].to_numpy(), log=True),
        numbers("author_videos", np.minimum(videos, _MOST_OF_AN_AUTHOR), log=True),
        *(categories(name, table[name].combine_chunks(), most) for name in VIDEO_CATEGORIES),
        lists("tag", split_lists(table["tag"].combine_chunks(), ","), most),
    )


def _rows_of(records: Records, key: str, ids: pa.Array) -> pa.Table:
    """The rows of ``ids``, in their order."""
    return records.table.take(pa.array(IdIndex(_ids(records, key)).positions(ids)))


def _ids(records: Records, key: str) -> pa.Array:
    return records.table[key].combine_chunks().dictionary_decode()
