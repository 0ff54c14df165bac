"""KuaiRand-Pure and KuaiRand-1K: three logs, the users and the videos, in the folder ``data``."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from typing_extensions import Self

from envs.data.generators.kuairand_features import write_users, write_videos
from envs.data.generators.planted import (
    Draws,
    Exposures,
    GeneratorSettings,
    Plan,
    Shelf,
    behaviours_of,
    exposures,
    respond,
    sessions_of,
)
from envs.data.generators.text import Column, TextFile
from envs.data.generators.truth import Tally, Truth, Written
from envs.data.synthetic import plant
from envs.progress import Progress
from envs.settings import Settings

_HEADER = (
    "user_id", "video_id", "date", "hourmin", "time_ms", "is_click", "is_like", "is_follow", "is_comment",
    "is_forward", "is_hate", "long_view", "play_time_ms", "duration_ms", "profile_stay_time",
    "comment_stay_time", "is_profile_enter", "is_rand", "tab",
)  # fmt: skip
_BEHAVIOURS = _HEADER[5:12]
_TABS = (0.12, 0.7, 0.05, 0.01, 0.06, 0.01, 0.02, 0.005, 0.01, 0.005, 0.002, 0.002, 0.002, 0.002, 0.002)
_BEIJING_MS = 8 * 3_600_000
_DAY_MS = 86_400_000


class Rates(Settings):
    """Mean probability, of a random user and video, of what may follow a click, and of a hate."""

    is_like: float = Field(0.02, gt=0.0, lt=1.0)
    """Likes."""
    is_follow: float = Field(0.002, gt=0.0, lt=1.0)
    """Follows of the author."""
    is_comment: float = Field(0.004, gt=0.0, lt=1.0)
    """Comments."""
    is_forward: float = Field(0.0015, gt=0.0, lt=1.0)
    """Forwards."""
    is_hate: float = Field(0.001, gt=0.0, lt=1.0)
    """Hates."""
    long_view: float = Field(0.22, gt=0.0, lt=1.0)
    """Long views; below the rate of clicks."""


class Strengths(Settings):
    """Weight of the taste in the logit of the same; that of a long view is the click's own."""

    is_like: float = Field(5.0, ge=0.0, le=50.0)
    """Likes."""
    is_follow: float = Field(4.0, ge=0.0, le=50.0)
    """Follows."""
    is_comment: float = Field(3.0, ge=0.0, le=50.0)
    """Comments."""
    is_forward: float = Field(4.0, ge=0.0, le=50.0)
    """Forwards."""
    is_hate: float = Field(-4.0, ge=-50.0, lt=0.0)
    """Hates: below 0, they go to what a user dislikes."""


