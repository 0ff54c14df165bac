"""Searches: settings drawn from ranges, judged on validation users while they train, the best confirmed.

A search has two stages. Candidates train with one seed and a scheduler stops the poor ones, or perturbs them;
then the best of them and the defaults are a study like any other, with fresh seeds and users that the search
has never seen: the best of many noisy figures flatters itself.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from envs.data.dataset import Split
from envs.errors import UserError
from envs.settings import Settings, assignment
from envs.storage.location import Location
from envs.world_folder import FittedWorld
from rl_rec.agents import Agent, find_agent
from rl_rec.resources import Reservation
from rl_rec.train_settings import TrainSettings
from tuning.study_plan import StudyPlan
from tuning.sweep import Case, Experiment, Sweep, Value
from tuning.training import check_settings

DEFAULT = "default"
"""The variant of the second stage that nobody searched for."""
_DRAWS = 100
# Their figures would not be comparable, or they belong to the search itself.
_FIXED = (
    *("world", "evaluation", "resources", "rollout.runners", "rollout.mode"),
    *("steps", "seed", "device", "report_every", "checkpoint_every"),
)


class Range(Settings):
    """Numbers between two ends, both included."""

    low: float
    """The smallest."""
    high: float
    """The largest."""
    log: bool = False
    """Draw orders of magnitude alike, not values."""
    integer: bool = False
    """Whole numbers only."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low={self.low:g} is not below high={self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs low above 0, got {self.low:g}")
        if self.integer and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError("an integer range needs whole ends")
        return self

    def clip(self, value: float) -> float | int:
        """The nearest value of the range."""
        inside = min(max(value, self.low), self.high)
        return round(inside) if self.integer else inside

    def draw(self, generator: np.random.Generator) -> float | int:
        """A value."""
        if self.integer and not self.log:
            return int(generator.integers(int(self.low), int(self.high), endpoint=True))
        low, high = (math.log(end) if self.log else end for end in (self.low, self.high))
        value = float(generator.uniform(low, high))
        return self.clip(math.exp(value) if self.log else value)


Axis = Range | tuple[Value, ...]


def _read_axis(path: str, axis: object) -> object:
    if isinstance(axis, Mapping):
        try:
            return Range.from_mapping(axis, where=path)
        except UserError as error:
            raise ValueError(str(error)) from None
    if isinstance(axis, Range | list | tuple):
        return axis
    raise ValueError(f"{path} takes a range, {{low: ..., high: ...}}, or a list of values, got {axis!r}")


