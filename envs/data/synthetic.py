"""The embedded world: planted tastes that make personal slates far better than any constant one.

Truth: P(like) = sigmoid(strength · <taste_u, style_i> + appeal_i + offset), with unit vectors taste and
style. What a learner sees of it: noisy features, and logs that mix popular, personal and random exposures.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy.special import expit
from typing_extensions import Self

from envs.data.features import one_hot, standardise
from envs.data.logs import Logs
from envs.data.sessions import build_sessions
from envs.settings import Settings

_START = 1_700_000_000
"""When the logs begin, in seconds of the Unix epoch."""
EXPOSURES_PER_CHUNK = 1 << 16
CANDIDATES = 32
"""A personal exposure is the best of this many random items, so no (U, N) matrix is ever needed."""
_SECONDS_PER_EXPOSURE = 10


class PlantedSettings(Settings):
    """Users and items with planted tastes, and what a learner sees of them: common to all drawn worlds."""

    users: int = Field(1000, ge=10)
    """Number of users."""
    sessions_per_user: float = Field(10.0, ge=1.0, le=10_000.0)
    """Mean number of slates per user (at least one each); more makes longer histories."""
    taste_dim: int = Field(8, ge=2, le=256)
    """Dimensions of taste; more makes tastes more distinct and harder to learn."""
    clusters: int = Field(8, ge=1, le=1024)
    """Clusters of tastes, which are also the categories of items; fewer makes users more alike."""
    spread: float = Field(0.7, ge=0.0, le=10.0)
    """Size of a user's or item's own deviation relative to its cluster; 0 makes a cluster uniform."""
    strength: float = Field(6.0, ge=0.0, le=50.0)
    """Weight of the taste in the logit; raising it widens the gap between personal and constant slates."""
    appeal: float = Field(0.4, ge=0.0, le=10.0)
    """Deviation, in the logit, of how much everybody likes an item; raising it favours constant slates."""
    popularity_skew: float = Field(1.0, ge=0.0, le=3.0)
    """Exponent of the Zipf law of popular exposures; 0 is uniform."""
    profile_noise: float = Field(1.0, ge=0.0, le=10.0)
    """Noise of the profile, relative to taste; raising it makes the history more telling than the profile."""
    item_noise: float = Field(0.3, ge=0.0, le=10.0)
    """Noise of the item features, relative to style."""


class SyntheticSettings(PlantedSettings):
    """The size of the world, how personal its tastes are, and what the logs show of it."""

    items: int = Field(500, ge=20)
    """Number of items."""
    like_rate: float = Field(0.22, gt=0.0, lt=1.0)
    """Mean like probability of a random user and a random item; the offset is solved for it."""
    popular_share: float = Field(0.4, ge=0.0, le=1.0)
    """Share of exposures drawn by popularity."""
    personal_share: float = Field(0.3, ge=0.0, le=1.0)
    """Share of exposures drawn by the user's taste; what both shares leave is drawn uniformly."""

    @model_validator(mode="after")
    def _check_shares(self) -> Self:
        total = self.popular_share + self.personal_share
        if total > 1.0:
            raise ValueError(
                f"popular_share + personal_share is {total:g}, expected at most 1: lower one of them"
            )
        return self


@dataclass(frozen=True, eq=False)
class World:
    """The planted truth of U users and N items.

    Attributes:
        taste: float32 (U, D), unit vectors.
        style: float32 (N, D), unit vectors; row r is item index r + 1.
        appeal: float32 (N,), in the logit.
        offset: in the logit.
        strength: weight of the taste in the logit.
        cluster: int64 (U,), the cluster of each user.
        category: int64 (N,), the cluster of each item.
    """

    taste: NDArray[np.float32]
    style: NDArray[np.float32]
    appeal: NDArray[np.float32]
    offset: float
    strength: float
    cluster: NDArray[np.int64]
    category: NDArray[np.int64]

    def like_probability(self, user: NDArray[np.integer], item: NDArray[np.integer]) -> NDArray[np.float32]:
        """P(like) of pairs.

        Args:
            user: int, any shape that broadcasts with ``item``, 0..U-1.
            item: int, 1..N.
        """
        return expit(self._logit(user, item) + np.float32(self.offset))

    def _logit(self, user: NDArray[np.integer], item: NDArray[np.integer]) -> NDArray[np.float32]:
        affinity = np.einsum("...d,...d->...", self.taste[user], self.style[item - 1])
        return np.float32(self.strength) * affinity + self.appeal[item - 1]


def plant(settings: SyntheticSettings, seed: int) -> World:
    """Draw the truth; the same settings and seed give the same world."""
    rng = np.random.default_rng([seed, 1])
    centres = rng.standard_normal((settings.clusters, settings.taste_dim), np.float32)
    if settings.clusters > 1:  # no common direction, in which one slate would please everybody
        centres -= centres.mean(axis=0)
    centres = _unit(centres)
    cluster = rng.permutation(settings.users) % settings.clusters
    category = rng.permutation(settings.items) % settings.clusters
    world = World(
        taste=_around(centres[cluster], settings.spread, rng),
        style=_around(centres[category], settings.spread, rng),
        appeal=settings.appeal * rng.standard_normal(settings.items, np.float32),
        offset=0.0,
        strength=settings.strength,
        cluster=cluster,
        category=category,
    )
    user = rng.integers(settings.users, size=100_000)
    item = rng.integers(1, settings.items + 1, size=100_000)
    offset = solve_offset(world._logit(user, item), settings.like_rate)
    return replace(world, offset=offset)


