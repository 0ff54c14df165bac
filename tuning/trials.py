"""Trials on Tune: what a study and a search have in common."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from ray.tune import Callback, CheckpointConfig, FailureConfig, RunConfig, TuneConfig, Tuner
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from envs.progress import Progress, silent
from rl_rec.train_settings import TrainSettings
from tuning.experiment import always, last_line, quiet, tune_storage
from tuning.retries import RETRIES, UNREADABLE, Failures
from tuning.termination import SaveWhenTold
from tuning.trial import StudyTrial, trial_name


def run_trials(
    param_space: Mapping[str, Any],
    settings: TrainSettings[Any],
    folder: Path,
    parallel: int | None,
    callbacks: Sequence[Callback],
    scheduler: TrialScheduler | None = None,
    searcher: Searcher | None = None,
    samples: int = 1,
    keep: int = 1,
) -> dict[str, str]:
    """Train until every trial has its user-steps, was stopped, or failed for good. Needs a running Ray.

    Args:
        param_space: configurations of ``StudyTrial``, plain data, so that Tune can copy and store them.
        settings: what all trials share: budget, reports, checkpoints.
        folder: of the trials.
        parallel: trials at once; ``None``: as many as there is room for.
        callbacks: Tune's.
        scheduler: who stops and perturbs.
        searcher: who proposes ``samples`` configurations, where ``param_space`` does not list them.
        samples: how many.
        keep: checkpoints of each trial.

    Returns:
        By trial, why it failed. A trial that somebody interrupted is not among them.
    """
    # Tune's own account of an earlier start: it lags behind what lies in the trials' folders.
    for stale in (*folder.glob("experiment_state-*.json"), folder / "tuner.pkl"):
        stale.unlink(missing_ok=True)
    with (
        quiet(),
        SaveWhenTold.on_sigterm(),
        Failures.noted() as failures,
        tune_storage(folder) as storage,
        suppress(*UNREADABLE),
    ):
        Tuner(
            StudyTrial,
            param_space=dict(param_space),
            tune_config=TuneConfig(
                trial_name_creator=trial_name,
                trial_dirname_creator=trial_name,
                max_concurrent_trials=parallel,
                reuse_actors=True,
                scheduler=scheduler,
                search_alg=searcher,
                num_samples=samples,
            ),
            run_config=RunConfig(
                **storage,
                stop={NUM_ENV_STEPS_SAMPLED_LIFETIME: settings.steps},
                checkpoint_config=CheckpointConfig(
                    num_to_keep=keep,
                    checkpoint_frequency=math.ceil(settings.checkpoint_every / settings.report_every),
                    checkpoint_at_end=True,
                ),
                failure_config=FailureConfig(max_failures=RETRIES),
                callbacks=[*always(), *callbacks],
                verbose=0,
            ),
        ).fit()
    return {name: last_line(error) for name, error in failures.items()}


class TotalProgress(Callback):
    """Adds up the user-steps of all trials."""

    def __init__(self, progress: Progress, steps: int, trials: int, done: Mapping[str, int]) -> None:
        """``steps``: of one trial; ``done``: those that trials have behind them already."""
        self._progress, self._steps, self._trials = progress, steps, trials
        self._done = dict(done)
        self._ended = {name for name, behind in done.items() if behind >= steps}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_progress": silent}  # a bar cannot be stored

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        """Called by Tune after each report."""
        self._done[str(trial)] = int(result[NUM_ENV_STEPS_SAMPLED_LIFETIME])
        self._show()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Called by Tune; whoever was stopped early owes nothing more."""
        self._done[str(trial)] = self._steps
        self._ended.add(str(trial))
        self._show()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Called by Tune when a trial has failed for good."""
        self._ended.add(str(trial))

    def _show(self) -> None:
        left = f"{len(self._ended)} of {self._trials} trials done"
        self._progress(sum(self._done.values()), self._steps * self._trials, left)
