"""Sweeps: a question, the settings that vary to answer it, and the budget that every trial gets.

A sweep is a Python object or a YAML file (``tuning.sweep_files``); trained and evaluated it is a study
(``tuning.study``), whose report (``tuning.report``) answers the question.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from envs.data.dataset import Split
from envs.errors import UserError
from envs.settings import Settings, assignment
from envs.storage.location import Location
from rl_rec.agents import AGENTS, find_agent
from tuning.study_plan import AS_TRAINED, SAME_WORLD, StudyPlan, make_variants

Value = bool | int | float | str


class Case(Settings):
    """One variant that stands by itself."""

    algorithm: str | None = None
    """Its algorithm; ``None``: the sweep's."""
    set: tuple[str, ...] = ()
    """What makes it differ: ``path.to.field=value``."""


class Experiment(Settings):
    """What every comparison states: the question, the algorithm, and the budget."""

    name: str = Field(pattern=r"^[\w.-]+$", examples=["my-sweep"])
    """Short; names the folder."""
    question: str = Field(min_length=1)
    """What it is to answer."""
    algorithm: str = "hac"
    """Trained unless a case says otherwise."""
    set: tuple[str, ...] = ()
    """Fixed parts, the same for all: ``path.to.field=value``."""
    seeds: int = Field(5, ge=1)
    """Seeds 0 … ``seeds`` − 1 of every variant."""
    steps: int = Field(40_000, ge=1)
    """User-steps of each trial."""
    episodes: int = Field(2048, ge=1)
    """Users served per evaluation at the end."""

    def _refuse_varied(self, varied: Mapping[str, Any], assignments: Sequence[str]) -> None:
        for path in (text.partition("=")[0].strip() for text in assignments):
            if path in varied:
                raise UserError(f"{path} is what the sweep {self.name} varies: it cannot be set for all")


class Sweep(Experiment):
    """Variants that are named, or a grid.

    The variants are every case (or the algorithm as it is) with every combination of the grid's values.
    """

    cases: dict[str, Case] = Field({})
    """Variants by name; the others are compared to the first."""
    grid: dict[str, tuple[Value, ...]] = Field({})
    """By setting (``agent.exploration.sigma``), the values it takes."""
    compare_to: str | None = None
    """Name of the variant that the others are compared to; ``None``: the first."""

    @field_validator("grid")
    @classmethod
    def _values(cls, grid: dict[str, tuple[Value, ...]]) -> dict[str, tuple[Value, ...]]:
        for path, values in grid.items():
            if not values:
                raise ValueError(f"{path} takes no values")
            if len(set(values)) < len(values):
                raise ValueError(f"{path} takes a value twice")
            if path.startswith("world."):
                raise ValueError(f"{path} makes another world: compare worlds with rl-rec study --world")
        return grid

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.cases and not self.grid:
            raise ValueError("a sweep needs cases or a grid: there is nothing to compare")
        for name in self.cases:
            if re.fullmatch(r"[\w.-]+", name) is None:
                raise ValueError(f"a case's name is made of letters, digits, - _ and ., got {name!r}")
        if self.compare_to is not None and self.compare_to not in self.places():
            raise ValueError(
                f"compare_to={self.compare_to!r} is no variant (there are {', '.join(self.places())})"
            )
        return self

    def places(self) -> dict[str, dict[str, Value]]:
        """By variant, where it stands: its case, and its value on every axis of the grid."""
        made: dict[str, dict[str, Value]] = {}
        for case in self.cases or {"": Case()}:
            for values in itertools.product(*self.grid.values()):
                place: dict[str, Value] = {"case": case} if case else {}
                place |= dict(zip(self.grid, values, strict=True))
                parts = [case, *(_short(path, value) for path, value in zip(self.grid, values, strict=True))]
                made["-".join(filter(None, parts))] = place
        return made

    def plan(
        self, simulator: Location, split: Split = Split.TEST, assignments: Sequence[str] = (), **fields: Any
    ) -> StudyPlan:
        """The study that answers the question.

        Args:
            simulator: a folder that ``rl-rec simulator fit`` wrote.
            split: whose users to evaluate on.
            assignments: more settings for all.
            fields: of the sweep, replaced: ``seeds``, ``steps``, ``episodes``.

        Raises:
            UserError: an unknown algorithm or setting.
        """
        sweep = type(self).from_mapping({**self.model_dump(), **fields}, where=f"sweep {self.name}")
        self._refuse_varied(sweep.grid, assignments)
        wanted: dict[str, tuple[Any, list[str]]] = {}
        places = sweep.places()
        first = sweep.compare_to or next(iter(places))
        for name in sorted(places, key=lambda name: name != first):
            place = places[name]
            case = sweep.cases.get(str(place.get("case", "")), Case())
            of_grid = [assignment(path, value) for path, value in place.items() if path != "case"]
            wanted[name] = (find_agent(case.algorithm or sweep.algorithm), [*case.set, *of_grid])
        shared = [*sweep.set, f"steps={sweep.steps}", *assignments]
        return StudyPlan(
            simulator=simulator,
            variants=make_variants(wanted, shared),
            worlds=SAME_WORLD,
            serves=AS_TRAINED,
            seeds=sweep.seeds,
            episodes=sweep.episodes,
            split=split,
            name=sweep.name,
            question=sweep.question,
            places=places,
        )


def _short(path: str, value: Value) -> str:
    return str(value) if isinstance(value, str) else f"{path.rpartition('.')[2]}{_text(value)}"


def _text(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def all_algorithms() -> dict[str, Case]:
    """A case for every algorithm as it is."""
    return {name: Case(algorithm=name) for name in AGENTS}
