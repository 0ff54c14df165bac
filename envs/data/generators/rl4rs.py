"""RL4RS: the item table ``item_info.csv`` and the sessions of ``rl4rs_dataset_b_rl.csv``."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from envs.data.generators.planted import (
    Draws,
    GeneratorSettings,
    Plan,
    Shelf,
    behaviours_of,
    distinct,
    respond,
    sessions_of,
)
from envs.data.generators.text import TextFile, chosen, decimal, runs, text, vectors
from envs.data.generators.truth import Tally, Truth, Written
from envs.data.synthetic import World, plant
from envs.progress import Progress

LOG = "rl4rs_dataset_b_rl.csv"
_HEADER = (
    "timestamp", "session_id", "sequence_id", "exposed_items", "user_feedback", "user_seqfeature",
    "user_protrait", "item_feature", "behavior_policy_id",
)  # fmt: skip
_PAGE, _LOCATIONS, _MOST_PAGES = 9, 3, 4
_LOCATION_ENDS = (39 / 283, 147 / 283, 1.0)
"""Where the items of each location end, in the order of their ids."""
_HISTORY = 50
_START = 1_600_000_000
_PAGE_S = 30
_ROWS_PER_EXPOSURE = 8
"""A row of this file is that much longer than one exposure of the others: chunks have fewer."""


class RL4RSSettings(GeneratorSettings):
    """Pages of nine items, three of each location; the file tells sessions apart but not who had them."""

    users: int = Field(5000, ge=10)
    """People behind the sessions; the file does not say who they are."""
    items: int = Field(283, ge=20)
    """Number of items."""
    sessions_per_user: float = Field(2.0, ge=1.0, le=10_000.0)
    """Mean number of sessions per person (at least one each); clicks of the earlier ones are the history."""
    pages_per_session: float = Field(1.78, ge=1.0, le=4.0)
    """Mean number of pages in a session, which has one to four."""
    portrait_size: int = Field(10, ge=1, le=1000)
    """Numbers in a portrait."""
    feature_size: int = Field(40, ge=1, le=1000)
    """Numbers in an item's vector."""


