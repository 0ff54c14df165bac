"""Anybody's own logs: interactions as CSV or Parquet, with or without files of items and users."""

import glob
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from envs.data.behaviours import positive
from envs.data.logs import Logs
from envs.data.own_catalogue import read_catalogue
from envs.data.own_interactions import InteractionReader, Listed
from envs.data.own_roles import resolve_roles, written
from envs.data.raw.ids import IdIndex
from envs.data.raw.interactions import merge_parts
from envs.data.raw.job import Job, Raw
from envs.data.raw.parts import file_stamp, write_parts
from envs.data.raw.reading import open_file
from envs.data.sessions import Sessions
from envs.errors import UserError

FACTORS = 16
"""By default, where nothing else describes the items."""
_SUFFIXES = (".csv", ".tsv", ".txt", ".parquet", ".pq")


def own_files(raw: Raw) -> list[Path]:
    """The files of interactions, and those of items and users where given.

    Raises:
        UserError: no interactions, or a folder or pattern without files.
    """
    if not raw.interactions:
        raise UserError("own logs need --interactions FILE, a CSV or Parquet file with a row per exposure")
    return [*own_interaction_files(raw.interactions), *(path for path in (raw.items, raw.users) if path)]


def read_own(job: Job) -> Logs:
    """Read own logs. Users who never occur in the interactions are left out, listed items are not.

    Without a file of users all have the one feature ``bias``, which is 1: only their histories tell them apart.

    Raises:
        UserError: columns whose meaning is not clear, too many rows that do not fit, responses of one kind, or
            nothing that describes the items.
    """
    files = [open_file(path, job.reading) for path in own_interaction_files(job.raw.interactions)]
    given = {"items": job.raw.items, "users": job.raw.users}
    paths = {place: path for place, path in given.items() if path is not None}
    described = {place: open_file(path, job.reading) for place, path in paths.items()}
    roles = resolve_roles(job.raw.roles, {"interactions": files[0], **described})
    job.notes["roles"] = {
        place: {column: written(role) for column, role in columns.items()} for place, columns in roles.items()
    }
    catalogues = {
        place: read_catalogue(file, roles[place], place.removesuffix("s"), job)
        for place, file in described.items()
    }
    items, users = catalogues.get("items"), catalogues.get("users")
    if (items is None or items.features is None) and not (job.settings.factors or job.settings.popularity):
        raise UserError("nothing describes the items: set factors above 0, or give --items with features")

    listed = {
        place.removesuffix("s"): Listed(IdIndex(catalogue.ids), paths[place])
        for place, catalogue in catalogues.items()
    }
    reader = InteractionReader(
        files[0], roles["interactions"], listed, job.settings.positive_above, job.bad_rows.limit
    )
    for file in files:
        file.require(reader.columns)
    key = {**reader.key, "listed": [file_stamp(path) for path in paths.values()]}
    parts = job.parts = write_parts(files, reader.parse, key, job.work, job.bad_rows, job.reading, job.progress)
    merged = merge_parts(
        parts, job.settings.slate_size, job.reading, job.progress, items.ids if items else None
    )
    _require_both_kinds(merged.sessions, reader.behaviours[0].name, files[0].path)

    item_features = items.features if items else None
    user_features = users.of(merged.user_ids) if users else None
    return Logs(
        user_ids=merged.user_ids.to_numpy(zero_copy_only=False),
        user_features=user_features.values if user_features else np.ones((len(merged.user_ids), 1), np.float32),
        user_feature_names=user_features.names if user_features else ("bias",),
        item_ids=merged.item_ids.to_numpy(zero_copy_only=False),
        item_titles=(items.titles if items else merged.item_ids).to_numpy(zero_copy_only=False),
        item_features=item_features.values
        if item_features
        else np.zeros((len(merged.item_ids), 0), np.float32),
        item_feature_names=item_features.names if item_features else (),
        sessions=merged.sessions,
        behaviours=reader.behaviours,
    )


def _require_both_kinds(sessions: Sessions, name: str, first: Path) -> None:
    responded = positive(sessions.feedback)[sessions.items > 0]
    if responded.all() or not responded.any():
        found, lacking = ("every", "without") if responded.all() else ("no", "with")
        raise UserError(
            f"{first}: {found} row has a positive response ({name}), and a model of responses needs both "
            f"kinds: add the rows of what was shown {lacking} one"
        )


def own_interaction_files(patterns: Sequence[str]) -> list[Path]:
    """The files that paths, folders and patterns stand for.

    Raises:
        UserError: a folder or pattern without files.
    """
    files: list[Path] = []
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            found = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in _SUFFIXES)
            if not found:
                raise UserError(f"{path} holds no {', '.join(_SUFFIXES)} files")
        elif path.exists() or not glob.has_magic(pattern):
            found = [path]
        else:
            found = sorted(map(Path, glob.glob(pattern)))
            if not found:
                raise UserError(f"no file matches {pattern}")
        files += [path for path in found if path not in files]
    return files