class KuaiRandSettings(GeneratorSettings):
    """Sizes of KuaiRand-Pure by default; ``like_rate`` and ``strength`` are those of a click."""

    users: int = Field(27_285, ge=10)
    """Number of users."""
    items: int = Field(7_583, ge=20)
    """Number of videos."""
    random_pool: int = Field(0, ge=0)
    """Videos, those of the lowest ids, that the random log shows; 0 for all."""
    session_size: int = Field(10, ge=1, le=1000)
    """Videos per session of the standard logs."""
    sessions_per_user: float = Field(5.27, ge=1.0, le=10_000.0)
    """Mean number of sessions per user (at least one each) over the two standard logs."""
    early_share: float = Field(0.79, ge=0.0, le=1.0)
    """Share of a user's sessions in the first of the two standard logs, rounded up."""
    random_per_user: float = Field(43.5, ge=0.0, le=1_000_000.0)
    """Mean number of exposures per user in the random log."""
    like_rate: float = Field(0.35, gt=0.0, lt=1.0)
    """Mean probability of a click of a random user and a random video."""
    rates: Rates = Rates()
    """Of the other behaviours."""
    strengths: Strengths = Strengths()
    """Of the other behaviours."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.rates.long_view >= self.like_rate:
            raise ValueError(
                f"rates.long_view={self.rates.long_view:g} is not below like_rate={self.like_rate:g}: "
                f"a long view is a click"
            )
        if self.random_pool > self.items:
            raise ValueError(f"random_pool={self.random_pool} is more than the {self.items} items")
        return self


PURE = KuaiRandSettings()
ONE_K = KuaiRandSettings(
    users=1000,
    items=4_369_953,
    random_pool=7_388,
    sessions_per_user=1171.3,
    random_per_user=43.0,
    early_share=0.43,
)


def write_pure(folder: Path, settings: KuaiRandSettings, chunk_rows: int, progress: Progress) -> Written:
    """Write KuaiRand-Pure into ``folder/data``; see ``_write``."""
    return _write("pure", folder, settings, chunk_rows, progress)


def write_1k(folder: Path, settings: KuaiRandSettings, chunk_rows: int, progress: Progress) -> Written:
    """Write KuaiRand-1K into ``folder/data``; see ``_write``."""
    return _write("1k", folder, settings, chunk_rows, progress)


def _write(
    variant: str, folder: Path, settings: KuaiRandSettings, chunk_rows: int, progress: Progress
) -> Written:
    """Write the five files of a variant.

    Raises:
        UserError: too few videos for a session.
    """
    data = folder / "data"
    data.mkdir()
    world = plant(settings, settings.seed)
    draws = Draws(settings.seed, 6)
    strengths = {
        "is_click": settings.strength,
        "long_view": settings.strength,
        **settings.strengths.model_dump(),
    }
    rates = {"is_click": settings.like_rate, **settings.rates.model_dump()}
    after = {"long_view": "is_click"}
    plans = [Plan(name, strengths[name], rates[name], after.get(name)) for name in _BEHAVIOURS]
    truth = Truth(
        user_ids=np.arange(settings.users),
        taste=world.taste,
        item_ids=np.arange(settings.items),
        style=world.style,
        appeal=world.appeal,
        behaviours=behaviours_of(world, plans, draws),
    )
    # Shorter videos would make every click a long view.
    duration = np.exp(draws["duration"].normal(np.log(45_000), 0.8, settings.items))
    duration_ms = np.clip(duration, 7_500, 600_000).astype(np.int64)
    write_users(data / f"user_features_{variant}.csv", settings, world, draws)
    write_videos(data / f"video_features_basic_{variant}.csv", settings, world, duration_ms, draws, chunk_rows)

    sessions = sessions_of(settings, draws)
    early = np.ceil(sessions * settings.early_share).astype(np.int64)
    random = draws["random"].poisson(settings.random_per_user, settings.users)
    pool = range(settings.random_pool or settings.items)
    everything = range(settings.items)
    shares = (settings.popular_share, settings.personal_share)
    logs = {  # sessions of users, exposures in each, items, shares, days
        "log_standard_4_08_to_4_21": (early, settings.session_size, everything, shares, ("04-08", "04-22")),
        "log_standard_4_22_to_5_08": (
            sessions - early, settings.session_size, everything, shares, ("04-22", "05-09"),
        ),
        "log_random_4_22_to_5_08": (random, 1, pool, (0.0, 0.0), ("04-22", "05-09")),
    }  # fmt: skip
    tallies, done = {}, 0
    total = int(sessions.sum()) * settings.session_size + int(random.sum())
    for number, (log, (count, size, items, (popular, personal), days)) in enumerate(logs.items()):
        own = Draws(settings.seed, 7, number)
        shelf = Shelf(world, own, items, popular, personal, settings.popularity_skew)
        name = f"{log}_{variant}.csv"
        tallies[name] = Tally(truth.behaviours)
        with TextFile(data / name, _HEADER) as file:
            begin_ms, end_ms = (_midnight_ms(day) for day in days)
            for shown in exposures(shelf, own, count, size, (begin_ms, end_ms), chunk_rows=chunk_rows):
                logits = truth.logits(shown.user, shown.item)
                responses = respond(logits, truth.behaviours, own)
                tallies[name].add(logits, responses)
                is_random = log.startswith("log_random")
                file.write(_columns(shown, responses, duration_ms[shown.item], is_random, own))
                done += len(shown.user)
                progress(done, total, name)
    counts = {"users": settings.users, "items": settings.items, "sessions": int(sessions.sum()), "rows": total}
    return Written(truth, tallies, counts)


def _columns(
    shown: Exposures,
    responses: NDArray[np.bool_],
    duration_ms: NDArray[np.int64],
    is_random: bool,
    draws: Draws,
) -> dict[str, Column]:
    """The columns of a log: those that are not planted agree with those that are."""
    rows = len(shown.user)
    behaviours = dict(zip(_BEHAVIOURS, responses.T, strict=True))
    click, long = behaviours["is_click"], behaviours["long_view"]
    # A click is a view of more than 7 s, a long one reaches 18 s or the end.
    enough = np.minimum(duration_ms, 18_000)
    lowest = np.where(long, enough, np.where(click, 7_001, 0))
    highest = np.where(long, duration_ms + duration_ms // 4, np.where(click, enough - 1, 3_000))
    played = lowest + (draws["played"].random(rows) * (highest - lowest)).astype(np.int64)
    entered = click & (draws["entered"].random(rows) < 0.02)
    reads = behaviours["is_comment"] | (click & (draws["reads"].random(rows) < 0.03))
    beijing = shown.time_ms + _BEIJING_MS
    edges = np.cumsum(_TABS) / np.sum(_TABS)
    values: dict[str, Column] = {
        "user_id": shown.user,
        "video_id": shown.item,
        "date": _date(beijing // _DAY_MS),
        "hourmin": 100 * (beijing % _DAY_MS // 3_600_000),  # minutes are not disclosed
        "time_ms": shown.time_ms,
        **behaviours,
        "play_time_ms": played,
        "duration_ms": duration_ms,
        "profile_stay_time": np.where(entered, draws["profile"].integers(500, 60_000, rows), 0),
        "comment_stay_time": np.where(reads, draws["comments"].integers(500, 60_000, rows), 0),
        "is_profile_enter": entered,
        "is_rand": np.full(rows, is_random),
        "tab": np.searchsorted(edges, draws["tab"].random(rows), side="right"),
    }
    return {name: values[name] for name in _HEADER}


def _date(days: NDArray[np.int64]) -> NDArray[np.int64]:
    """Whole numbers YYYYMMDD of days since 1970."""
    day = days.astype("datetime64[D]")
    month = day.astype("datetime64[M]")
    months = month.astype(np.int64)
    return (1970 + months // 12) * 10_000 + (months % 12 + 1) * 100 + (day - month).astype(np.int64) + 1


def _midnight_ms(day: str) -> int:
    return int(np.datetime64(f"2022-{day}", "ms").astype(np.int64)) - _BEIJING_MS
