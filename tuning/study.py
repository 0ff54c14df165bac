"""A study: variants of algorithms × worlds × seeds as one Tune experiment, and tables with intervals.

Every variant gets the same budget, seeds, users and response draws; what is compared is the mean over seeds,
with a t-interval over seeds, and the paired difference to the first variant.

STUDY/run.json                       the plan, with every variant's settings
STUDY/VARIANT-world0-seed0/          one trial: its settings, results and newest checkpoint
STUDY/learning_curves_world0.png
STUDY/results.csv                    every evaluation
STUDY/study.json                     the tables; there once all is done
"""

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from ray import tune
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from ray.tune import Callback, CheckpointConfig, FailureConfig, RunConfig, TuneConfig, Tuner

from envs import world_folder
from envs.errors import UserError
from envs.files import read_json, write_json
from envs.progress import Progress, silent
from envs.world_folder import FittedWorld
from rl_rec.json_values import json_value
from rl_rec.provenance import describe_run, write_run
from tuning.curves import draw_study
from tuning.study_plan import StudyPlan, read_plan
from tuning.study_tables import make_tables
from tuning.training import check_new, last_line, load_same, only_one, quiet
from tuning.trial import StudyTrial, prepare, tidy, trial_config, user_steps

STUDY_FILE = "study.json"
RETRIES = 1
"""How often a trial that failed is tried again, from its newest checkpoint, before it is reported."""

Reporting = Callable[[str], AbstractContextManager[Progress]]
"""Shows one piece of work: given its label, a block with the progress to call."""


def _unseen(label: str) -> AbstractContextManager[Progress]:
    return nullcontext(silent)


def check(plan: StudyPlan, out: Path) -> FittedWorld:
    """Find what would stop a study before anything is written; needs no running Ray.

    Raises:
        UserError: ``out`` exists or cannot be made, the simulator cannot be read, or settings do not fit.
    """
    check_new(out.resolve(), resume="rl-rec study")
    fitted = world_folder.load(plan.simulator.resolve())
    plan.check(fitted)
    return fitted


def study(plan: StudyPlan, out: Path, parallel: int = 2, reporting: Reporting = _unseen) -> dict[str, Any]:
    """Train every variant in every world with every seed, and evaluate in every serving condition.

    Needs a running Ray. A trial that fails is tried again ``RETRIES`` times from its newest checkpoint, and
    leaves the others alone.

    Args:
        plan: what to compare.
        out: folder to write.
        parallel: trials at once, and evaluations.
        reporting: shows user-steps of all trials, then evaluations.

    Returns:
        ``study.json``; ``failed`` holds by trial why it could not be trained.

    Raises:
        UserError: as ``check``.
        KeyboardInterrupt: somebody interrupted it; ``resume`` goes on.
    """
    fitted, out = check(plan, out), out.resolve()
    try:
        out.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"cannot make {out}: {error.strerror}") from None
    with only_one(out):
        write_run(out, describe_run(plan.describe(), 0, fitted.dataset.fingerprint, plan.base.device))
        return _go_on(plan, fitted, out, parallel, reporting)


def resume(out: Path, parallel: int = 2, reporting: Reporting = _unseen) -> dict[str, Any]:
    """Go on with a study: finished trials stay, others go on from their newest whole checkpoint.

    Trials that failed are tried again. Needs a running Ray, unless the study is finished.

    Returns:
        As ``study``.

    Raises:
        UserError: ``out`` is not a study, or its simulator was fitted on other data since.
        KeyboardInterrupt: as ``study``.
    """
    out = out.resolve()
    plan, fingerprint = read_plan(out)
    done = finished(out)
    if done is not None:
        return done
    fitted = load_same(plan.simulator, fingerprint, out)
    plan.check(fitted)
    with only_one(out):
        return _go_on(plan, fitted, out, parallel, reporting)


def finished(out: Path) -> dict[str, Any] | None:
    """``study.json`` of a study with nothing left to do, or ``None``."""
    if not (out / STUDY_FILE).exists():
        return None
    result: dict[str, Any] = read_json(out / STUDY_FILE, "a study")
    return None if result["failed"] else result


