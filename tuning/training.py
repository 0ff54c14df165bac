"""Training under Ray Tune: one run is a sweep of one trial."""

import fcntl
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME
from ray.tune import (
    Callback,
    CheckpointConfig,
    FailureConfig,
    ResultGrid,
    RunConfig,
    TuneConfig,
    Tuner,
)

from envs import world_folder
from envs.data.dataset import Split
from envs.errors import UserError
from envs.progress import Progress, silent
from envs.simulator import Simulator
from envs.storage.location import Location
from envs.storage.working_copy import copy_of
from envs.world_folder import FittedWorld
from rl_rec import metrics as names
from rl_rec.agents import Agent
from rl_rec.provenance import describe_run, write_run
from rl_rec.run_folder import FINISHED, TRIAL, RunFolder
from rl_rec.train_settings import TrainSettings
from tuning.experiment import always, last_line, quiet, tune_storage
from tuning.retries import RETRIES, UNREADABLE, Failures
from tuning.stored import StartFrom
from tuning.termination import SaveWhenTold
from tuning.trial import tidy

_LOCK = ".lock"


class TrainingFailedError(UserError):
    """A trial ended with an error; the message is its last line."""


def check(agent: Agent, simulator: Location, settings: TrainSettings[Any], out: Path) -> dict[str, Any]:
    """Find what would stop a run before anything is written; needs no running Ray.

    Returns:
        The description of the run: ``run.json``.

    Raises:
        UserError: ``out`` exists or cannot be made, the simulator cannot be read, or the settings do not fit
            its world or each other.
    """
    simulator = simulator.resolve()
    fitted = check_start(simulator, out, resume="rl-rec train")
    check_settings(agent, simulator, fitted, settings)
    return describe_run(
        {"algorithm": agent.name, "simulator": str(simulator), "settings": settings},
        settings.seed,
        fitted.dataset.fingerprint,
        settings.device,
    )


def check_start(simulator: Location, out: Path, resume: str) -> FittedWorld:
    """Load the simulator once the folder ``out`` can be made; ``resume`` is the command that goes on with one.

    Raises:
        UserError: ``out`` exists, its parent cannot be written, or the simulator cannot be read.
    """
    out = out.resolve()
    try:
        if out.is_file():
            raise UserError(f"{out} is a file; name a folder")
        if (out / FINISHED).exists():
            raise UserError(f"{out} holds a finished run; name another folder")
        if not untouched(out):
            raise UserError(
                f"{out} exists already; name another folder, or go on with: {resume} --resume {out}"
            )
        parent = next(folder for folder in out.parents if folder.exists())
    except OSError as error:  # a name that cannot be
        raise UserError(f"cannot make {out}: {error.strerror}; choose another --out") from None
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f"cannot write to {parent}: choose another --out")
    return world_folder.load(simulator.resolve())


def untouched(out: Path) -> bool:
    """Whether nothing is there, or no more than a run leaves that was killed before it said what it is."""
    return not out.exists() or (out.is_dir() and {entry.name for entry in out.iterdir()} <= {_LOCK})


def check_settings(
    agent: Agent, simulator: Location, fitted: FittedWorld, settings: TrainSettings[Any]
) -> None:
    """Check that ``settings`` fit the world ``fitted`` of the folder ``simulator``, and each other.

    Raises:
        UserError: they do not.
    """
    for split in (Split.TRAIN, Split.VALIDATION)[: 2 if settings.evaluation.every else 1]:
        Simulator(fitted.world([split]), settings.world, 1, settings.seed)
    agent.check_world(settings.agent, fitted)
    with quiet():
        _rllib_config(agent, simulator, settings)


def train(
    agent: Agent,
    simulator: Location,
    settings: TrainSettings[Any],
    out: Path,
    progress: Progress = silent,
    trackers: Sequence[Callback] = (),
) -> RunFolder:
    """Train one agent into the run folder ``out``, with checkpoints on the way.

    Needs a running Ray. ``trackers`` see every result besides (``make_trackers``), also after a resume.

    Raises:
        UserError: as ``check``.
        TrainingFailedError: the training itself failed; the last good checkpoint stays.
        KeyboardInterrupt: somebody interrupted it; ``resume`` goes on.
        Terminated: SIGTERM did; every trial was saved before.
    """
    described, out = check(agent, simulator, settings, out), out.resolve()
    with begin(out, described):
        return start(RunFolder(out), progress, trackers)


