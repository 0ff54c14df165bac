"""Evaluating any policy beside the two that normalise its return."""

from functools import partial
from typing import Any, Literal

import torch

from envs.data.dataset import Split
from envs.errors import UserError
from envs.progress import Progress, silent
from envs.randomness import stream_seed
from envs.world import World
from envs.world_folder import FittedWorld
from envs.world_settings import WorldSettings
from rl_rec.evaluation import Evaluation, MakePolicy, evaluate, normalised
from rl_rec.reference import (
    OraclePolicy,
    PenalisedOracle,
    RandomPolicy,
    RankingPolicy,
    popularity,
    search_penalty,
    search_ranking,
    unplannable,
)
from rl_rec.sweet_point import sweet_point_bounds

ReferenceName = Literal["random", "popular", "constant", "oracle", "planner"]

REFERENCES: tuple[ReferenceName, ...] = ("random", "popular", "constant", "oracle", "planner")


def reference_names(rules: WorldSettings) -> tuple[ReferenceName, ...]:
    """The reference policies of a world: the planner stands where trust makes planning pay."""
    return REFERENCES[:-1] if unplannable(rules) else REFERENCES


def reference_policy(
    name: ReferenceName,
    fitted: FittedWorld,
    rules: WorldSettings,
    seed: int,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> MakePolicy:
    """How to make a reference policy; whatever it learns, it learns from training users.

    Args:
        name: which one; ``constant`` is searched for on return, which takes a while; the ``planner``'s penalty
            is tuned on validation users.
        fitted: the simulator.
        rules: of the world.
        seed: of the random policy and of the search.
        device: where it will serve.
        progress: of the search.

    Raises:
        UserError: a planner where it cannot rank.
    """
    if name == "planner":
        if why := unplannable(rules):
            raise UserError(f"the planner cannot rank here: {why}")
        validation = fitted.world([Split.VALIDATION], device)
        kappa = search_penalty(validation, rules, stream_seed(seed, 9), progress=progress)
        return partial(PenalisedOracle, penalty=kappa)
    if name == "random":
        generator = torch.Generator(device).manual_seed(stream_seed(seed, 7))
        return lambda simulator: RandomPolicy(simulator, generator)
    if name == "oracle":
        return OraclePolicy
    scores = popularity(fitted.dataset, device)
    if name == "constant":
        train = fitted.world([Split.TRAIN], device)
        scores = search_ranking(train, rules, scores, stream_seed(seed, 8), progress=progress)
    return lambda simulator: RankingPolicy(simulator, scores)


class Comparison:
    """Evaluates policies on the same users, start histories and response draws, normalised alike."""

    def __init__(
        self, fitted: FittedWorld, split: Split, rules: WorldSettings, episodes: int, seed: int, device: str
    ) -> None:
        self._fitted, self._rules, self._device = fitted, rules, device
        self._split, self._episodes, self._seed = split, episodes, seed
        self.world: World = fitted.world([split], device)
        self._anchors: dict[str, Evaluation] = {}

    def run(self, make_policy: MakePolicy, progress: Progress = silent) -> dict[str, Any]:
        """Figures of one policy, plain data."""
        return self._describe(self._evaluate(make_policy, progress))

    def run_reference(self, name: ReferenceName, progress: Progress = silent) -> dict[str, Any]:
        """Figures of a reference policy."""
        if name in ("random", "oracle"):
            return self._describe(self._anchor(name))
        make = reference_policy(name, self._fitted, self._rules, self._seed, self._device, progress)
        return self._describe(self._evaluate(make))

    def _describe(self, result: Evaluation) -> dict[str, Any]:
        random, oracle = self._anchor("random").return_mean, self._anchor("oracle").return_mean
        bounds = sweet_point_bounds(self.world, self._rules)
        return {
            **result.summary(),
            "normalised": normalised(result.return_mean, random, oracle),
            "random_return": random,
            "oracle_return": oracle,
            **({} if bounds is None else {"episode_bounds": [bound._asdict() for bound in bounds]}),
            "seed": self._seed,
            "split": self._split.name.lower(),
            "world": self._rules.model_dump(mode="json"),
            "data_fingerprint": self._fitted.dataset.fingerprint,
        }

    def _anchor(self, name: Literal["random", "oracle"]) -> Evaluation:
        if name not in self._anchors:
            make = reference_policy(name, self._fitted, self._rules, self._seed, self._device)
            self._anchors[name] = self._evaluate(make)
        return self._anchors[name]

    def _evaluate(self, make_policy: MakePolicy, progress: Progress = silent) -> Evaluation:
        return evaluate(self.world, self._rules, make_policy, self._episodes, self._seed, progress)
