"""A study: variants of algorithms × worlds × seeds as one Tune experiment, and tables with intervals.

Every variant gets the same budget, seeds, users and response draws; what is compared is the mean over seeds,
with a t-interval over seeds, and the paired difference to the first variant.

STUDY/run.json                       the plan, with every variant's settings
STUDY/VARIANT-world0-seed0/          one trial: its settings, results and newest checkpoint
STUDY/learning_curves_world0.png
STUDY/results.csv                    every evaluation
STUDY/study.json                     the tables; there once all is done
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune import Callback

from envs.counted import counted
from envs.files import read_json, write_json
from envs.progress import Progress, silent
from envs.world_folder import FittedWorld
from rl_rec.json_values import json_value
from rl_rec.provenance import RUN_FILE, describe_run
from tuning.curves import draw_study
from tuning.resuming import load_same
from tuning.study_plan import StudyPlan, read_plan
from tuning.study_tables import make_tables
from tuning.training import begin, check_start, only_one
from tuning.trial import prepare, tidy, trial_config, user_steps
from tuning.trials import TotalProgress, run_trials

STUDY_FILE = "study.json"

Reporting = Callable[[str], AbstractContextManager[Progress]]
"""Shows one piece of work: given its label, a block with the progress to call."""


def unseen(label: str) -> AbstractContextManager[Progress]:
    """Shows nothing."""
    return nullcontext(silent)


def check(plan: StudyPlan, out: Path) -> FittedWorld:
    """Find what would stop a study before anything is written; needs no running Ray.

    Raises:
        UserError: ``out`` exists or cannot be made, the simulator cannot be read, or settings do not fit.
    """
    fitted = check_start(plan.simulator, out, resume="rl-rec study")
    plan.check(fitted)
    return fitted


def study(
    plan: StudyPlan,
    out: Path,
    parallel: int = 2,
    reporting: Reporting = unseen,
    trackers: Sequence[Callback] = (),
) -> dict[str, Any]:
    """Train every variant in every world with every seed, and evaluate in every serving condition.

    Needs a running Ray. A trial that fails is tried again (``retries.RETRIES``) from its newest checkpoint, and
    leaves the others alone.

    Args:
        plan: what to compare.
        out: folder to write.
        parallel: trials at once, and evaluations.
        reporting: shows user-steps of all trials, then evaluations.
        trackers: see every result besides; of ``make_trackers``.

    Returns:
        ``study.json``; ``failed`` holds by trial why it could not be trained.

    Raises:
        UserError: as ``check``.
        KeyboardInterrupt: somebody interrupted it; ``resume`` goes on.
        Terminated: SIGTERM did; every trial was saved before.
    """
    fitted, out = check(plan, out), out.resolve()
    with begin(out, describe_run(plan.describe(), 0, fitted.dataset.fingerprint, plan.base.device)):
        return _go_on(plan, fitted, out, parallel, reporting, trackers)


def resume(
    out: Path, parallel: int = 2, reporting: Reporting = unseen, trackers: Sequence[Callback] = ()
) -> dict[str, Any]:
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
        return _go_on(plan, fitted, out, parallel, reporting, trackers)


def finished(out: Path) -> dict[str, Any] | None:
    """``study.json`` of a study with nothing left to do, or ``None``."""
    if not (out / STUDY_FILE).exists():
        return None
    result: dict[str, Any] = read_json(out / STUDY_FILE, "a study")
    return None if result["failed"] else result


def _go_on(
    plan: StudyPlan,
    fitted: FittedWorld,
    out: Path,
    parallel: int,
    reporting: Reporting,
    trackers: Sequence[Callback],
) -> dict[str, Any]:
    with reporting("user-steps") as progress:
        failed = _train(plan, out, parallel, progress, trackers)
    for index, world in enumerate(plan.worlds):
        trials: dict[str, list[Path]] = {}
        for cell in plan.cells():
            if cell.world == world and cell.name not in failed:
                trials.setdefault(cell.variant, []).append(out / cell.name)
        title = f"{fitted.dataset.name}, world {world}, {counted(plan.seeds, 'seed')}"
        draw_study(trials, title, out / f"learning_curves_world{index}.png")
    with reporting("evaluating") as progress:
        tables = make_tables(plan, out, failed, parallel, progress)
    result: dict[str, Any] = json_value(
        {**plan.describe(), "steps": plan.base.steps, "failed": failed, "tables": tables}
    )
    write_json(out / STUDY_FILE, result)
    return result


def _train(
    plan: StudyPlan, out: Path, parallel: int, progress: Progress, trackers: Sequence[Callback]
) -> dict[str, str]:
    """Train what is not trained yet; returns by trial why it failed."""
    base, cells = plan.base, plan.cells()
    steps_behind = {cell.name: user_steps(out / cell.name) for cell in cells}
    left = [cell for cell in cells if steps_behind[cell.name] < base.steps]
    for done in {cell.name for cell in cells} - {cell.name for cell in left}:
        tidy(out / done)  # ended in a start that was interrupted before it could
    if not left:
        return {}
    for cell in left:
        prepare(out / cell.name)
    origin = read_json(out / RUN_FILE, "a study")
    configs = [trial_config(cell.name, cell.agent, cell.settings, plan.simulator, origin) for cell in left]
    watching = [TotalProgress(progress, base.steps, len(cells), steps_behind), *trackers]
    failed = run_trials({"trial": tune.grid_search(configs)}, base, out, parallel, watching)
    for cell in left:
        if cell.name in failed:
            continue
        # Tune ends its loop on Ctrl-C and returns as if all were well.
        if user_steps(out / cell.name) < base.steps:
            raise KeyboardInterrupt
        tidy(out / cell.name)
    return failed
