"""Going on with a training run that was interrupted, from its newest whole checkpoint."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray.tune import ExperimentAnalysis, Tuner

from envs import world_folder
from envs.errors import UserError
from envs.progress import Progress, silent
from envs.storage.location import Location
from envs.world_folder import FittedWorld
from rl_rec.run_folder import RESULTS, START, TRIAL, RunFolder, whole_lines
from tuning.training import fit, only_one, start
from tuning.trial import keep_results


def check_resume(run: RunFolder) -> None:
    """Find what would stop an interrupted run from going on; needs no running Ray.

    Raises:
        UserError: it is a trial of a study; its simulator is gone, damaged, or was fitted on other data since.
    """
    if run.study is not None:
        raise UserError(
            f"{run.path} is a trial of a study, which goes on as a whole: "
            f"rl-rec study --resume {run.path.parent}"
        )
    load_same(run.simulator, run.fingerprint, run.path)


def load_same(simulator: Location, fingerprint: str | None, out: Path) -> FittedWorld:
    """Load the simulator that ``out`` began with.

    Raises:
        UserError: it is gone, damaged, or was fitted on other data since.
    """
    fitted = world_folder.load(simulator)
    if fingerprint not in (None, fitted.dataset.fingerprint):
        raise UserError(f"{simulator} was fitted on other data since {out} began: it cannot go on")
    return fitted


def resume(out: Path, progress: Progress = silent) -> RunFolder:
    """Go on with an interrupted run from its newest whole checkpoint; a finished one is returned as it is.

    Needs a running Ray, unless the run is finished.

    Raises:
        UserError: ``out`` is not a run.
        TrainingFailedError: as ``train``.
        KeyboardInterrupt: as ``train``.
    """
    run = RunFolder(out.resolve())
    if run.finished:
        return run
    check_resume(run)
    with only_one(run.path):
        return _go_on(run, progress)


def _go_on(run: RunFolder, progress: Progress) -> RunFolder:
    if (results := run.trial / RESULTS).exists():
        os.truncate(results, len(whole_lines(results)))  # Tune appends
    if not _mend(run):
        checkpoint = _set_aside(run)
        for left in (*run.path.glob("experiment_state-*.json"), run.path / "tuner.pkl"):
            left.unlink(missing_ok=True)
        return start(run, progress, checkpoint=checkpoint)
    _forget_decisions(run)
    trainable = run.agent.rllib_config().algo_class
    assert trainable is not None

    def restored(storage: Mapping[str, Any]) -> Tuner:
        return Tuner.restore(
            f"{storage['storage_path']}/{storage['name']}",
            trainable=trainable,
            resume_unfinished=True,
            resume_errored=True,
            storage_filesystem=storage.get("storage_filesystem"),
        )

    return fit(restored, run, progress)


def _mend(run: RunFolder) -> bool:
    """Make the checkpoint that Tune would load the newest whole one; False where there is nothing to load.

    Tune notes its checkpoints only now and then. A killed run may hold newer ones than noted, and the noted
    one may be gone, or torn.
    """
    whole = next(run.whole_checkpoints(), None)
    if whole is None or not any(run.path.glob("experiment_state-*.json")):
        return False
    try:
        trials = ExperimentAnalysis(str(run.path)).trials
    except Exception:  # of many kinds: a full disk tore Tune's notes
        return False
    if not trials or trials[0].checkpoint is None:
        return False
    noted = run.path / TRIAL / Path(trials[0].checkpoint.path).name
    if noted != whole:
        draft = noted.with_name(f".{noted.name}.partial")
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(whole, draft)
        shutil.rmtree(noted, ignore_errors=True)
        draft.rename(noted)
    for checkpoint in run.checkpoints():
        if checkpoint.name > noted.name:  # Tune would write into it, file by file
            shutil.rmtree(checkpoint)
    return True


def _forget_decisions(run: RunFolder) -> None:
    """Drop what Tune put off until a save was done, such as stopping a trial that had failed meanwhile.

    Tune notes it, and would carry it out at the first save of the resumed run.
    """
    for notes in run.path.glob("experiment_state-*.json"):
        state = json.loads(notes.read_text())
        state["runner_data"] |= {"_cached_trial_decisions": {}, "_queued_trial_decisions": {}}
        draft = notes.with_name(f".{notes.name}.partial")
        draft.write_text(json.dumps(state))
        draft.replace(notes)


def _set_aside(run: RunFolder) -> Path | None:
    """What to begin anew from where Tune's notes are of no use: the newest whole checkpoint, if there is one.

    Tune numbers the checkpoints of a new start from 0, and would write into those that are there.
    """
    begin, whole = run.trial / START, next(run.whole_checkpoints(), None)
    if whole is None:
        shutil.rmtree(run.trial, ignore_errors=True)
        return None
    if whole != begin:
        shutil.rmtree(begin, ignore_errors=True)
        whole.rename(begin)
    keep_results(run.trial)
    for left in run.checkpoints():
        shutil.rmtree(left)
    return begin
