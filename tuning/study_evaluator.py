"""Evaluating what a study trained, several policies at once on Ray."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayTaskError
from ray.util import ActorPool

from envs import world_folder
from envs.data.dataset import Split
from envs.errors import UserError
from envs.simulator import WorldSettings
from rl_rec.agents import Agent
from rl_rec.comparison import Comparison, ReferenceName
from rl_rec.run_folder import newest_weights
from tuning.study_plan import StudyPlan
from tuning.trial import trial_config


class Job(NamedTuple):
    """One policy in one serving condition."""

    world: str
    serve: str
    policy: str
    """A reference policy, or a trial."""


def evaluations(
    plan: StudyPlan, out: Path, jobs: Sequence[Job], parallel: int
) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Evaluate each job; figures come in the order of the jobs. Needs a running Ray.

    Args:
        plan: of the study in ``out``.
        out: its folder, with the trained trials.
        jobs: what to evaluate.
        parallel: policies at once, as far as Ray has CPUs.

    Raises:
        UserError: a trial's weights cannot be read, or do not fit.
    """
    processes = max(1, min(parallel, len(jobs), int(ray.cluster_resources().get("CPU", 1))))
    gpus = 1 / processes if plan.base.device.startswith("cuda") else 0
    remote = ray.remote(num_cpus=1, num_gpus=gpus)(_Evaluator)
    about = plan.simulator.resolve(), plan.split, plan.episodes, plan.base.device
    trials = {cell.name: trial_config(cell, plan.simulator, out) for cell in plan.cells()}
    pool = ActorPool([remote.remote(*about) for _ in range(processes)])

    def start(actor: Any, job: Job) -> Any:
        rules = plan.rules(job.world, job.serve).model_dump(mode="json")
        return actor.run.remote(rules, trials.get(job.policy, job.policy))

    try:
        yield from zip(jobs, pool.map(start, list(jobs)), strict=True)
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise


class _Evaluator:
    """A process that serves the study's world."""

    def __init__(self, simulator: Path, split: Split, episodes: int, device: str) -> None:
        self._fitted = world_folder.load(simulator)
        self._split, self._episodes, self._device = split, episodes, device
        self._comparisons: dict[str, Comparison] = {}  # by rules: they keep what normalises a return

    def run(self, rules: dict[str, Any], policy: ReferenceName | dict[str, Any]) -> dict[str, Any]:
        """Figures under some rules, plain data.

        ``policy``: a reference policy, or the configuration of a trial (plain data: a process of Ray's knows
        only the algorithms that are installed).
        """
        served = WorldSettings.from_mapping(rules)
        key = served.model_dump_json()
        if key not in self._comparisons:
            self._comparisons[key] = Comparison(
                self._fitted, self._split, served, self._episodes, seed=0, device=self._device
            )
        comparison = self._comparisons[key]
        if isinstance(policy, str):
            return comparison.run_reference(policy)
        agent = Agent(**policy["agent"])
        settings = type(agent.train_settings()).from_mapping(policy["settings"])
        weights = newest_weights(Path(policy["folder"]))
        made = agent.load_policy(weights, comparison.world, served, settings.agent)
        return comparison.run(lambda _simulator: made)
