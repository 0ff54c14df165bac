"""A world of advertising: ads with bids, landing quality and conversion values; users who click, then convert.

Truth: P(click) is the planted world's P(like) (``envs.data.synthetic``), and after a click
P(conversion) = sigmoid(match · <taste_u, style_i> + quality_i + offset). A click costs the advertiser the bid,
a conversion is worth the ad's value to them; bids are log-normal with mean 1. The logs are those of a precision
ranking stage: of the candidates of an upstream retrieval it shows those with the highest bid × predicted
P(click), with exploration, beside a share of random slates. Learners see noisy features, the bid and a noisy
quality score.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import expit

from envs.data.behaviours import Behaviour, pack
from envs.data.features import standardise
from envs.data.logs import Logs
from envs.data.sessions import Origin, build_sessions
from envs.data.synthetic import (
    EXPOSURES_PER_CHUNK,
    PlantedSettings,
    Popularity,
    SyntheticSettings,
    World,
    feature_names,
    noisy_features,
    plant,
    solve_offset,
    timestamps,
)
from envs.errors import UserError

BEHAVIOURS = (Behaviour("click"), Behaviour("conversion", after="click"))


class AdvertisingSettings(PlantedSettings):
    """The size of the world, its market, and what the logs show of it."""

    users: int = Field(2000, ge=10)
    """Number of users."""
    ads: int = Field(2000, ge=20)
    """Number of ads."""
    clusters: int = Field(16, ge=1, le=1024)
    """Clusters of tastes, which are also the categories of ads."""
    strength: float = Field(4.0, ge=0.0, le=50.0)
    """Weight of the match of user and ad in the logit of a click."""
    appeal: float = Field(0.5, ge=0.0, le=10.0)
    """Deviation, in the logit, of how much everybody clicks on an ad."""
    click_rate: float = Field(0.06, gt=0.0, lt=1.0)
    """Mean click probability of a random user and a random ad."""
    match: float = Field(2.0, ge=0.0, le=50.0)
    """Weight of the match of user and ad in the logit of a conversion."""
    quality_spread: float = Field(0.8, ge=0.0, le=10.0)
    """Deviation of the landing quality, in the logit of a conversion."""
    conversion_rate: float = Field(0.1, gt=0.0, lt=1.0)
    """Mean conversion probability of a click on a random ad by a random user."""
    bid_spread: float = Field(0.8, ge=0.0, le=5.0)
    """Deviation of the logarithm of bids; their mean is 1."""
    bid_quality: float = Field(0.3, ge=-1.0, le=1.0)
    """Correlation of the logarithm of the bid with the quality; below 0 poor ads bid more."""
    margin: float = Field(1.5, gt=0.0, le=100.0)
    """Value of the conversions that a click of mean quality brings, in bids; below 1 advertisers lose money."""
    value_spread: float = Field(0.3, ge=0.0, le=5.0)
    """Deviation of the logarithm of values beside what bids say of them."""
    retrieved: int = Field(100, ge=1, le=10_000)
    """Candidates of each logged request: half of them by popularity, the other half uniform."""
    prediction_noise: float = Field(0.5, ge=0.0, le=10.0)
    """Error of the click predictions by which the logs' system ranked, in the logit."""
    exploration: float = Field(0.5, ge=0.0, le=10.0)
    """Temperature of its draws from softmax(log(bid × predicted click probability) / temperature)."""
    random_share: float = Field(0.1, ge=0.0, lt=1.0)
    """Share of the slates that are drawn uniformly, and marked so."""
    quality_noise: float = Field(0.5, ge=0.0, le=10.0)
    """Noise of the quality score, relative to the deviation of quality."""

    @property
    def planted(self) -> SyntheticSettings:
        """The world of tastes and clicks beneath."""
        shared = {name: getattr(self, name) for name in PlantedSettings.model_fields}
        return SyntheticSettings(items=self.ads, like_rate=self.click_rate, **shared)