def _go_on(
    plan: StudyPlan, fitted: FittedWorld, out: Path, parallel: int, reporting: Reporting
) -> dict[str, Any]:
    with reporting("user-steps") as progress:
        failed = _train(plan, out, parallel, progress)
    for index, world in enumerate(plan.worlds):
        trials: dict[str, list[Path]] = {}
        for cell in plan.cells():
            if cell.world == world and cell.name not in failed:
                trials.setdefault(cell.variant, []).append(out / cell.name)
        seeds = f"{plan.seeds} seed{'s' if plan.seeds > 1 else ''}"
        title = f"{fitted.dataset.name}, world {world}, {seeds}"
        draw_study(trials, title, out / f"learning_curves_world{index}.png")
    with reporting("evaluating") as progress:
        tables = make_tables(plan, out, failed, parallel, progress)
    result: dict[str, Any] = json_value(
        {**plan.describe(), "steps": plan.base.steps, "failed": failed, "tables": tables}
    )
    write_json(out / STUDY_FILE, result)
    return result


def _train(plan: StudyPlan, out: Path, parallel: int, progress: Progress) -> dict[str, str]:
    """Train what is not trained yet; returns by trial why it failed."""
    base, cells = plan.base, plan.cells()
    steps_behind = {cell.name: user_steps(out / cell.name) for cell in cells}
    left = [cell for cell in cells if steps_behind[cell.name] < base.steps]
    if not left:
        return {}
    # Tune's own account of an earlier start: it lags behind what lies in the trials' folders.
    for stale in (*out.glob("experiment_state-*.json"), out / "tuner.pkl"):
        stale.unlink(missing_ok=True)
    for cell in left:
        prepare(out / cell.name)
    tuner = Tuner(
        StudyTrial,
        # Plain data, so that Tune can copy and store it.
        param_space={"trial": tune.grid_search([trial_config(cell, plan.simulator, out) for cell in left])},
        tune_config=TuneConfig(
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
            max_concurrent_trials=parallel,
            reuse_actors=True,
        ),
        run_config=RunConfig(
            name=out.name,
            storage_path=str(out.parent),
            stop={NUM_ENV_STEPS_SAMPLED_LIFETIME: base.steps},
            checkpoint_config=CheckpointConfig(
                num_to_keep=1,
                checkpoint_frequency=math.ceil(base.checkpoint_every / base.report_every),
                checkpoint_at_end=True,
            ),
            failure_config=FailureConfig(max_failures=RETRIES),
            callbacks=[_TotalProgress(progress, base.steps * len(cells), steps_behind)],
            verbose=0,
        ),
    )
    with quiet():
        results = tuner.fit()
    failed = {Path(result.path).name: last_line(result.error) for result in results if result.error}
    for cell in left:
        if cell.name in failed:
            continue
        # Tune ends its loop on Ctrl-C and returns as if all were well.
        if user_steps(out / cell.name) < base.steps:
            raise KeyboardInterrupt
        tidy(out / cell.name)
    return failed


def _trial_name(trial: Any) -> str:
    return str(trial.config["trial"]["name"])


class _TotalProgress(Callback):
    """Adds up the user-steps of all trials."""

    def __init__(self, progress: Progress, total: int, done: Mapping[str, int]) -> None:
        self._progress, self._total = progress, total
        self._done = dict(done)

    def __getstate__(self) -> dict[str, Any]:
        return {"_progress": silent, "_total": self._total, "_done": self._done}  # a bar cannot be stored

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        """Called by Tune after each report."""
        self._done[trial.config["trial"]["name"]] = int(result[NUM_ENV_STEPS_SAMPLED_LIFETIME])
        ended = sum(trial.status in ("TERMINATED", "ERROR") for trial in trials)
        left = f"{ended} of {len(trials)} trials done"
        self._progress(sum(self._done.values()), self._total, left)