def write(folder: Path, settings: RL4RSSettings, chunk_rows: int, progress: Progress) -> Written:
    """Write the two files into ``folder``; the "users" of the truth are the sessions."""
    world = plant(settings, settings.seed)
    draws = Draws(settings.seed, 4)
    features = _features(world.style, settings.feature_size, settings.item_noise, draws, "item")
    texts = vectors(features, 4)
    ends = [round(end * settings.items) for end in _LOCATION_ENDS]
    _write_items(folder / "item_info.csv", settings, texts, ends, draws)
    sessions = sessions_of(settings, draws)
    people = _people_in_order(sessions)
    truth = Truth(
        user_ids=np.arange(1, len(people) + 1),
        taste=world.taste[people],
        item_ids=np.arange(1, settings.items + 1),
        style=world.style,
        appeal=world.appeal,
        behaviours=behaviours_of(world, [Plan("click", settings.strength, settings.like_rate)], draws),
    )
    log = _Log(world, truth, settings, texts, ends, draws)
    tally, pages, done = Tally(truth.behaviours), 0, 0
    sessions_per_chunk = max(1, chunk_rows // (_PAGE * _ROWS_PER_EXPOSURE))
    with TextFile(folder / LOG, _HEADER, separator="@") as file:
        for rank in range(int(sessions.max())):  # of a session among those of its person
            present = np.flatnonzero(sessions > rank)
            for start in range(0, len(present), sessions_per_chunk):
                user = present[start : start + sessions_per_chunk]
                pages += log.write(file, tally, user, done)
                done += len(user)
                progress(done, len(people))
    counts = {"users": settings.users, "items": settings.items, "sessions": len(people), "rows": pages}
    return Written(truth, {LOG: tally}, counts)


class _Log:
    """Draws the sessions in order of time, and remembers what people clicked."""

    def __init__(
        self,
        world: World,
        truth: Truth,
        settings: RL4RSSettings,
        texts: pa.Array,
        ends: list[int],
        draws: Draws,
    ) -> None:
        self._truth, self._texts, self._draws = truth, texts, draws
        self._more_pages = (settings.pages_per_session - 1) / (_MOST_PAGES - 1)
        starts = [0, *ends[:-1]]
        self._shelves = [
            Shelf(
                world,
                Draws(settings.seed, 5, place),
                range(first, last),
                settings.popular_share,
                settings.personal_share,
                settings.popularity_skew,
            )
            for place, (first, last) in enumerate(zip(starts, ends, strict=True))
        ]
        portrait = _features(world.taste, settings.portrait_size, settings.profile_noise, draws, "user")
        # Readers take log(x + 1) of it, which gives the taste back.
        self._portraits = vectors(np.expm1(np.maximum(0, 2 + portrait)), 2)
        # Everybody comes with a click: the reference reader cannot read an empty list.
        everybody = Shelf(world, draws, range(settings.items), 0.0, 1.0, 1.0)
        self._clicked = np.full((settings.users, _HISTORY), -1, np.int64)  # latest last
        self._clicked[:, -1] = everybody.draw(np.arange(settings.users))

    def write(self, file: TextFile, tally: Tally, user: NDArray[np.int64], done: int) -> int:
        """Write one session of each ``user`` (n,) after the ``done`` earlier ones; return the pages."""
        session = np.arange(done, done + len(user))
        pages = 1 + self._draws["pages"].binomial(_MOST_PAGES - 1, self._more_pages, len(user))
        row_session = np.repeat(np.arange(len(user)), pages)  # (P,)
        sequence = np.arange(len(row_session)) - np.repeat(np.cumsum(pages) - pages, pages)
        items = self._draw_pages(user[row_session])  # (P, 9)
        logits = self._truth.logits(np.repeat(session[row_session], _PAGE), items.reshape(-1))
        clicks = respond(logits, self._truth.behaviours, self._draws)
        tally.add(logits, clicks)
        clicks = clicks.reshape(items.shape)
        history = self._histories(user).take(pa.array(row_session))
        nine = np.full(len(items), _PAGE)
        file.write(
            [
                _START + (_MOST_PAGES * _PAGE_S) * session[row_session] + _PAGE_S * sequence,
                session[row_session] + 1,
                sequence + 1,
                runs(text(items.reshape(-1) + 1), nine, ","),
                runs(text(clicks.reshape(-1)), nine, ","),
                history,
                self._portraits.take(pa.array(user[row_session])),
                runs(self._texts.take(pa.array(items.reshape(-1))), nine, ";"),
                np.ones(len(row_session), np.int64),
            ]
        )
        for page in range(_MOST_PAGES):
            rows = np.flatnonzero(sequence == page)
            self._remember(user[row_session[rows]], np.where(clicks[rows], items[rows], -1))
        return len(row_session)

    def _draw_pages(self, user: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64 (P, 9): distinct items, three of each location in turn, for each ``user`` (P,)."""
        width = _PAGE // _LOCATIONS
        group = np.repeat(np.arange(len(user)), width)
        drawn = [
            distinct(group, shelf.draw(np.repeat(user, width)), shelf.items).reshape(-1, width)
            for shelf in self._shelves
        ]
        return np.concatenate(drawn, axis=1)

    def _histories(self, user: NDArray[np.int64]) -> pa.Array:
        """Strings (n,): the ids that each ``user`` (n,) clicked, latest last."""
        clicked = self._clicked[user]
        return runs(text(clicked[clicked >= 0] + 1), (clicked >= 0).sum(axis=1), ",")

    def _remember(self, user: NDArray[np.int64], clicked: NDArray[np.int64]) -> None:
        """Append items (n, 9), -1 for none, to what each ``user`` (n,) clicked."""
        both = np.concatenate([self._clicked[user], clicked], axis=1)
        order = np.argsort(both >= 0, axis=1, kind="stable")  # moves the gaps to the front
        self._clicked[user] = np.take_along_axis(both, order, axis=1)[:, -_HISTORY:]


def _write_items(path: Path, settings: RL4RSSettings, texts: pa.Array, ends: list[int], draws: Draws) -> None:
    location = 1 + np.searchsorted(ends, np.arange(settings.items), side="right")
    price = decimal(np.exp(draws["price"].normal(2.0, 0.5, settings.items) + 0.5 * location), 1)
    special = chosen(("0", "2", "1"), draws["special"].choice(3, settings.items, p=(0.58, 0.4, 0.02)))
    header = ("item_id", "item_vec", "price", "location", "special_item")
    ids = np.arange(1, settings.items + 1)
    with TextFile(path, header, separator=" ") as file:
        file.write([ids, texts, price, location, special])


def _features(
    vectors: NDArray[np.float32], width: int, noise: float, draws: Draws, purpose: str
) -> NDArray[np.float64]:
    """float64 (n, width): unit vectors (n, D) seen with noise, in random directions of about unit variance."""
    dimensions = vectors.shape[1]
    directions = draws[f"{purpose} directions"].standard_normal((dimensions, width))
    shift = draws[f"{purpose} noise"].standard_normal((len(vectors), width))
    return np.einsum("nd,dw->nw", vectors.astype(np.float64), directions) + noise * shift


def _people_in_order(sessions: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64 (S,): whose the sessions are: everybody's first one, then the second ones, and so on."""
    ranks = range(int(sessions.max()))
    return np.concatenate([np.flatnonzero(sessions > rank) for rank in ranks])
