"""What a study compares: variants of algorithms, the worlds they train in, the conditions they serve in.

The plan is checked whole before anything is trained, and stored in ``run.json`` so that a study can go on.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from envs.data.dataset import Split
from envs.errors import UserError
from envs.files import read_json
from envs.settings import Settings
from envs.simulator import Simulator
from envs.storage.location import Location, location
from envs.world_folder import FittedWorld
from envs.world_settings import WorldSettings
from rl_rec.agents import Agent, find_agent
from rl_rec.comparison import REFERENCES
from rl_rec.provenance import RUN_FILE
from rl_rec.resources import Reservation
from rl_rec.train_settings import TrainSettings
from tuning.training import check_settings

Conditions = Mapping[str, Sequence[str]]
"""By name, the ``world.field=value`` assignments that make each."""

SAME_WORLD: Conditions = {"base": ()}
AS_TRAINED: Conditions = {"as trained": ()}

_SHARED = ("steps", "world", "device", "report_every", "checkpoint_every")


@dataclass(frozen=True)
class Variant:
    """An algorithm with settings; a study replaces their world and seed."""

    agent: Agent
    settings: TrainSettings[Any]


@dataclass(frozen=True)
class Cell:
    """One training run of a study."""

    name: str
    """Of its folder."""
    variant: str
    world: str
    agent: Agent
    settings: TrainSettings[Any]

    @property
    def seed(self) -> int:
        """Of all its randomness."""
        return self.settings.seed


@dataclass(frozen=True)
class StudyPlan:
    """Everything that defines a study."""

    simulator: Location
    variants: Mapping[str, Variant]
    """By name, in the order of the tables; the others are compared to the first."""
    worlds: Conditions
    """What each training world changes."""
    serves: Conditions
    """What each serving condition changes of the world that an agent was trained in."""
    seeds: int
    """Seeds 0 … ``seeds`` − 1."""
    episodes: int
    """Users served per evaluation."""
    split: Split
    """Whose users they are."""
    name: str = "study"
    """What it is called in its report."""
    question: str = ""
    """What it is to answer."""
    places: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By variant, where it stands on the axes of a sweep."""

    @property
    def base(self) -> TrainSettings[Any]:
        """Settings of the first variant; what is shared is equal in all."""
        return next(iter(self.variants.values())).settings

    @property
    def reservations(self) -> list[Reservation]:
        """What a trial of each variant reserves."""
        return [variant.settings.reservation for variant in self.variants.values()]

    def rules(self, world: str, serve: str | None = None) -> WorldSettings:
        """Rules of a training world, or of a serving condition on it."""
        changes = [*self.worlds[world], *(self.serves[serve] if serve is not None else ())]
        return self.base.with_overrides(changes).world

    def cells(self) -> list[Cell]:
        """Every variant in every world with every seed."""
        made = []
        for (index, world), (name, variant), seed in itertools.product(
            enumerate(self.worlds), self.variants.items(), range(self.seeds)
        ):
            settings = variant.settings.with_overrides([*self.worlds[world], f"seed={seed}"])
            made.append(Cell(f"{name}-world{index}-seed{seed}", name, world, variant.agent, settings))
        return made

    def check(self, fitted: FittedWorld) -> None:
        """Find what would stop the study before anything is trained.

        Raises:
            UserError: names or settings that clash, or that do not fit the simulator.
        """
        self.check_alone()
        for cell in self.cells():
            if cell.seed == 0:
                check_settings(cell.agent, self.simulator, fitted, cell.settings)
        population = fitted.world([self.split])
        for world, serve in itertools.product(self.worlds, self.serves):
            Simulator(population, self.rules(world, serve), 1, seed=0)

    def check_alone(self) -> None:
        """Find what would stop the study with any simulator.

        Raises:
            UserError: names or settings that clash.
        """
        self._check_variants()
        for conditions in (self.worlds, self.serves):
            for change in itertools.chain.from_iterable(conditions.values()):
                if not change.startswith("world."):
                    raise UserError(f"a world is made of settings under world., got {change!r}")
        self.cells()
        for world, serve in itertools.product(self.worlds, self.serves):
            trained, served = self.rules(world), self.rules(world, serve)
            if served.history_length != trained.history_length:
                raise UserError(
                    f"{serve!r} changes world.history_length, which is part of a trained network: "
                    "change it with --world instead"
                )

    def _check_variants(self) -> None:
        seen: dict[str, tuple[str, TrainSettings[Any]]] = {}
        for name, variant in self.variants.items():
            if name in REFERENCES:
                raise UserError(f"a variant cannot be called {name!r}: a reference policy is")
            for shared in _SHARED:
                if getattr(variant.settings, shared) != getattr(self.base, shared):
                    raise UserError(
                        f"variant {name!r} changes {shared}, which all variants share: "
                        "give --steps, --world or --set instead"
                    )
            settings = variant.settings.model_copy(update={"seed": 0})
            for other, (algorithm, values) in seen.items():
                if (algorithm, values) == (variant.agent.name, settings):
                    raise UserError(f"variant {name!r} has the same settings as {other!r}")
            seen[name] = (variant.agent.name, settings)

    def describe(self) -> dict[str, Any]:
        """Plain data for ``run.json``; ``read_plan`` reads it."""
        return {
            "simulator": str(self.simulator.resolve()),
            "variants": {
                name: {"algorithm": variant.agent.name, "settings": variant.settings}
                for name, variant in self.variants.items()
            },
            "worlds": self.worlds,
            "serves": self.serves,
            "seeds": self.seeds,
            "episodes": self.episodes,
            "split": self.split.name.lower(),
            "name": self.name,
            "question": self.question,
            "places": self.places,
        }


