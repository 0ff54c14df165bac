"""Evaluating what a study trained: one Ray task a policy, wherever the cluster has room."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayTaskError

from envs import world_folder
from envs.errors import UserError
from rl_rec.agents import Agent
from rl_rec.comparison import REFERENCES, reference_policy
from rl_rec.evaluation import evaluate
from rl_rec.run_folder import newest_weights
from tuning.study_plan import StudyPlan

_SEED = 0  # the same users and response draws for every policy


class Job(NamedTuple):
    """One policy in one serving condition."""

    world: str
    serve: str
    policy: str
    """A reference policy, or a trial."""


def evaluations(
    plan: StudyPlan, out: Path, jobs: Sequence[Job], parallel: int
) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Evaluate each job; figures come as they are ready. Needs a running Ray.

    Args:
        plan: of the study in ``out``.
        out: its folder, with the trained trials.
        jobs: what to evaluate.
        parallel: policies at once, as far as Ray has CPUs.

    Yields:
        A job and its ``Evaluation.summary()`` with the split.

    Raises:
        UserError: a trial's weights cannot be read, or do not fit.
    """
    task = ray.remote(num_cpus=1, num_gpus=plan.base.main_gpus)(_evaluate)
    cells = {cell.name: cell for cell in plan.cells()}
    waiting, running = list(reversed(jobs)), dict[Any, Job]()
    while waiting or running:
        while waiting and len(running) < max(parallel, 1):
            job = waiting.pop()
            cell = cells.get(job.policy)
            trial = None if cell is None else (cell.agent, cell.settings.agent.model_dump(), out / cell.name)
            running[task.remote(_condition(plan, job), trial or job.policy)] = job
        ready, _ = ray.wait(list(running), num_returns=1)
        try:
            figures = ray.get(ready[0])
        except RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from None
            raise
        yield running.pop(ready[0]), figures


def _condition(plan: StudyPlan, job: Job) -> dict[str, Any]:
    return {
        "simulator": plan.simulator.resolve(),
        "rules": plan.rules(job.world, job.serve),
        "split": plan.split,
        "episodes": plan.episodes,
        "device": plan.base.main_device,
    }


def _evaluate(condition: dict[str, Any], policy: str | tuple[Agent, dict[str, Any], Path]) -> dict[str, Any]:
    """In a worker. ``policy``: a reference policy, or a trial's algorithm, settings and folder.

    A worker knows only the algorithms that are installed: an ``Agent`` names its parts by import paths.
    """
    fitted = world_folder.load(condition["simulator"])
    rules, device = condition["rules"], condition["device"]
    world = fitted.world([condition["split"]], device)
    if isinstance(policy, str):
        assert policy in REFERENCES
        make = reference_policy(policy, fitted, rules, _SEED, device)
    else:
        agent, values, folder = policy
        settings = type(agent.train_settings().agent).from_mapping(values)
        loaded = agent.load_policy(newest_weights(folder), world, rules, settings)
        make = lambda _: loaded  # noqa: E731
    figures = evaluate(world, rules, make, condition["episodes"], _SEED).summary()
    return {**figures, "split": condition["split"].name.lower()}