def generate(settings: SyntheticSettings, slate_size: int, seed: int) -> Logs:
    """Draw the logs of a planted world.

    Args:
        settings: of the world.
        slate_size: exposures per session.
        seed: the same seed gives the same logs.
    """
    world = plant(settings, seed)
    rng = np.random.default_rng([seed, 2])
    extra = rng.poisson(settings.sessions_per_user - 1.0, settings.users)
    session_user = np.repeat(np.arange(settings.users, dtype=np.int32), 1 + extra)  # (S,)
    user = np.repeat(session_user, slate_size)  # (R,)
    item = np.empty(len(user), np.int32)
    feedback = np.empty(len(user), np.int8)
    popular = Popularity(world.appeal, settings.popularity_skew)
    for start in range(0, len(user), EXPOSURES_PER_CHUNK):
        rows = slice(start, start + EXPOSURES_PER_CHUNK)
        item[rows] = _expose(world, popular, user[rows], settings, rng)
        likely = world.like_probability(user[rows], item[rows])
        feedback[rows] = rng.random(len(likely), np.float32) < likely
    dimensions, groups = settings.taste_dim, settings.clusters
    styles = noisy_features(world.style, world.category, groups, settings.item_noise, rng)
    return Logs(
        user_ids=np.arange(settings.users).astype(str).astype(object),
        user_features=noisy_features(world.taste, world.cluster, groups, settings.profile_noise, rng),
        user_feature_names=feature_names("taste", dimensions, "cluster", groups),
        item_ids=np.arange(1, settings.items + 1).astype(str).astype(object),
        item_titles=_titles(world.category),
        item_features=np.column_stack([styles, standardise(world.appeal)]),
        item_feature_names=(*feature_names("style", dimensions, "category", groups), "popularity"),
        sessions=build_sessions(user, item, feedback, timestamps(session_user, slate_size, rng), slate_size),
    )


class Popularity:
    """Draws items by the Zipf law over their rank in appeal."""

    def __init__(self, appeal: NDArray[np.float32], skew: float) -> None:
        self._by_rank = np.argsort(-appeal, kind="stable") + 1
        weights = np.arange(1, len(appeal) + 1, dtype=np.float64) ** -skew
        self._cumulative = np.cumsum(weights / weights.sum())

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        rank = np.searchsorted(self._cumulative, rng.random(count), side="right")
        return self._by_rank[np.minimum(rank, len(self._by_rank) - 1)]


def _expose(
    world: World,
    popular: Popularity,
    user: NDArray[np.int32],
    settings: SyntheticSettings,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Draw one item (n,) for each user (n,) from the mixture of popular, personal and uniform."""
    item = rng.integers(1, len(world.appeal) + 1, size=len(user))
    kind = rng.random(len(user))
    by_popularity = kind < settings.popular_share
    item[by_popularity] = popular.draw(int(by_popularity.sum()), rng)
    personal = np.flatnonzero(~by_popularity & (kind < settings.popular_share + settings.personal_share))
    candidates = rng.integers(1, len(world.appeal) + 1, size=(len(personal), CANDIDATES))
    affinity = np.einsum("nd,ncd->nc", world.taste[user[personal]], world.style[candidates - 1])
    item[personal] = candidates[np.arange(len(personal)), affinity.argmax(axis=1)]
    return item


def timestamps(session_user: NDArray[np.int32], slate_size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """int64 (S * K,): sessions about a day apart, the exposures of one a few seconds apart."""
    length = slate_size * _SECONDS_PER_EXPOSURE
    gaps = length + rng.exponential(86_400.0, len(session_user)).astype(np.int64)
    elapsed = np.cumsum(gaps)  # over all users: only the differences within a user matter
    first = np.searchsorted(session_user, session_user)
    start = _START + elapsed - elapsed[first] + gaps[first]
    return (start[:, None] + _SECONDS_PER_EXPOSURE * np.arange(slate_size)).reshape(-1)


def noisy_features(
    vectors: NDArray[np.float32],
    group: NDArray[np.int64],
    groups: int,
    noise: float,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """float32 (n, D + groups): the vectors at unit variance with noise, and the one-hot group."""
    scaled = vectors * np.float32(np.sqrt(vectors.shape[1]))
    seen = scaled + np.float32(noise) * rng.standard_normal(vectors.shape, np.float32)
    return np.column_stack([seen, one_hot(group, groups)])


def feature_names(vector: str, dimensions: int, group: str, groups: int) -> tuple[str, ...]:
    return (*(f"{vector}_{d}" for d in range(dimensions)), *(f"{group}={g}" for g in range(groups)))


def _titles(category: NDArray[np.int64]) -> NDArray[np.object_]:
    pairs = enumerate(category.tolist(), 1)
    return np.array([f"Item {item} (category {group})" for item, group in pairs], object)


def _around(centres: NDArray[np.float32], spread: float, rng: np.random.Generator) -> NDArray[np.float32]:
    deviation = _unit(rng.standard_normal(centres.shape, np.float32))
    return _unit(centres + np.float32(spread) * deviation)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def solve_offset(logit: NDArray[np.float32], rate: float, most: NDArray[np.floating] | None = None) -> float:
    """The offset that makes the mean of sigmoid(logit + offset) equal to ``rate``, by bisection.

    ``most`` bounds each logit + offset from above; ``rate`` is below its mean probability then.
    """
    low, high = -1000.0, 1000.0
    for _ in range(60):
        middle = (low + high) / 2
        shifted = logit.astype(np.float64) + middle
        if expit(shifted if most is None else np.minimum(shifted, most)).mean() < rate:
            low = middle
        else:
            high = middle
    return (low + high) / 2
