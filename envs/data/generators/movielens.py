"""Ratings as GroupLens distributes MovieLens 1M: ``ratings.dat``, ``users.dat`` and ``movies.dat``."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy.special import expit
from typing_extensions import Self

from envs.data.generators.planted import (
    Draws,
    GeneratorSettings,
    Plan,
    Shelf,
    behaviours_of,
    centres_of,
    exposures,
    seen_groups,
    sessions_of,
)
from envs.data.generators.text import TextFile, chosen, joined, listed
from envs.data.generators.truth import Tally, Truth, Written
from envs.data.synthetic import World, plant
from envs.progress import Progress

_PERIOD_MS = (956_703_932_000, 1_046_454_590_000)
_AGES = ("1", "18", "25", "35", "45", "50", "56")
_OCCUPATIONS = 21
# fmt: off
_GENRES = (
    "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)
_OPENINGS = ("Amélie", "The Señor & I", "Café Noir, Le", "Das Böse", "Star", '"Quiet" Night', "Night 5: Dawn")
# fmt: on


class MovieLensSettings(GeneratorSettings):
    """A catalogue of movies and users who rate each movie at most once, ``session_size`` at a sitting."""

    users: int = Field(6040, ge=10)
    """Number of users."""
    items: int = Field(3883, ge=20)
    """Movies listed."""
    unrated: int = Field(177, ge=0)
    """Of the listed movies, how many nobody rates."""
    session_size: int = Field(20, ge=1, le=1000)
    """Ratings of a sitting, so the fewest of a user."""
    sessions_per_user: float = Field(8.28, ge=1.0, le=10_000.0)
    """Mean number of sittings per user (at least one each)."""
    like_rate: float = Field(0.5, gt=0.0, lt=1.0)
    """Mean probability, of a random user and movie, of a rating above 3."""
    above_1: float = Field(0.93, gt=0.0, lt=1.0)
    """The same of a rating above 1."""
    above_2: float = Field(0.8, gt=0.0, lt=1.0)
    """The same of a rating above 2."""
    above_4: float = Field(0.18, gt=0.0, lt=1.0)
    """The same of a rating above 4."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.above_1 > self.above_2 > self.like_rate > self.above_4:
            raise ValueError("above_1 > above_2 > like_rate > above_4 is needed: higher ratings are rarer")
        if self.unrated > self.items - 2:
            raise ValueError(f"unrated={self.unrated} leaves too few of {self.items} items to rate")
        return self


def write(folder: Path, settings: MovieLensSettings, chunk_rows: int, progress: Progress) -> Written:
    """Write the three files into ``folder``.

    Raises:
        UserError: a user would rate more than half of the movies.
    """
    world = plant(settings, settings.seed)
    draws = Draws(settings.seed, 3)
    # The strength is one for all: else a rating above 4 could be likelier than one above 3.
    rates = {
        "above_3": settings.like_rate,
        "above_1": settings.above_1,
        "above_2": settings.above_2,
        "above_4": settings.above_4,
    }
    plans = [Plan(f"rating_{name}", settings.strength, rate) for name, rate in rates.items()]
    # Ids have gaps, and their order says nothing of the order in which the world was planted.
    spaced = draws["gaps"].choice(settings.items + settings.items // 50 + 1, settings.items, replace=False) + 1
    truth = Truth(
        user_ids=np.arange(1, settings.users + 1),
        taste=world.taste,
        item_ids=spaced,
        style=world.style,
        appeal=world.appeal,
        behaviours=behaviours_of(world, plans, draws),
    )
    sessions = sessions_of(settings, draws)
    rows = int(sessions.sum()) * settings.session_size
    shelf = Shelf(
        world,
        draws,
        range(settings.items - settings.unrated),
        settings.popular_share,
        settings.personal_share,
        settings.popularity_skew,
    )
    tally, done = Tally(truth.behaviours), 0
    with TextFile(folder / "ratings.dat", separator="::") as file:
        for shown in exposures(
            shelf,
            draws,
            sessions,
            settings.session_size,
            _PERIOD_MS,
            chunk_rows=chunk_rows,
            distinct_by_user=True,
        ):
            logits = truth.logits(shown.user, shown.item)
            # One number decides all four, so that a rating above 4 is above 3 too.
            level = draws["rating"].random(len(logits), np.float32)
            above = level[:, None] < expit(logits)  # (R, 4)
            tally.add(logits, above)
            ratings = 1 + above.sum(axis=1)
            file.write([shown.user + 1, truth.item_ids[shown.item], ratings, shown.time_ms // 1000])
            done += len(ratings)
            progress(done, rows)
    _write_users(folder / "users.dat", settings, world, draws)
    _write_movies(folder / "movies.dat", settings, world, truth.item_ids, draws)
    counts = {"users": settings.users, "items": settings.items, "sessions": int(sessions.sum()), "rows": rows}
    return Written(truth, {"ratings.dat": tally}, counts)


def _write_users(path: Path, settings: MovieLensSettings, world: World, draws: Draws) -> None:
    one = np.ones(settings.users, np.int64)
    noise, centres = settings.profile_noise, centres_of(world.taste, world.cluster)
    job = seen_groups(world.taste, centres, _OCCUPATIONS, noise, one, draws["job"]).argmax(axis=1)
    age = seen_groups(world.taste, centres, len(_AGES), noise, one, draws["age"]).argmax(axis=1)
    digits = draws["zip"].integers(1_000, 99_999, settings.users)
    zips = [f"{number:05d}" for number in digits.tolist()]
    gender = chosen(("F", "M"), (draws["gender"].random(settings.users) < 0.72).astype(np.int64))
    with TextFile(path, separator="::") as file:
        file.write([np.arange(1, settings.users + 1), gender, chosen(_AGES, age), job, pa.array(zips)])


def _write_movies(
    path: Path, settings: MovieLensSettings, world: World, ids: NDArray[np.int64], draws: Draws
) -> None:
    most = draws["genres"].integers(1, 4, settings.items)
    centres = centres_of(world.style, world.category)
    seen = seen_groups(world.style, centres, len(_GENRES), settings.item_noise, most, draws["genre"])
    order = np.argsort(ids)
    year = draws["year"].integers(1919, 2001, settings.items)
    opening = chosen(_OPENINGS, ids[order] % len(_OPENINGS))
    title = joined(opening, " ", ids[order], " (", year, ")")
    with TextFile(path, separator="::", encoding="latin-1") as file:
        file.write([ids[order], title, listed(_GENRES, seen[order], "|")])