@dataclass(frozen=True, eq=False)
class AdWorld:
    """The planted truth of U users and N ads; row r of an ad's arrays is item index r + 1.

    Attributes:
        clicks: tastes, styles and clicks.
        quality: float32 (N,), in the logit of a conversion.
        match: weight of the match in that logit.
        offset: of that logit.
        bid: float32 (N,), what a click costs.
        value: float32 (N,), what a conversion is worth.
    """

    clicks: World
    quality: NDArray[np.float32]
    match: float
    offset: float
    bid: NDArray[np.float32]
    value: NDArray[np.float32]

    def click_probability(self, user: NDArray[np.integer], item: NDArray[np.integer]) -> NDArray[np.float32]:
        """P(click) of pairs: ``user`` 0..U-1 and ``item`` 1..N, of shapes that broadcast."""
        return self.clicks.like_probability(user, item)

    def conversion_probability(
        self, user: NDArray[np.integer], item: NDArray[np.integer]
    ) -> NDArray[np.float32]:
        """P(conversion | click) of pairs; arguments as of ``click_probability``."""
        return expit(self.conversion_logit(user, item) + np.float32(self.offset))

    def conversion_logit(self, user: NDArray[np.integer], item: NDArray[np.integer]) -> NDArray[np.float32]:
        """The logit of that, without the offset."""
        world = self.clicks
        affinity = np.einsum("...d,...d->...", world.taste[user], world.style[item - 1])
        return np.float32(self.match) * affinity + self.quality[item - 1]


def plant_ads(settings: AdvertisingSettings, seed: int) -> AdWorld:
    """Draw the truth; the same settings and seed give the same world."""
    clicks = plant(settings.planted, seed)
    rng = np.random.default_rng([seed, 3])
    quality, other, luck = rng.standard_normal((3, settings.ads))
    together = settings.bid_quality
    log_bid = settings.bid_spread * (together * quality + np.sqrt(1 - together**2) * other)
    bid = np.exp(log_bid - settings.bid_spread**2 / 2)
    surplus = np.exp(settings.value_spread * luck - settings.value_spread**2 / 2)
    world = AdWorld(
        clicks,
        quality=(settings.quality_spread * quality).astype(np.float32),
        match=settings.match,
        offset=0.0,
        bid=bid.astype(np.float32),
        value=(settings.margin / settings.conversion_rate * bid * surplus).astype(np.float32),
    )
    user = rng.integers(settings.users, size=100_000)
    item = rng.integers(1, settings.ads + 1, size=100_000)
    chance = world.click_probability(user, item)
    clicked = rng.random(len(chance)) < chance / chance.max()  # pairs as often as they click
    logit = world.conversion_logit(user[clicked], item[clicked])
    return replace(world, offset=solve_offset(logit, settings.conversion_rate))


