"""What all generators share: a planted world, who is shown what and when, and how users respond."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import expit

from envs.data.generators.truth import Behaviour, parents
from envs.data.synthetic import CANDIDATES, Popularity, SyntheticSettings, World, solve_offset
from envs.errors import UserError

CHUNK_ROWS = 1 << 17
_PERSONAL_AT_ONCE = 1 << 14
"""Personal exposures drawn at a time, each from many candidates: bounds the memory of those."""
_LONGEST_SPACING_MS = 10_000
"""Between two exposures of a session, where there is time for it."""


class GeneratorSettings(SyntheticSettings):
    """The planted world, and the seed of all that is drawn."""

    seed: int = Field(0, ge=0)
    """Seed of all randomness; the same one gives the same bytes."""


class Draws:
    """One generator per purpose.

    Each purpose takes its numbers row by row, so the files do not depend on how many rows are drawn at once.
    """

    def __init__(self, *path: int) -> None:
        self._path = path
        self._generators: dict[str, np.random.Generator] = {}

    def __getitem__(self, purpose: str) -> np.random.Generator:
        if purpose not in self._generators:
            seed = [*self._path, *purpose.encode()]
            self._generators[purpose] = np.random.default_rng(seed)
        return self._generators[purpose]


class Shelf:
    """Draws the items that users are shown: popular, personal or any, out of one range of items."""

    def __init__(
        self,
        world: World,
        draws: Draws,
        items: range,
        popular_share: float,
        personal_share: float,
        popularity_skew: float,
    ) -> None:
        self._world, self._draws, self.items = world, draws, items
        self._popular_share, self._personal_share = popular_share, personal_share
        self._popularity = Popularity(world.appeal[items.start : items.stop], popularity_skew)

    def draw(self, user: NDArray[np.int64], is_random: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
        """An item (n,), 0..N-1, for each ``user`` (n,); drawn uniformly where ``is_random`` (n,)."""
        first, last = self.items.start, self.items.stop
        item = self._draws["any"].integers(first, last, size=len(user))
        kind = self._draws["kind"].random(len(user), np.float32)
        if is_random is not None:
            kind[is_random] = 1.0
        popular = np.flatnonzero(kind < self._popular_share)
        item[popular] = first - 1 + self._popularity.draw(len(popular), self._draws["popular"])
        share = self._popular_share + self._personal_share
        personal = np.flatnonzero((kind >= self._popular_share) & (kind < share))
        for start in range(0, len(personal), _PERSONAL_AT_ONCE):
            rows = personal[start : start + _PERSONAL_AT_ONCE]
            shape = (len(rows), CANDIDATES)
            candidates = self._draws["personal"].integers(first, last, size=shape, dtype=np.int32)
            taste, style = self._world.taste[user[rows]], self._world.style[candidates]
            affinity = np.einsum("nd,ncd->nc", taste, style)
            item[rows] = candidates[np.arange(len(rows)), affinity.argmax(axis=1)]
        return item


@dataclass(frozen=True, eq=False)
class Exposures:
    """The exposures of some users, by user and then by time.

    Attributes:
        user: int64 (R,), 0..U-1.
        item: int64 (R,), 0..N-1.
        time_ms: int64 (R,), of the Unix epoch; never falls within a user.
        session: int64 (R,), 0.. within the user.
        is_random: bool (R,), drawn uniformly by design.
    """

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    time_ms: NDArray[np.int64]
    session: NDArray[np.int64]
    is_random: NDArray[np.bool_]


def exposures(
    shelf: Shelf,
    draws: Draws,
    sessions: NDArray[np.int64],
    size: int,
    period_ms: tuple[int, int],
    *,
    chunk_rows: int = CHUNK_ROWS,
    distinct_by_user: bool = False,
    random_share: float = 0.0,
) -> Iterator[Exposures]:
    """Draw logs in chunks of whole users.

    Args:
        shelf: of the items shown.
        draws: used here alone.
        sessions: int64 (U,), sessions of each user.
        size: exposures per session.
        period_ms: when the logs begin and end, of the Unix epoch.
        chunk_rows: exposures per chunk; a user with more makes a larger one.
        distinct_by_user: no user sees an item twice; otherwise no session shows it twice.
        random_share: of exposures drawn uniformly and marked so.

    Raises:
        UserError: too few items for that.
    """
    most = int(sessions.max(initial=0)) * (size if distinct_by_user else 1)
    needed = 2 * (most if distinct_by_user else size)
    if needed > len(shelf.items) and most:
        raise UserError(
            f"{needed // 2} distinct items for a {'user' if distinct_by_user else 'session'} need "
            f"{needed} to draw from, got {len(shelf.items)}: raise items or lower the sessions"
        )
    begin_ms, end_ms = period_ms
    assert most == 0 or (end_ms - begin_ms) // int(sessions.max()) >= 2 * size, "no room for the sessions"
    for users in _spans(sessions * size, chunk_rows):
        count = sessions[users.start : users.stop]
        session_user = np.repeat(np.arange(users.start, users.stop), count)  # (S,)
        session = np.arange(len(session_user)) - np.repeat(np.cumsum(count) - count, count)
        slot = (end_ms - begin_ms) // np.repeat(count, count)  # (S,) one after the other, so sessions are too
        spacing = np.minimum(_LONGEST_SPACING_MS, slot // (2 * size))
        within = draws["time"].random(len(slot)) * (slot - spacing * size)
        start = begin_ms + slot * session + within.astype(np.int64)
        time = start[:, None] + spacing[:, None] * np.arange(size)  # (S, size)
        user = np.repeat(session_user, size)
        if random_share:
            is_random = draws["random"].random(len(user), np.float32) < random_share
        else:
            is_random = np.zeros(len(user), bool)
        item = shelf.draw(user, is_random)
        group = user - users.start if distinct_by_user else np.repeat(np.arange(len(session_user)), size)
        yield Exposures(
            user=user,
            item=distinct(group, item, shelf.items),
            time_ms=time.reshape(-1),
            session=np.repeat(session, size),
            is_random=is_random,
        )


def distinct(group: NDArray[np.int64], item: NDArray[np.int64], items: range) -> NDArray[np.int64]:
    """Replace the items that a group repeats by others of ``items``.

    A repeated item moves by a fixed step until its group has no other like it: this draws nothing, so no other
    group notices.

    Args:
        group: int64 (n,), ascending from 0.
        item: int64 (n,), within ``items``.
        items: at least as many as the largest group has rows.
    """
    count = len(items)
    step = next(step for step in range(int(0.618 * count) + 1, count + 2) if math.gcd(step, count) == 1)
    place = item - items.start
    rows = np.arange(len(item))
    while len(rows):
        key = group[rows] * count + place[rows]
        order = np.argsort(key, kind="stable")  # of equals, the first one stays
        repeats = rows[order[1:][np.diff(key[order]) == 0]]
        place[repeats] = (place[repeats] + step) % count
        touched = np.zeros(int(group[-1]) + 1, bool)
        touched[group[repeats]] = True
        rows = rows[touched[group[rows]]]
    return place + items.start


class Plan(NamedTuple):
    """A behaviour, and its rate over random users and items; ``after`` names an earlier one that it needs."""

    name: str
    strength: float
    rate: float
    after: str | None = None


def behaviours_of(world: World, plans: Sequence[Plan], draws: Draws) -> tuple[Behaviour, ...]:
    """Solve the offsets of behaviours."""
    user = draws["rate user"].integers(len(world.taste), size=100_000)
    item = draws["rate item"].integers(len(world.style), size=100_000)
    affinity = np.einsum("nd,nd->n", world.taste[user], world.style[item])
    found, logits = [], dict[str, NDArray[np.floating]]()
    for plan in plans:
        logit = np.float32(plan.strength) * affinity + world.appeal[item]
        most = None if plan.after is None else logits[plan.after]
        offset = solve_offset(logit, plan.rate, most)
        logits[plan.name] = logit + offset if most is None else np.minimum(logit + offset, most)
        found.append(Behaviour(plan.name, plan.strength, offset, plan.after))
    return tuple(found)


def respond(logits: NDArray[np.float32], behaviours: Sequence[Behaviour], draws: Draws) -> NDArray[np.bool_]:
    """Draw responses, bool (n, A), whose probabilities are the truth.

    What comes after another happens only with it. Otherwise, what follows a liking comes with the first
    behaviour (a click) as far as both probabilities allow; a behaviour of negative strength comes on its own.
    """
    probability = expit(logits)  # (n, A)
    drawn = np.empty(probability.shape, bool)
    drawn[:, 0] = draws["first"].random(len(drawn), np.float32) < probability[:, 0]
    needed = parents(behaviours)
    for number, behaviour in enumerate(behaviours[1:], 1):
        wanted, parent = probability[:, number], needed[number]
        if parent is not None or behaviour.strength >= 0:
            base, happened = probability[:, parent or 0], drawn[:, parent or 0]
            together = np.minimum(1, wanted / np.maximum(base, np.float32(1e-30)))
            alone = np.maximum(0, wanted - base) / np.maximum(1 - base, np.float32(1e-30))
            wanted = np.where(happened, together, alone if parent is None else 0)
        drawn[:, number] = draws[behaviour.name].random(len(drawn), np.float32) < wanted
    return drawn


def centres_of(vectors: NDArray[np.float32], group: NDArray[np.int64]) -> NDArray[np.float64]:
    """float64 (C, D): the mean of the ``vectors`` (n, D) of each ``group`` (n,), 0..C-1."""
    count = np.bincount(group)
    sums = np.stack([np.bincount(group, column) for column in vectors.T], axis=1)
    return sums / np.maximum(count, 1)[:, None]


def seen_groups(
    vectors: NDArray[np.float32],
    centres: NDArray[np.float64],
    names: int,
    noise: float,
    most: NDArray[np.int64],
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    """Which labels describe each vector, seen with noise: those of the clusters it lies nearest to.

    Args:
        vectors: float32 (n, D), unit vectors.
        centres: float64 (C, D), of the clusters.
        names: G, labels; a cluster c has the label c % G.
        noise: deviation of the noise, relative to the vectors.
        most: int64 (n,), labels of each, 0..G.
        rng: of the noise.

    Returns:
        bool (n, G).
    """
    width = vectors.shape[1]
    found = np.zeros((len(vectors), names), bool)
    for start in range(0, len(vectors), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        shift = rng.standard_normal((len(vectors[rows]), width), np.float32)
        seen = vectors[rows] + np.float32(noise / math.sqrt(width)) * shift
        scores = np.full((len(seen), names), -np.inf)
        for cluster, centre in enumerate(centres):
            score = np.einsum("nd,d->n", seen, centre)
            label = cluster % names
            scores[:, label] = np.maximum(scores[:, label], score)
        rank = np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1)
        found[rows] = (rank < most[rows, None]) & np.isfinite(scores)
    return found


def sessions_of(settings: GeneratorSettings, draws: Draws) -> NDArray[np.int64]:
    """int64 (U,): the sessions of each user, at least one."""
    return 1 + draws["sessions"].poisson(settings.sessions_per_user - 1.0, settings.users)


def _spans(rows: NDArray[np.int64], most: int) -> Iterator[range]:
    """Cut users with ``rows`` (U,) each into ranges of at most ``most`` rows, or of a single user."""
    ends = np.cumsum(rows)
    start = 0
    while start < len(rows):
        before = int(ends[start] - rows[start])
        stop = max(start + 1, int(np.searchsorted(ends, before + most, side="right")))
        yield range(start, stop)
        start = stop
