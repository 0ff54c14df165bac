"""A study: variants of an agent × worlds × seeds as one Tune experiment, and a table with intervals.

Every variant gets the same budget, seeds, users and response draws; what is compared is the mean over seeds on
test users, with a t-interval over seeds, and the paired difference to the first variant.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ray import tune
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from ray.tune import Callback, CheckpointConfig, RunConfig, TuneConfig, Tuner

from envs import world_folder
from envs.data.dataset import Split
from envs.errors import UserError
from envs.files import write_json
from envs.progress import Progress, silent
from envs.simulator import WorldSettings
from rl_rec.agents import Agent
from rl_rec.comparison import REFERENCES, Comparison
from rl_rec.json_values import json_value
from rl_rec.provenance import describe_run, write_run
from rl_rec.run_folder import newest_weights
from rl_rec.train_settings import TrainSettings
from tuning.curves import draw_study
from tuning.intervals import interval95
from tuning.training import check, quiet

Variants = Mapping[str, Sequence[str]]
"""By name, the ``path.to.field=value`` assignments that make each variant."""


def study(
    agent: Agent,
    simulator: Path,
    base: TrainSettings[Any],
    variants: Variants,
    worlds: Sequence[Sequence[str]],
    seeds: int,
    episodes: int,
    out: Path,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Train every variant in every world with seeds 0 … ``seeds`` − 1, and evaluate on test users.

    Needs a running Ray; trials run side by side as far as its CPUs go.

    Args:
        agent: the algorithm.
        simulator: a simulator folder.
        base: settings that all share.
        variants: by name, what each changes.
        worlds: what each world changes, e.g. ``[["world.repeats=forbid"]]``.
        seeds: number of seeds.
        episodes: test users served per evaluation.
        out: folder to write: ``run.json``, ``study.json``, pictures and Tune's own files.
        progress: called with the user-steps of all trials.

    Raises:
        UserError: bad settings, two equal variants, or a trial failed.
    """
    simulator, out = simulator.resolve(), out.resolve()
    if out.exists():
        raise UserError(f"{out} exists already; name another folder")
    fitted = world_folder.load(simulator)
    cells: dict[str, TrainSettings[Any]] = {}
    for (index, world), (name, changes), seed in itertools.product(
        enumerate(worlds), variants.items(), range(seeds)
    ):
        cell = base.with_overrides([*world, *changes, f"seed={seed}"])
        if (cell.steps, cell.world) != (base.steps, base.with_overrides(world).world):
            raise UserError(
                f"variant {name!r} changes the budget or the world: give --steps or --world instead"
            )
        if cell in cells.values():
            raise UserError(f"variant {name!r} has the same settings as another one in the same world")
        cells[f"{name}-world{index}-seed{seed}"] = cell
    check(agent, simulator, next(iter(cells.values())), out)
    out.mkdir(parents=True)
    described = {"algorithm": agent.name, "simulator": str(simulator), "variants": variants, "worlds": worlds}
    write_run(out, describe_run({**described, "settings": base}, 0, fitted.dataset.fingerprint, base.device))

    weights = _train_all(agent, simulator, cells, out, progress)

    tables = []
    for index, world in enumerate(worlds):
        rules = base.with_overrides(world).world
        trials = {name: [f"{name}-world{index}-seed{seed}" for seed in range(seeds)] for name in variants}
        comparison = Comparison(fitted, Split.TEST, rules, episodes, seed=0, device=base.device)
        tables.append(_table(agent, comparison, rules, trials, cells, weights))
        folders = {name: [out / trial for trial in of_name] for name, of_name in trials.items()}
        title = f"{fitted.dataset.name}, repeats={rules.repeats}, {seeds} seeds"
        draw_study(folders, title, out / f"learning_curves_world{index}.png")
    result = {**described, "steps": base.steps, "seeds": seeds, "episodes": episodes, "tables": tables}
    write_json(out / "study.json", json_value(result))
    return result


def _train_all(
    agent: Agent, simulator: Path, cells: Mapping[str, TrainSettings[Any]], out: Path, progress: Progress
) -> dict[str, dict[str, Any]]:
    first = next(iter(cells.values()))
    config = agent.rllib_config().recommender(str(simulator), first)
    names = list(cells)
    # Plain data, so that Tune can copy and store it.
    config.settings = tune.grid_search([cell.model_dump(mode="json") for cell in cells.values()])
    order = {repr(cell.model_dump(mode="json")): name for name, cell in cells.items()}

    def trial_name(trial: Any) -> str:
        return order[repr(trial.config["settings"])]

    assert config.algo_class is not None
    callback = _TotalProgress(progress, first.steps * len(names))
    tuner = Tuner(
        config.algo_class,
        param_space=config,
        tune_config=TuneConfig(trial_name_creator=trial_name, trial_dirname_creator=trial_name),
        run_config=RunConfig(
            name=out.name,
            storage_path=str(out.parent),
            stop={NUM_ENV_STEPS_SAMPLED_LIFETIME: first.steps},
            checkpoint_config=CheckpointConfig(num_to_keep=1, checkpoint_at_end=True),
            callbacks=[callback],
            verbose=0,
        ),
    )
    with quiet():
        results = tuner.fit()
    if results.num_errors:
        raise UserError(f"{results.num_errors} of {len(names)} trials failed; their error.txt is in {out}")
    # Tune ends its loop on Ctrl-C and returns as if all were well.
    reached = [(result.metrics or {}).get(NUM_ENV_STEPS_SAMPLED_LIFETIME, 0) for result in results]
    if len(reached) < len(names) or min(reached) < first.steps:
        raise KeyboardInterrupt
    return {name: newest_weights(out / name) for name in names}


def _table(
    agent: Agent,
    comparison: Comparison,
    rules: WorldSettings,
    variants: Mapping[str, Sequence[str]],
    cells: Mapping[str, TrainSettings[Any]],
    weights: Mapping[str, dict[str, Any]],
) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for reference in REFERENCES:
        reached = comparison.run_reference(reference)
        rows[reference] = {
            k: reached[k] for k in ("return_mean", "return_ci95", "normalised", "distinct_items")
        }
    baseline: list[float] | None = None
    for name, trials in variants.items():
        figures = [
            comparison.run(_serve(agent.load_policy(weights[t], comparison.world, rules, cells[t].agent)))
            for t in trials
        ]
        returns = [f["return_mean"] for f in figures]
        baseline = baseline or returns
        difference = [value - other for value, other in zip(returns, baseline, strict=True)]
        rows[name] = {
            "return_mean": float(np.mean(returns)),
            "return_ci95": list(interval95(returns)),
            "normalised": float(np.mean([f["normalised"] for f in figures])),
            "distinct_items": float(np.mean([f["distinct_items"] for f in figures])),
            "returns": returns,
            "difference_to_first": float(np.mean(difference)),
            "difference_ci95": list(interval95(difference)),
        }
    return {"world": rules.model_dump(mode="json"), "rows": rows}


def _serve(policy: Any) -> Any:
    return lambda _simulator: policy


class _TotalProgress(Callback):
    """Adds up the user-steps of all trials."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total = progress, total
        self._done: dict[str, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"_progress": silent, "_total": self._total, "_done": self._done}  # a bar cannot be stored

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        """Called by Tune after each report."""
        self._done[trial.trial_id] = int(result[NUM_ENV_STEPS_SAMPLED_LIFETIME])
        ended = sum(trial.status == "TERMINATED" for trial in trials)
        self._progress(sum(self._done.values()), self._total, f"{ended} of {len(trials)} trials done")