def generate(settings: AdvertisingSettings, slate_size: int, seed: int) -> Logs:
    """Draw the logs of an advertising world.

    Args:
        settings: of the world.
        slate_size: ads per request.
        seed: the same seed gives the same logs.

    Raises:
        UserError: fewer candidates than a slate needs.
    """
    if settings.retrieved < 2 * slate_size:
        raise UserError(
            f"advertising.retrieved={settings.retrieved} candidates are few for slates of {slate_size}: "
            f"expected at least {2 * slate_size}"
        )
    world = plant_ads(settings, seed)
    clicks = world.clicks
    rng = np.random.default_rng([seed, 4])
    extra = rng.poisson(settings.sessions_per_user - 1.0, settings.users)
    session_user = np.repeat(np.arange(settings.users, dtype=np.int32), 1 + extra)  # (S,)
    random = rng.random(len(session_user)) < settings.random_share
    popular = Popularity(clicks.appeal, settings.popularity_skew)
    slates = np.empty((len(session_user), slate_size), np.int32)
    for start in range(0, len(slates), at_once := max(EXPOSURES_PER_CHUNK // settings.retrieved, 1)):
        rows = slice(start, start + at_once)
        slates[rows] = _choose(world, popular, session_user[rows], random[rows], slate_size, settings, rng)
    user, item = np.repeat(session_user, slate_size), slates.reshape(-1)  # (R,)
    clicked = rng.random(len(user), np.float32) < world.click_probability(user, item)
    converted = clicked & (rng.random(len(user), np.float32) < world.conversion_probability(user, item))
    origin = np.where(random, Origin.RANDOM, Origin.LOGGED).astype(np.int8)

    dimensions, groups = settings.taste_dim, settings.clusters
    score = settings.quality_noise * rng.standard_normal(settings.ads) + standardise(world.quality)
    return Logs(
        user_ids=np.arange(settings.users).astype(str).astype(object),
        user_features=noisy_features(clicks.taste, clicks.cluster, groups, settings.profile_noise, rng),
        user_feature_names=feature_names("taste", dimensions, "cluster", groups),
        item_ids=np.arange(1, settings.ads + 1).astype(str).astype(object),
        item_titles=_titles(world),
        item_features=np.column_stack(
            [
                noisy_features(clicks.style, clicks.category, groups, settings.item_noise, rng),
                standardise(clicks.appeal),
                standardise(np.log(world.bid)),
                standardise(score),
            ]
        ),
        item_feature_names=(
            *feature_names("style", dimensions, "category", groups),
            "popularity",
            "log_bid",
            "quality_score",
        ),
        sessions=build_sessions(
            user,
            item,
            pack(np.column_stack([clicked, converted])),
            timestamps(session_user, slate_size, rng),
            slate_size,
            np.repeat(origin, slate_size),
        ),
        behaviours=BEHAVIOURS,
        item_money=np.column_stack([world.bid, world.value]),
    )


def _choose(
    world: AdWorld,
    popular: Popularity,
    user: NDArray[np.int32],
    random: NDArray[np.bool_],
    slate_size: int,
    settings: AdvertisingSettings,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """The slates (n, K) of requests by ``user`` (n,), uniform candidates where ``random`` (n,)."""
    shape = (len(user), settings.retrieved)
    candidates = rng.integers(1, len(world.bid) + 1, size=shape)
    half = settings.retrieved // 2
    candidates[:, :half] = popular.draw(len(user) * half, rng).reshape(len(user), half)
    logit = _logit(world.click_probability(user[:, None], candidates))
    predicted = expit(logit + settings.prediction_noise * rng.standard_normal(shape))
    scores = np.log(world.bid[candidates - 1] * predicted) + settings.exploration * rng.gumbel(size=shape)
    scores[random] = rng.random((int(random.sum()), settings.retrieved))
    candidates[random] = rng.integers(1, len(world.bid) + 1, size=(int(random.sum()), settings.retrieved))
    order = candidates.argsort(axis=1, kind="stable")
    ranked = np.take_along_axis(candidates, order, axis=1)
    again = np.zeros(shape, bool)  # no ad twice in a slate
    np.put_along_axis(again, order[:, 1:], ranked[:, 1:] == ranked[:, :-1], axis=1)
    best = np.where(again, -np.inf, scores).argsort(axis=1, kind="stable")[:, : -slate_size - 1 : -1]
    return np.take_along_axis(candidates, best, axis=1)


def _logit(probability: NDArray[np.float32]) -> NDArray[np.float64]:
    bounded = np.clip(probability.astype(np.float64), 1e-9, 1 - 1e-9)
    return np.log(bounded) - np.log1p(-bounded)


def _titles(world: AdWorld) -> NDArray[np.object_]:
    rows = zip(world.clicks.category.tolist(), world.bid.tolist(), strict=True)
    return np.array(
        [f"Ad {ad} (category {group}, bid {bid:.2f})" for ad, (group, bid) in enumerate(rows, 1)], object
    )
