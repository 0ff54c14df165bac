"""Logs as a shop would export its own: ``interactions``, ``items`` and ``users``, as CSV or Parquet."""

from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator
from typing_extensions import Self

from envs.data.generators.planted import (
    Draws,
    GeneratorSettings,
    Plan,
    Shelf,
    behaviours_of,
    centres_of,
    exposures,
    respond,
    seen_groups,
    sessions_of,
)
from envs.data.generators.text import (
    Column,
    ParquetFile,
    TextFile,
    chosen,
    decimal,
    joined,
    listed,
    quoted,
)
from envs.data.generators.truth import Tally, Truth, Written
from envs.data.synthetic import World, plant
from envs.progress import Progress

_PERIOD_MS = (1_700_000_000_000, 1_730_000_000_000)
_CATEGORIES = ("books", "cameras", "garden", "kitchen", "music", "shoes", "sports", "toys")
_TAGS = (
    "blue",
    "classic",
    "gift",
    "green",
    "new",
    "outdoor",
    "red",
    "sale",
    "small",
    "soft",
    "travel",
    "vintage",
)
_WORDS = ("Lamp", "Café table", "Box, large", "Chair", 'Screen 15"', "Größe M", "Bottle")
_COUNTRIES = ("DE", "ES", "FR", "IT", "PL", "US")


class OwnSettings(GeneratorSettings):
    """A shop: clicks, purchases and a share of random exposures; ``like_rate`` is the rate of clicks."""

    users: int = Field(2000, ge=10)
    """Number of users."""
    page_size: int = Field(10, ge=1, le=1000)
    """Items of a page."""
    purchase_rate: float = Field(0.03, gt=0.0, lt=1.0)
    """Mean probability of a purchase of a random user and a random item; below the rate of clicks."""
    purchase_strength: float = Field(5.0, ge=0.0, le=50.0)
    """Weight of the taste in the logit of a purchase, which is never likelier than a click."""
    random_share: float = Field(0.05, ge=0.0, le=1.0)
    """Share of exposures drawn uniformly on purpose, with 1 in the column ``random``."""
    format: Literal["csv", "parquet"] = "csv"
    """Of the three files."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.purchase_rate >= self.like_rate:
            raise ValueError(
                f"purchase_rate={self.purchase_rate:g} is not below like_rate={self.like_rate:g}: "
                f"a purchase is a click"
            )
        return self


def write(folder: Path, settings: OwnSettings, chunk_rows: int, progress: Progress) -> Written:
    """Write the three files into ``folder``.

    Raises:
        UserError: too few items for a page.
    """
    world = plant(settings, settings.seed)
    draws = Draws(settings.seed, 8)
    user_ids = joined("u", np.arange(1, settings.users + 1))
    spaced = 100 + 7 * np.arange(settings.items) + draws["gaps"].integers(0, 7, settings.items)
    item_ids = joined("i", spaced)
    plans = [
        Plan("click", settings.strength, settings.like_rate),
        Plan("purchase", settings.purchase_strength, settings.purchase_rate, after="click"),
    ]
    truth = Truth(
        user_ids=user_ids.to_numpy(zero_copy_only=False),
        taste=world.taste,
        item_ids=item_ids.to_numpy(zero_copy_only=False),
        style=world.style,
        appeal=world.appeal,
        behaviours=behaviours_of(world, plans, draws),
    )
    _write_users(folder, settings, world, user_ids, draws)
    _write_items(folder, settings, world, item_ids, draws)
    sessions = sessions_of(settings, draws)
    rows = int(sessions.sum()) * settings.page_size
    shelf = Shelf(
        world,
        draws,
        range(settings.items),
        settings.popular_share,
        settings.personal_share,
        settings.popularity_skew,
    )
    tallies = {"all": Tally(truth.behaviours), "random": Tally(truth.behaviours)}
    done = 0
    header = ("user_id", "item_id", "timestamp", "click", "purchase", "random", "page")
    with _opened(folder / "interactions", settings.format, header) as file:
        for shown in exposures(
            shelf,
            draws,
            sessions,
            settings.page_size,
            _PERIOD_MS,
            chunk_rows=chunk_rows,
            random_share=settings.random_share,
        ):
            logits = truth.logits(shown.user, shown.item)
            responses = respond(logits, truth.behaviours, draws)
            tallies["all"].add(logits, responses)
            tallies["random"].add(logits[shown.is_random], responses[shown.is_random])
            flags = {"click": responses[:, 0], "purchase": responses[:, 1], "random": shown.is_random}
            columns: dict[str, Column] = {
                "user_id": user_ids.take(pa.array(shown.user)),
                "item_id": item_ids.take(pa.array(shown.item)),
                "timestamp": shown.time_ms // 1000,
                **{name: values.astype(np.int8) for name, values in flags.items()},
                "page": shown.session + 1,
            }
            file.write(columns)
            done += len(logits)
            progress(done, rows)
    counts = {"users": settings.users, "items": settings.items, "sessions": int(sessions.sum()), "rows": rows}
    return Written(truth, tallies, counts)


def _write_users(folder: Path, settings: OwnSettings, world: World, user_ids: pa.Array, draws: Draws) -> None:
    users = settings.users
    most = draws["interests"].integers(0, 4, users)
    noise, centres = settings.profile_noise, centres_of(world.taste, world.cluster)
    interests = seen_groups(world.taste, centres, len(_CATEGORIES), noise, most, draws["interest"])
    columns: dict[str, Column] = {
        "user_id": user_ids,
        "age": np.clip(draws["age"].normal(38, 13, users), 16, 90).astype(np.int64),
        "country": chosen(_COUNTRIES, draws["country"].integers(len(_COUNTRIES), size=users)),
        "interests": listed(_CATEGORIES, interests, "|"),
    }
    with _opened(folder / "users", settings.format, tuple(columns)) as file:
        file.write(columns)


def _write_items(folder: Path, settings: OwnSettings, world: World, item_ids: pa.Array, draws: Draws) -> None:
    items = settings.items
    one, most = np.ones(items, np.int64), draws["tags"].integers(0, 4, items)
    vectors, noise, centres = world.style, settings.item_noise, centres_of(world.style, world.category)
    category = seen_groups(vectors, centres, len(_CATEGORIES), noise, one, draws["category"]).argmax(axis=1)
    tags = seen_groups(vectors, centres, len(_TAGS), noise, most, draws["tag"])
    title = joined(chosen(_WORDS, draws["title"].integers(len(_WORDS), size=items)), " ", item_ids)
    price = np.round(np.exp(draws["price"].normal(3, 0.8, items)), 2)
    is_text = settings.format == "csv"
    columns: dict[str, Column] = {
        "item_id": item_ids,
        "title": quoted(title) if is_text else title,
        "price": decimal(price, 2) if is_text else price,
        "category": chosen(_CATEGORIES, category),
        "tags": listed(_TAGS, tags, "|"),
    }
    with _opened(folder / "items", settings.format, tuple(columns)) as file:
        file.write(columns)


def _opened(stem: Path, kind: str, header: tuple[str, ...]) -> TextFile | ParquetFile:
    path = stem.with_suffix(f".{kind}")
    return TextFile(path, header) if kind == "csv" else ParquetFile(path)