class Search(Experiment):
    """What is searched for, and how."""

    space: dict[str, Axis] = Field(min_length=1)
    """By setting, the range or the values that it is drawn from."""
    searcher: Literal["random", "optuna"] = "random"
    """Who proposes candidates; optuna learns from the earlier ones (Tree-structured Parzen Estimator)."""
    scheduler: Literal["asha", "pbt", "fifo"] = "asha"
    """asha stops poor candidates early; pbt has them copy good ones, settings perturbed; fifo: neither."""
    trials: int = Field(16, ge=2)
    """Candidates; with pbt the size of the population."""
    rung: int | None = Field(None, ge=1)
    """User-steps between two looks at a candidate, asha's first rung, pbt's interval; ``None``: an eighth of
    ``steps``."""
    reduction: float = Field(3.0, gt=1)
    """Of asha: one in so many goes on, and rungs grow by it."""
    finalists: int = Field(2, ge=1)
    """How many of the best are confirmed in the second stage."""
    validation_episodes: int = Field(512, ge=1)
    """Users served per look; the same for every candidate."""
    seed: int = Field(1000, ge=0)
    """Of the search and of its candidates; the second stage has seeds 0, 1, ..."""

    @property
    def interval(self) -> int:
        """``rung``, resolved."""
        return self.rung or max(self.steps // 8, 1)

    @field_validator("space", mode="before")
    @classmethod
    def _ranges(cls, space: object) -> object:
        if not isinstance(space, Mapping):
            raise ValueError("a space names settings, each with a range or a list of values")
        return {str(path): _read_axis(str(path), axis) for path, axis in space.items()}

    @model_validator(mode="after")
    def _check(self) -> Self:
        for path, axis in self.space.items():
            if isinstance(axis, tuple) and len(axis) < 2:
                raise ValueError(f"{path} takes fewer than two values")
            if isinstance(axis, tuple) and len(set(axis)) < len(axis):
                raise ValueError(f"{path} takes a value twice")
            if any(path == fixed or path.startswith(f"{fixed}.") for fixed in _FIXED):
                raise ValueError(f"{path} cannot be searched: candidates could not be compared")
        points = math.prod(_size(axis) for axis in self.space.values())
        if points < self.trials:
            raise ValueError(f"trials={self.trials}, but the space has {points:g} points: sweep them as a grid")
        if self.interval > self.steps:
            raise ValueError(
                f"rung={self.rung} lies behind the end, steps={self.steps}: lower it, or leave it out"
            )
        if self.finalists > self.trials:
            raise ValueError(f"finalists={self.finalists} of trials={self.trials}: there are not so many")
        if self.seed < self.seeds:
            raise ValueError(f"seed={self.seed} is one of the second stage's: it must be {self.seeds} or more")
        if self.scheduler == "pbt" and self.searcher != "random":
            raise ValueError("pbt perturbs a population that is drawn at random: searcher must be random")
        return self

    def candidates(self) -> list[dict[str, Value]]:
        """What the random searcher tries, none twice: the same for the same seed."""
        generator = np.random.default_rng(self.seed)
        drawn: list[dict[str, Value]] = []
        for _ in range(_DRAWS * self.trials):
            values = {path: draw(axis, generator) for path, axis in self.space.items()}
            if values not in drawn:
                drawn.append(values)
            if len(drawn) == self.trials:
                return drawn
        raise UserError(f"the space of {self.name} hardly has {self.trials} points: widen it, or lower trials")

    def plan(
        self, simulator: Location, split: Split = Split.TEST, assignments: Sequence[str] = (), **fields: Any
    ) -> "SearchPlan":
        """The search on a simulator; arguments as of ``Sweep.plan``, ``split`` of the second stage.

        Raises:
            UserError: an unknown algorithm or setting.
        """
        search = type(self).from_mapping({**self.model_dump(), **fields}, where=f"search {self.name}")
        self._refuse_varied(search.space, assignments)
        for path in (text.partition("=")[0].strip() for text in (*search.set, *assignments)):
            if path in ("steps", "seed"):
                raise UserError(f"{path} belongs to the search {self.name} itself, not to its settings")
        return SearchPlan(simulator, search, split, tuple(assignments))


@dataclass(frozen=True)
class SearchPlan:
    """A search on a simulator."""

    simulator: Location
    search: Search
    split: Split
    """Whose users the second stage is evaluated on; the search itself looks at validation users."""
    assignments: tuple[str, ...] = ()
    """More settings for all."""

    @property
    def question(self) -> str:
        """What it is to answer."""
        return self.search.question

    @property
    def agent(self) -> Agent:
        """What is trained."""
        return find_agent(self.search.algorithm)

    @property
    def base(self) -> TrainSettings[Any]:
        """Settings of every candidate, without its own values.

        Raises:
            UserError: an unknown setting or a bad value.
        """
        search = self.search
        own = {
            "steps": search.steps,
            "seed": search.seed,
            "report_every": search.interval,
            "checkpoint_every": search.interval,
            "evaluation.every": search.interval,
            "evaluation.episodes": search.validation_episodes,
        }
        fixed = [assignment(path, value) for path, value in own.items()]
        return self.agent.train_settings().with_overrides([*search.set, *self.assignments, *fixed])

    @property
    def reservations(self) -> list[Reservation]:
        """What a trial reserves."""
        return [self.base.reservation]

    def check(self, fitted: FittedWorld) -> None:
        """Find what would stop the search before anything is trained.

        Raises:
            UserError: settings that clash, or that do not fit the simulator.
        """
        self.check_alone()
        for chosen, settings in self._tried():
            try:
                check_settings(self.agent, self.simulator, fitted, settings)
            except UserError as error:
                raise UserError(f"a candidate with {chosen} cannot train: {error}") from None
        if self.search.searcher == "optuna":
            try:
                import optuna  # noqa: F401
            except ImportError:
                raise UserError("searcher=optuna needs Optuna: pip install 'rl-rec[optuna]'") from None
        self.finals([]).check(fitted)

    def check_alone(self) -> None:
        """Find what would stop the search with any simulator.

        Raises:
            UserError: settings that clash.
        """
        base = self.base
        if self.search.interval <= base.replay.learning_starts:
            raise UserError(
                f"candidates are judged after {self.search.interval:,} user-steps, before learning begins "
                f"(replay.learning_starts={base.replay.learning_starts:,}): raise rung or steps"
            )
        self._tried()
        if self.search.scheduler == "pbt":
            for path in self.search.space:
                # The replay ratio holds over a whole run: a change on the way would owe or stop updates.
                if not isinstance(_value_at(base, path), float) or path == "replay.ratio":
                    raise UserError(f"pbt cannot vary {path} in an agent that has begun to learn")
        self.finals([]).check_alone()

    def _tried(self) -> list[tuple[str, TrainSettings[Any]]]:
        """Assignments and settings of the candidates that are known, and of the ends of the space."""
        values = [self._end(0), self._end(-1)]
        if self.search.searcher == "random":
            values += self.search.candidates()
        tried = []
        for each in values:
            chosen = [assignment(path, value) for path, value in each.items()]
            try:
                tried.append((", ".join(chosen), self.base.with_overrides(chosen)))
            except UserError as error:
                raise UserError(f"a candidate with {', '.join(chosen)} cannot train: {error}") from None
        return tried

    def _end(self, place: int) -> dict[str, Value]:
        ends: dict[str, Value] = {}
        for path, axis in self.search.space.items():
            ends[path] = axis[place] if isinstance(axis, tuple) else axis.clip((axis.low, axis.high)[place])
        return ends

    def distinct(self, ranked: Mapping[str, Mapping[str, Value]]) -> list[str]:
        """Names of candidates, in their order, that differ from the defaults and from those before them."""
        seen = [self.finals([]).base]
        kept = []
        for name, values in ranked.items():
            settings = seen[0].with_overrides([assignment(*pair) for pair in values.items()])
            if settings not in seen:
                seen.append(settings)
                kept.append(name)
        return kept

    def finals(self, best: Sequence[Mapping[str, Value]]) -> StudyPlan:
        """The second stage: the defaults, and what was found, best first."""
        search = self.search
        cases = {DEFAULT: Case()}
        for rank, values in enumerate(best, 1):
            cases[f"found-{rank}"] = Case(set=tuple(assignment(*pair) for pair in values.items()))
        shared = {field: getattr(search, field) for field in Experiment.model_fields}
        return Sweep(cases=cases, **shared).plan(self.simulator, self.split, self.assignments)

    def describe(self) -> dict[str, Any]:
        """Plain data for ``run.json``."""
        return {
            "simulator": str(self.simulator.resolve()),
            "search": self.search.model_dump(mode="json"),
            "split": self.split.name.lower(),
            "assignments": list(self.assignments),
            "settings": self.base,
        }


def draw(axis: Axis, generator: np.random.Generator) -> Value:
    """A value of an axis."""
    return axis[generator.integers(len(axis))] if isinstance(axis, tuple) else axis.draw(generator)


def _size(axis: Axis) -> float:
    if isinstance(axis, tuple):
        return len(axis)
    return axis.high - axis.low + 1 if axis.integer else math.inf


def _value_at(settings: Settings, path: str) -> Any:
    value: Any = settings
    for name in path.split("."):
        value = getattr(value, name)
    return value
