"""Second pass over interactions: parts to the sessions of users and items in one numbering."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from envs.data.raw.ids import IdIndex, sorted_ids
from envs.data.raw.parts import read_part
from envs.data.raw.reading import Reading, in_order
from envs.data.sessions import Origin, Sessions, build_sessions
from envs.errors import UserError
from envs.progress import Progress

SLATE_SIZE = 10
"""K where no page says how many items were shown together."""
WHOLE_PAGES = 0.99
"""Share of the pages that a slate must hold whole."""
LARGEST_PAGE = 100
"""Of larger pages several slates are made."""
ROWS_PER_RANGE = 2 << 20
"""Rows that are sorted together; one thread needs some 100 bytes for each."""


class Interactions(NamedTuple):
    """Users and items in the order of their ids, and their sessions (users from 0, items from 1)."""

    user_ids: pa.Array
    item_ids: pa.Array
    sessions: Sessions


def part_table(
    user: pa.Array,
    item: pa.Array,
    feedback: NDArray[np.int8],
    milliseconds: NDArray[np.int64],
    origin: NDArray[np.int8] | None = None,
    page: pa.Array | NDArray[np.int64] | None = None,
) -> pa.Table:
    """The rows (R,) of a part.

    Args:
        user, item: dictionaries of texts.
        feedback: bit sets.
        milliseconds: of the Unix epoch.
        origin: values of ``Origin``; all logged by default.
        page: numbers or a dictionary of texts; equal ones of a user make one slate.
    """
    columns = {"user": user, "item": item, "feedback": feedback, "milliseconds": milliseconds}
    if origin is not None:
        columns["origin"] = origin
    if page is not None:
        columns["page"] = page
    return pa.table(columns)


def merge_parts(
    parts: Sequence[Path],
    slate_size: int | None,
    reading: Reading,
    progress: Progress,
    item_ids: pa.Array | None = None,
    in_page_order: bool = False,
    rows_per_range: int = ROWS_PER_RANGE,
) -> Interactions:
    """Number users and items over all parts and cut everybody's rows into slates.

    Ranges of users are sorted one by one, so that the rows never lie in memory together: what does are the
    sessions.

    Args:
        parts: folders with tables of ``part_table``, all with the same columns.
        slate_size: K; ``None``: what holds nearly all pages whole, or ``SLATE_SIZE`` where there are none.
        reading: the number of threads.
        progress: called after every range.
        item_ids: the items in their order, which hold all that occur; those that occur by default.
        in_page_order: a user's pages follow each other by their number, from 0, whatever their time says. Rows
            of ``Origin.HISTORY`` have the page -1 - p, where p is the page that they are known from; those
            known from the first page count.
        rows_per_range: about how many rows are sorted together.

    Raises:
        UserError: there are no rows.
    """
    progress(0, 1, "numbering users and items")
    parts = [part for part in parts if len(read_part(part))]
    if not parts:
        raise UserError("no row of the interactions fits: nothing to prepare")
    user_ids = sorted_ids([_dictionary(read_part(part), "user") for part in parts])
    if item_ids is None:
        item_ids = sorted_ids([_dictionary(read_part(part), "item") for part in parts])
    indices = {"user": IdIndex(user_ids), "item": IdIndex(item_ids)}
    first_part = read_part(parts[0])
    if "page" in first_part.column_names and pa.types.is_dictionary(first_part["page"].type):
        pages = pa.chunked_array([_dictionary(read_part(part), "page") for part in parts])
        indices["page"] = IdIndex(pages.unique())
    numbered = list(in_order(lambda part: _Numbered(part, indices), parts, reading.workers))

    rows = np.zeros(len(user_ids), np.int64)  # (U,)
    for part in numbered:
        np.add.at(rows, part.numbers["user"], part.rows)
    until = np.cumsum(rows)
    edges = np.searchsorted(until, np.arange(rows_per_range, until[-1], rows_per_range)) + 1
    edges = np.unique(np.concatenate([[0], edges, [len(rows)]]))

    def columns_of(place: int) -> dict[str, NDArray[Any]]:
        pieces = [part.of(int(edges[place]), int(edges[place + 1])) for part in numbered]
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}

    if slate_size is None:  # the first range of users tells how large pages are
        slate_size = _page_size(columns_of(0)) if "page" in first_part.column_names else SLATE_SIZE

    def cut(place: int) -> Sessions:
        first = int(edges[place])
        sessions = _cut(columns_of(place), slate_size, in_page_order)
        return sessions._replace(user=sessions.user + np.int32(first), time=sessions.time // 1000)

    pieces = []
    for piece in in_order(cut, range(len(edges) - 1), reading.workers):
        pieces.append(piece)
        progress(len(pieces), len(edges) - 1, "cutting slates")
    columns = [list(column) for column in zip(*pieces, strict=True)]
    pieces.clear()  # so that no more than one column is there twice
    return Interactions(
        user_ids, item_ids, Sessions(*(np.concatenate(columns.pop(0)) for _ in Sessions._fields))
    )


class _Numbered:
    """A part, and the numbers of its users, items and pages over all parts.

    Its rows stay on disk: they are mapped for as long as a range is taken from them.
    """

    def __init__(self, part: Path, indices: Mapping[str, IdIndex]) -> None:
        table = read_part(part)
        self._part = part
        self.numbers = {name: index.positions(_dictionary(table, name)) for name, index in indices.items()}
        self.rows = np.bincount(_codes(table, "user"), minlength=len(self.numbers["user"]))

    def of(self, first: int, last: int) -> dict[str, NDArray[Any]]:
        """The columns of the rows (r,) of the users ``first`` to ``last`` - 1, users counted from ``first``."""
        table = read_part(self._part)
        users = self.numbers["user"]
        within = (users >= first) & (users < last)
        rows = np.flatnonzero(within[_codes(table, "user")])
        found = {}
        for name in table.column_names:
            if name in self.numbers:
                found[name] = self.numbers[name][_codes(table, name)[rows]]
            else:
                found[name] = table[name].to_numpy()[rows]
        found["user"] -= first
        found["item"] += 1
        return found


def _page_size(columns: Mapping[str, NDArray[Any]]) -> int:
    """The rows of the page that ``WHOLE_PAGES`` of all pages do not exceed, ``LARGEST_PAGE`` at most."""
    pages = np.column_stack([columns["user"], columns["page"]])
    if "origin" in columns:
        pages = pages[columns["origin"] != Origin.HISTORY]
    _, sizes = np.unique(pages, axis=0, return_counts=True)
    return (
        int(min(np.quantile(sizes, WHOLE_PAGES, method="higher"), LARGEST_PAGE)) if len(sizes) else SLATE_SIZE
    )


def _cut(columns: dict[str, NDArray[Any]], slate_size: int, in_page_order: bool) -> Sessions:
    """Sessions whose time is in milliseconds, so that rows of one second keep their order."""
    if in_page_order:
        columns = _first_histories(columns)
    milliseconds, page = columns["milliseconds"], columns.get("page")
    if in_page_order and page is not None:
        # A page is no earlier than those before it: the running maximum within each user, taken over the ranks
        # of the times, which leave room for the users above them.
        order = np.lexsort((page, columns["user"]))
        times, rank = np.unique(milliseconds[order], return_inverse=True)
        running = np.maximum.accumulate(rank + columns["user"][order].astype(np.int64) * len(times))
        milliseconds = np.empty_like(milliseconds)
        milliseconds[order] = times[running % len(times)]
    return build_sessions(
        columns["user"],
        columns["item"],
        columns["feedback"],
        milliseconds,
        slate_size,
        columns.get("origin"),
        page,
    )


def _first_histories(columns: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Keep of each user's histories the one with the greatest (negative) page: that before the first page."""
    user, page, history = columns["user"], columns["page"], columns["origin"] == Origin.HISTORY
    greatest = np.full(user.max(initial=-1) + 1, np.iinfo(np.int64).min)
    np.maximum.at(greatest, user[history], page[history])
    kept = ~history | (page == greatest[user])
    return {name: values[kept] for name, values in columns.items()}


def _dictionary(table: pa.Table, name: str) -> pa.Array:
    return table[name].chunk(0).dictionary


def _codes(table: pa.Table, name: str) -> NDArray[np.int32]:
    return table[name].chunk(0).indices.to_numpy()
