"""Training under Ray Tune: one run is a sweep of one trial."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME
from ray.tune import Callback, CheckpointConfig, ResultGrid, RunConfig, TuneConfig, Tuner

from envs import world_folder
from envs.errors import UserError
from envs.progress import Progress, silent
from rl_rec import metrics as names
from rl_rec.agents import Agent
from rl_rec.provenance import describe_run, write_run
from rl_rec.run_folder import TRIAL, RunFolder
from rl_rec.train_settings import TrainSettings


class TrainingFailedError(UserError):
    """A trial ended with an error; the message is its last line."""


def train(
    agent: Agent, simulator: Path, settings: TrainSettings[Any], out: Path, progress: Progress = silent
) -> RunFolder:
    """Train one agent into the run folder ``out``, with checkpoints on the way.

    Needs a running Ray.

    Raises:
        UserError: ``out`` exists, the simulator cannot be read, or the settings do not fit its world.
        TrainingFailedError: the training itself failed; the last good checkpoint stays.
    """
    simulator, out = simulator.resolve(), out.resolve()
    if out.exists():
        raise UserError(
            f"{out} exists already; name another folder, or go on with: rl-rec train --resume {out}"
        )
    fitted = world_folder.load(simulator)
    described = describe_run(
        {"algorithm": agent.name, "simulator": str(simulator), "settings": settings},
        settings.seed,
        fitted.dataset.fingerprint,
        settings.device,
    )
    out.mkdir(parents=True)
    write_run(out, described)
    return _run(_tuner(RunFolder(out)), out, progress)


def resume(out: Path, progress: Progress = silent) -> RunFolder:
    """Go on with an interrupted run from its newest checkpoint; a finished one is returned as it is.

    Raises:
        UserError: ``out`` is not a run.
        TrainingFailedError: as ``train``.
    """
    run = RunFolder(out.resolve())
    if not Tuner.can_restore(str(run.path)):  # stopped before Tune had noted anything
        return _run(_tuner(run), run.path, progress)
    trainable = run.agent.rllib_config().algo_class
    assert trainable is not None
    tuner = Tuner.restore(str(run.path), trainable=trainable, resume_unfinished=True, resume_errored=True)
    return _run(tuner, run.path, progress)


def _tuner(run: RunFolder) -> Tuner:
    settings = run.settings
    config = run.agent.rllib_config().recommender(str(run.simulator), settings)
    config.validate()
    assert config.algo_class is not None
    return Tuner(
        config.algo_class,
        param_space=config,
        tune_config=TuneConfig(trial_name_creator=_trial_name, trial_dirname_creator=_trial_name),
        run_config=RunConfig(
            name=run.path.name,
            storage_path=str(run.path.parent),
            stop={NUM_ENV_STEPS_SAMPLED_LIFETIME: settings.steps},
            checkpoint_config=CheckpointConfig(
                num_to_keep=2,
                checkpoint_frequency=math.ceil(settings.checkpoint_every / settings.report_every),
                checkpoint_at_end=True,
            ),
            callbacks=[_ReportProgress()],
            verbose=0,
        ),
    )


def _trial_name(trial: Any) -> str:
    return TRIAL


def _run(tuner: Tuner, out: Path, progress: Progress) -> RunFolder:
    with _ReportProgress.to(progress):
        results: ResultGrid = tuner.fit()
    error = results[0].error
    if error is not None:
        raise TrainingFailedError(
            f"training failed: {_last_line(error)} (the last good checkpoint is kept in {out})"
        )
    return RunFolder(out)


def _last_line(error: BaseException) -> str:
    """The message of what was raised in the trial, without the tracebacks around it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    raised = lines[-1] if lines else type(error).__name__
    name, _, message = raised.partition(": ")
    return message if message and name.rpartition(".")[2].endswith("Error") else raised


class _ReportProgress(Callback):
    """Passes results on to the caller's progress, which is not stored with the experiment."""

    _progress: ClassVar[Progress] = staticmethod(silent)

    @classmethod
    @contextmanager
    def to(cls, progress: Progress) -> Iterator[None]:
        """Report to ``progress`` inside the block."""
        cls._progress = staticmethod(progress)
        try:
            yield
        finally:
            cls._progress = staticmethod(silent)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        """Called by Tune after each report."""
        done = int(result.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, 0))
        figures = []
        if names.EVALUATION in result:
            figures.append(f"validation return {result[names.EVALUATION]['return_mean']:.2f}")
        sampled = result.get(ENV_RUNNER_RESULTS, {}).get(names.RETURN_MEAN)
        if sampled is not None and math.isfinite(sampled):
            figures.append(f"training return {sampled:.2f}")
        if names.USER_STEPS_PER_S in result:
            figures.append(f"{result[names.USER_STEPS_PER_S]:.0f} user-steps/s")
        type(self)._progress(done, result["config"]["settings"]["steps"], ", ".join(figures))