def read_plan(out: Path) -> tuple[StudyPlan, str | None]:
    """The plan of the study in ``out``, and the fingerprint of the data that it began with.

    Raises:
        UserError: the folder is not a study.
    """
    path = out / RUN_FILE
    described = read_json(path, "a study (make one with: rl-rec study)")
    try:
        config = described["config"]
        variants = {
            name: (find_agent(entry["algorithm"]), entry["settings"])
            for name, entry in config["variants"].items()
        }
        plan = StudyPlan(
            simulator=location(config["simulator"]),
            variants={},
            worlds=config["worlds"],
            serves=config["serves"],
            seeds=config["seeds"],
            episodes=config["episodes"],
            split=Split[config["split"].upper()],
            name=config.get("name", "study"),
            question=config.get("question", ""),
            places=config.get("places", {}),
        )
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"{path} does not describe a study") from None
    resolved = {
        name: Variant(agent, type(agent.train_settings()).from_mapping(values, where=name, file=path))
        for name, (agent, values) in variants.items()
    }
    return replace(plan, variants=resolved), described.get("data_fingerprint")


def make_variants(
    wanted: Mapping[str, tuple[Agent, Sequence[str]]], assignments: Sequence[str]
) -> dict[str, Variant]:
    """Resolve variants: an algorithm's defaults, the ``assignments`` that all share, and each one's own.

    Args:
        wanted: by name, the algorithm and its own ``path.to.field=value`` strings.
        assignments: those of all.

    Raises:
        UserError: a bad assignment, or one for all that not all of the algorithms have.
    """
    defaults = {agent.name: agent.train_settings() for agent, _ in wanted.values()}
    for path in (assignment.partition("=")[0].strip() for assignment in assignments):
        having = [name for name, settings in defaults.items() if _has(settings, path)]
        if having and len(having) < len(defaults):
            without = next(name for name in defaults if name not in having)
            raise UserError(
                f"--set applies to every variant, and {without} has no {path}: give it in the variants that "
                f"have it, as in --variant NAME@{having[0]}:{path}=..."
            )
    return {
        name: Variant(agent, defaults[agent.name].with_overrides([*assignments, *changes]))
        for name, (agent, changes) in wanted.items()
    }


def _has(settings: Settings, path: str) -> bool:
    value: Any = settings
    for name in path.split("."):
        if not isinstance(value, Settings) or name not in type(value).model_fields:
            return False
        value = getattr(value, name)
    return True


def split_assignments(text: str) -> list[str]:
    """``a=1,b=[2,3]`` as ``["a=1", "b=[2,3]"]``: commas inside brackets belong to a value.

    Raises:
        UserError: a part that is no assignment, or a bracket that is not closed.
    """
    parts = re.split(r",(?![^\[]*\])", text) if text else []
    for part in parts:
        if "=" not in part:
            raise UserError(
                f"{part!r} is not PATH=VALUE: commas separate assignments, a list stands in brackets, as in "
                "agent.critic_hidden=[128,64]"
            )
        if part.count("[") != part.count("]"):
            raise UserError(f"{part!r} has a bracket without its pair")
    return parts
