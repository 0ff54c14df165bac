"""The files of a source as tables of texts, whatever their format, and what their columns mean."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from envs.data import kuairand, movielens, own_roles
from envs.data.delimited import read_delimited
from envs.data.inspect.bad import CountedRows
from envs.data.own import own_interaction_files
from envs.data.prepare_settings import PrepareSettings
from envs.data.raw.columnar import ParquetFile
from envs.data.raw.job import Raw
from envs.data.raw.reading import Reading, in_order, open_file
from envs.data.raw.rows import Column, Kind
from envs.data.raw.text import TextFile
from envs.data.sources import SOURCES

SAMPLED_BLOCKS = 8
SAMPLED_ROWS = 200_000
_RL4RS = {
    "interactions": {
        **{"timestamp": "time", "session_id": "user", "sequence_id": "page", "exposed_items": "item"},
        **{"user_feedback": "positive", "user_seqfeature": "history", "user_protrait": "vector"},
    },
    "items": {"item_id": "item", "item_vec": "vector", "price": "number"}
    | dict.fromkeys(("location", "special_item"), "category"),
}
_KUAIRAND = {
    "interactions": {"user_id": "user", "video_id": "item", "time_ms": "time", "is_click": "positive"}
    | {name: f"behaviour:{name}" for name in kuairand.BEHAVIOURS[1:]},
    "users": {"user_id": "user"}
    | dict.fromkeys(kuairand.USER_NUMBERS, "number")
    | dict.fromkeys(kuairand.USER_CATEGORIES, "category"),
    "items": {"video_id": "item", "video_duration": "number", "author_id": "number", "tag": "list"}
    | dict.fromkeys(kuairand.VIDEO_CATEGORIES, "category"),
}
_MOVIELENS = {
    "interactions": {"user": "user", "item": "item", "rating": "rating", "timestamp": "time"},
    "users": {"user": "user", "age": "number", "gender": "category", "occupation": "category"},
    "items": {"item": "item", "title": "title", "genres": "list"}
    | dict.fromkeys(movielens.GENRES_100K, "number"),
}


class Sample(NamedTuple):
    """Some rows of a file, all columns as strings, and whether they are all there are."""

    table: pa.Table
    whole: bool


@dataclass(frozen=True)
class SourceFile:
    """A file of a source: ``place`` is interactions, items or users; ``roles`` by column."""

    place: str
    path: Path
    roles: Mapping[str, str]
    sample: Sample


def source_files(name: str, raw: Raw, settings: PrepareSettings, reading: Reading) -> list[SourceFile]:
    """Open and sample every file.

    Raises:
        UserError: a file that cannot be read at all, or own columns whose meaning is not clear.
    """
    if name == "own":
        return _own(raw, reading)
    paths = SOURCES[name].files(raw, settings)
    if name.startswith("ml-"):
        log, items, users = paths
        layouts = movielens.columns(name)
        return [
            SourceFile(place, path, _MOVIELENS[place], _movielens(path, *layouts[path.name]))
            for place, path in (("interactions", log), ("items", items), ("users", users))
        ]
    if name == "rl4rs":
        items, log = paths
        opened = [
            ("interactions", TextFile(log, "@", quoted=False, block_bytes=reading.block_bytes)),
            ("items", TextFile(items, " ", quoted=False, block_bytes=reading.block_bytes)),
        ]
        roles = _RL4RS
    else:
        places = ("interactions", "interactions", "interactions", "users", "items")
        files = [TextFile(path, ",", block_bytes=reading.block_bytes) for path in paths]
        opened, roles = list(zip(places, files, strict=True)), _KUAIRAND
    return [SourceFile(place, file.path, roles[place], _sample(file, reading)) for place, file in opened]


def _own(raw: Raw, reading: Reading) -> list[SourceFile]:
    logs = [open_file(path, reading) for path in own_interaction_files(raw.interactions)]
    given = {"items": raw.items, "users": raw.users}
    described = {place: open_file(path, reading) for place, path in given.items() if path is not None}
    resolved = own_roles.resolve_roles(raw.roles, {"interactions": logs[0], **described})
    roles = {
        place: {column: own_roles.written(role) for column, role in columns.items()}
        for place, columns in resolved.items()
    }
    return [
        SourceFile(place, file.path, roles[place], _sample(file, reading))
        for place, file in [*(("interactions", file) for file in logs), *described.items()]
    ]


def _sample(file: TextFile | ParquetFile, reading: Reading) -> Sample:
    """Rows of blocks that are spread over the file; lines that do not fit are left out."""
    blocks = np.unique(np.linspace(0, file.blocks - 1, SAMPLED_BLOCKS).astype(int)).tolist()
    if isinstance(file, TextFile):
        columns = {name: Column(Kind.TEXT, optional=True) for name in file.columns}
        tables = [
            rows.table for rows in in_order(lambda b: file.read(b, columns, 1000), blocks, reading.workers)
        ]
    else:
        tables = [file.read_texts(block) for block in blocks]
    most = SAMPLED_ROWS // len(blocks)
    kept = [table.take(_spread(len(table), most)) for table in tables]
    whole = len(blocks) == file.blocks and all(len(table) <= most for table in tables)
    return Sample(pa.concat_tables(kept).combine_chunks(), whole)


def _movielens(path: Path, columns: Mapping[str, type], separator: str) -> Sample:
    table = read_delimited(path, columns, separator, CountedRows()).table
    texts = pa.table({name: table[name].cast(pa.string()) for name in table.column_names})
    rows = _spread(len(texts), SAMPLED_ROWS)
    return Sample(texts.take(rows).combine_chunks(), len(rows) == len(texts))


def _spread(rows: int, most: int) -> pa.Array:
    """At most so many rows in one stretch from the start: neighbours stay neighbours."""
    return pa.array(np.arange(min(rows, most)))


def texts(column: pa.ChunkedArray) -> pa.Array:
    """The values of a sampled column without surrounding space."""
    values = column.combine_chunks()
    values = values.chunk(0) if isinstance(values, pa.ChunkedArray) else values
    return pc.utf8_trim_whitespace(values)
