"""MovieLens 100K and 1M as GroupLens distributes them.

Both are read from the user's own download: their licence forbids redistribution.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from envs.data.delimited import read_delimited
from envs.data.features import one_hot, standardise
from envs.data.logs import Logs
from envs.data.raw.bad_rows import BadRows
from envs.data.raw.reading import Records, refuse_records
from envs.data.sessions import build_sessions
from envs.errors import UserError

DOWNLOAD = "https://grouplens.org/datasets/movielens/"
# fmt: off
GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama",
    "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)
# fmt: on
_FILES = {"ml-100k": ("u.data", "u.item", "u.user"), "ml-1m": ("ratings.dat", "movies.dat", "users.dat")}
RATINGS: dict[str, type] = {"user": int, "item": int, "rating": int, "timestamp": int}
_LATEST_S = 10**11
"""The year 5138: a later time is in another unit."""
_USERS_100K: dict[str, type] = {"user": int, "age": int, "gender": str, "occupation": str, "zip": str}
_ITEMS_100K: dict[str, type] = {
    **{"item": int, "title": str, "released": str, "video": str, "url": str},
    **dict.fromkeys(GENRES_100K, int),
}
_USERS_1M: dict[str, type] = {"user": int, "gender": str, "age": int, "occupation": int, "zip": str}
_ITEMS_1M: dict[str, type] = {"item": int, "title": str, "genres": str}
# The last bracketed year of a title: "Seven (1995)", "Jar, The (1995/I)", "Fall (1997) (V)".
_YEAR = r".*\((?P<year>[0-9]{4})(?:/[IVX]+)?\)"


def load_100k(folder: Path, positive_above: float, slate_size: int, bad_rows: BadRows | None = None) -> Logs:
    """Read ``u.data``, ``u.item`` and ``u.user``; all 1,682 listed items are kept.

    Args:
        folder: the unpacked ``ml-100k.zip``.
        positive_above: ratings above this are positive.
        slate_size: K, exposures per slate.
        bad_rows: takes the lines that do not fit; none is borne by default.

    Raises:
        UserError: a missing file, or too many lines that do not fit, by number.
    """
    ratings, items_path, users_path = files(folder, "ml-100k")
    bad_rows = bad_rows or BadRows()
    users = _read_users(users_path, _USERS_100K, "|", bad_rows)
    items = read_delimited(items_path, _ITEMS_100K, "|", bad_rows)
    flags = _flags_100k(items)
    items = refuse_records(
        items, ((flags != 0) & (flags != 1)).any(axis=1), lambda _: "genre flags are 0 or 1", bad_rows
    )
    items = _once(items, "item", bad_rows)
    return _logs(
        users=users,
        items=items,
        genres=_flags_100k(items),
        genre_names=GENRES_100K,
        ratings=read_ratings(ratings, "\t", bad_rows),
        positive_above=positive_above,
        slate_size=slate_size,
        rated_only=False,
        bad_rows=bad_rows,
    )


def load_1m(folder: Path, positive_above: float, slate_size: int, bad_rows: BadRows | None = None) -> Logs:
    """Read ``ratings.dat``, ``movies.dat`` and ``users.dat``; listed movies nobody rated are left out.

    Args:
        folder: the unpacked ``ml-1m.zip``.
        positive_above: ratings above this are positive.
        slate_size: K, exposures per slate.
        bad_rows: takes the lines that do not fit; none is borne by default.

    Raises:
        UserError: a missing file, or too many lines that do not fit, by number.
    """
    ratings, items_path, users_path = files(folder, "ml-1m")
    bad_rows = bad_rows or BadRows()
    users = _read_users(users_path, _USERS_1M, "::", bad_rows)
    items = _once(read_delimited(items_path, _ITEMS_1M, "::", bad_rows), "item", bad_rows)
    lists = pc.split_pattern(items.table["genres"].combine_chunks(), "|")
    named = pc.list_flatten(lists).to_numpy(zero_copy_only=False)
    genre_names, codes = np.unique(named.astype(str), return_inverse=True)
    genres = np.zeros((len(items.table), len(genre_names)), np.int64)
    genres[pc.list_parent_indices(lists).to_numpy(), codes] = 1
    return _logs(
        users=users,
        items=items,
        genres=genres,
        genre_names=genre_names.tolist(),
        ratings=read_ratings(ratings, "::", bad_rows),
        positive_above=positive_above,
        slate_size=slate_size,
        rated_only=True,
        bad_rows=bad_rows,
    )


def files(folder: Path, name: str) -> list[Path]:
    """The files of ``name`` that are read.

    Raises:
        UserError: one of them is missing.
    """
    for file in _FILES[name]:
        if not (folder / file).is_file():
            raise UserError(
                f"{folder / file} is missing: pass the folder of the unpacked {name}.zip ({DOWNLOAD})"
            )
    return [folder / file for file in _FILES[name]]


def columns(name: str) -> dict[str, tuple[dict[str, type], str]]:
    """By file of ``name``, the types of its columns in their order, and what separates them."""
    layouts: dict[str, dict[str, type]]
    if name == "ml-100k":
        return {"u.data": (RATINGS, "\t"), "u.item": (_ITEMS_100K, "|"), "u.user": (_USERS_100K, "|")}
    layouts = {"ratings.dat": RATINGS, "movies.dat": _ITEMS_1M, "users.dat": _USERS_1M}
    return {file: (layout, "::") for file, layout in layouts.items()}


def read_ratings(path: Path, separator: str, bad_rows: BadRows) -> Records:
    """The lines of ``path`` that are ratings, of whomever and whatever.

    Raises:
        UserError: too many lines that are not.
    """
    ratings = read_delimited(path, RATINGS, separator, bad_rows)
    rating = ratings.table["rating"].to_numpy()
    ratings = refuse_records(
        ratings,
        (rating < 1) | (rating > 5),
        lambda row: f"rating {rating[row]} is not within 1..5",
        bad_rows,
    )
    time = ratings.table["timestamp"].to_numpy()
    return refuse_records(
        ratings,
        (time < 0) | (time > _LATEST_S),
        lambda row: f"timestamp {time[row]} is not a time in seconds since 1970",
        bad_rows,
    )


def _read_users(path: Path, columns: dict[str, type], separator: str, bad_rows: BadRows) -> Records:
    users = read_delimited(path, columns, separator, bad_rows)
    gender = users.table["gender"].to_numpy()
    users = refuse_records(
        users,
        (gender != "M") & (gender != "F"),
        lambda row: f"gender is M or F, got {gender[row]!r}",
        bad_rows,
    )
    return _once(users, "user", bad_rows)


def _flags_100k(items: Records) -> NDArray[np.int64]:
    """(N, G), as they stand in the file."""
    return np.stack([items.table[name].to_numpy() for name in GENRES_100K], axis=1)


def _logs(
    *,
    users: Records,
    items: Records,
    genres: NDArray[np.int64],
    genre_names: Sequence[str],
    ratings: Records,
    positive_above: float,
    slate_size: int,
    rated_only: bool,
    bad_rows: BadRows,
) -> Logs:
    ratings = _listed(_listed(ratings, "user", users, bad_rows), "item", items, bad_rows)
    for records in (users, items, ratings):
        if not len(records.table):
            raise UserError(f"{records.file.path}: no row fits")
    user_ids, item_ids = users.table["user"].to_numpy(), items.table["item"].to_numpy()
    user = _positions(user_ids, ratings.table["user"].to_numpy())
    item = _positions(item_ids, ratings.table["item"].to_numpy())
    rating, time = ratings.table["rating"].to_numpy(), ratings.table["timestamp"].to_numpy()

    kept = np.ones(len(item_ids), bool)
    if rated_only:
        kept = np.bincount(item, minlength=len(item_ids)) > 0
        item = (np.cumsum(kept) - 1)[item]
    titles = items.table["title"].combine_chunks().filter(pa.array(kept))
    profiles, profile_names = _user_features(users.table)
    return Logs(
        user_ids=user_ids.astype(str).astype(object),
        user_features=profiles,
        user_feature_names=profile_names,
        item_ids=item_ids[kept].astype(str).astype(object),
        item_titles=titles.to_numpy(zero_copy_only=False),
        item_features=np.column_stack([genres[kept], _years(titles)]).astype(np.float32),
        item_feature_names=(*(f"genre={name}" for name in genre_names), "year"),
        sessions=build_sessions(user, item + 1, rating > positive_above, time, slate_size),
    )


def _user_features(users: pa.Table) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    occupation = users["occupation"].to_numpy()
    if occupation.dtype == object:
        occupation = occupation.astype(str)
    occupations, codes = np.unique(occupation, return_inverse=True)
    columns = [
        standardise(users["age"].to_numpy()),
        one_hot((users["gender"].to_numpy() == "M").astype(int), 2),
        one_hot(codes, len(occupations)),
    ]
    names = ("age", "gender=F", "gender=M", *(f"occupation={value}" for value in occupations))
    return np.column_stack(columns), names


def _years(titles: pa.Array) -> NDArray[np.float32]:
    """Standardised release years (N,); a title without a year gets the mean, 0."""
    found = pc.struct_field(pc.extract_regex(titles, _YEAR), "year")
    years = pc.cast(found, pa.float64()).to_numpy(zero_copy_only=False)
    known = ~np.isnan(years)
    standardised = np.zeros(len(years), np.float32)
    if known.any():
        standardised[known] = standardise(years[known])
    return standardised


def _once(records: Records, name: str, bad_rows: BadRows) -> Records:
    """Each id of the column ``name`` once, where it is listed first."""
    ids = records.table[name].to_numpy()
    _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    earlier = first[inverse]  # (n,) the row where each id was first listed
    return refuse_records(
        records,
        earlier != np.arange(len(ids)),
        lambda row: f"{name} {ids[row]} is listed already on line {records.rows[earlier[row]] + 1}",
        bad_rows,
    )


def _listed(ratings: Records, name: str, listed: Records, bad_rows: BadRows) -> Records:
    """The ratings whose id in the column ``name`` is ``listed``."""
    ids = ratings.table[name].to_numpy()
    return refuse_records(
        ratings,
        ~np.isin(ids, listed.table[name].to_numpy()),
        lambda row: f"{name} {ids[row]} is not listed in {listed.file.path.name}",
        bad_rows,
    )


def _positions(listed: NDArray[np.int64], referenced: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each of ``referenced`` (n,) is ``listed``, which holds it once."""
    order = np.argsort(listed)
    return order[np.searchsorted(listed, referenced, sorter=order)]