@contextmanager
def begin(out: Path, described: Mapping[str, Any]) -> Iterator[None]:
    """Make the folder ``out``, hold it, and let it say what it is: ``described`` is its ``run.json``.

    Raises:
        UserError: it cannot be made, or another process holds it.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {out}: {error.strerror}") from None
    with only_one(out):
        write_run(out, described)
        yield


@contextmanager
def only_one(out: Path) -> Iterator[None]:
    """Hold the run folder ``out``: two processes would write into each other's checkpoints."""
    with (out / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"another process is training {out}") from None
        yield


def _rllib_config(agent: Agent, simulator: Location, settings: TrainSettings[Any]) -> Any:
    config = agent.rllib_config().recommender(str(simulator), settings)
    try:
        config.validate()
    except ValueError as error:  # settings that do not fit each other
        raise UserError(str(error)) from None
    return config


def start(
    run: RunFolder,
    progress: Progress,
    trackers: Sequence[Callback] = (),
    checkpoint: Path | None = None,
) -> RunFolder:
    """Have Tune train what the folder ``run`` describes, from ``checkpoint`` on if there is one.

    Raises:
        As ``fit``.
    """
    settings = run.settings
    with quiet():
        config = _rllib_config(run.agent, run.simulator, settings)

    begins = [] if checkpoint is None else [StartFrom(checkpoint)]

    def begun(storage: Mapping[str, Any]) -> Tuner:
        return Tuner(
            config.algo_class,
            param_space=config,
            tune_config=TuneConfig(trial_name_creator=_trial_name, trial_dirname_creator=_trial_name),
            run_config=RunConfig(
                **storage,
                stop={NUM_ENV_STEPS_SAMPLED_LIFETIME: settings.steps},
                checkpoint_config=CheckpointConfig(
                    num_to_keep=2,
                    checkpoint_frequency=math.ceil(settings.checkpoint_every / settings.report_every),
                    checkpoint_at_end=True,
                ),
                failure_config=FailureConfig(max_failures=RETRIES),
                callbacks=[_ReportProgress(), *begins, *always(), *trackers],
                verbose=0,
            ),
        )

    return fit(begun, run, progress)


def _trial_name(trial: Any) -> str:
    return TRIAL


def fit(make_tuner: Callable[[Mapping[str, Any]], Tuner], run: RunFolder, progress: Progress) -> RunFolder:
    """Run Tune to the end of ``run``; ``make_tuner`` is given where Tune has it, for ``RunConfig``.

    Raises:
        TrainingFailedError: the trial failed for good.
        KeyboardInterrupt: somebody interrupted it.
        Terminated: SIGTERM did.
    """
    with (
        quiet(),
        _ReportProgress.to(progress),
        SaveWhenTold.on_sigterm(),
        Failures.noted() as failures,
        tune_storage(run.path) as storage,
    ):
        try:
            results: ResultGrid = make_tuner(storage).fit()
        except (OSError, *UNREADABLE) as error:  # of Tune's own notes
            raise _failed(run, failures.get(TRIAL, error)) from None
    if failures:
        raise _failed(run, failures[TRIAL])
    # Tune ends its loop on Ctrl-C and returns as if all were well.
    if (results[0].metrics or {}).get(NUM_ENV_STEPS_SAMPLED_LIFETIME, 0) < run.settings.steps:
        raise KeyboardInterrupt
    tidy(run.trial)
    run.mark_finished()
    return run


def _failed(run: RunFolder, error: BaseException) -> TrainingFailedError:
    left = "it had saved no checkpoint yet"
    if not run.path.exists():
        left = "the folder is gone; once it is back, go on with --resume"
    elif any(run.whole_checkpoints()):
        left = "its last checkpoint is kept; once the cause is gone, go on with --resume"
    elif copy_of(run.path) is not None:  # it may lag behind the URL
        left = "what it has saved is kept; once the cause is gone, go on with --resume"
    return TrainingFailedError(f"training failed: {last_line(error)} ({run.path}: {left})")


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
