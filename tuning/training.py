"""Training under Ray Tune: one run is a sweep of one trial."""

import fcntl
import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

from pyarrow.fs import LocalFileSystem
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME
from ray.train._internal.session import _TrainingResult
from ray.tune import (
    Callback,
    Checkpoint,
    CheckpointConfig,
    ExperimentAnalysis,
    FailureConfig,
    ResultGrid,
    RunConfig,
    TuneConfig,
    Tuner,
)
from ray.tune.logger import JsonLoggerCallback
from ray.tune.result import DONE, SHOULD_CHECKPOINT, TRAINING_ITERATION

from envs import world_folder
from envs.data.dataset import Split
from envs.errors import UserError
from envs.progress import Progress, silent
from envs.simulator import Simulator
from envs.storage.filesystem import once, upload
from envs.storage.location import Location
from envs.storage.working_copy import copy_of
from envs.world_folder import FittedWorld
from rl_rec import metrics as names
from rl_rec.agents import Agent
from rl_rec.provenance import describe_run, write_run
from rl_rec.run_folder import RESULTS, START, TRIAL, RunFolder, whole_lines
from rl_rec.train_settings import TrainSettings
from tuning.retries import RETRIES, UNREADABLE, Failures
from tuning.termination import SaveWhenTold
from tuning.trial import keep_results, tidy

_LOCK = ".lock"
_log = logging.getLogger(__name__)


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
    if not untouched(out):
        raise UserError(f"{out} exists already; name another folder, or go on with: {resume} --resume {out}")
    parent = next(folder for folder in out.parents if folder.exists())
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
        return _start(RunFolder(out), progress, trackers)


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


def _go_on(run: RunFolder, progress: Progress) -> RunFolder:
    if (results := run.trial / RESULTS).exists():
        results.write_bytes(whole_lines(results))  # Tune appends
    if not _mend(run):
        start = _set_aside(run)
        for left in (*run.path.glob("experiment_state-*.json"), run.path / "tuner.pkl"):
            left.unlink(missing_ok=True)
        return _start(run, progress, start=start)
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

    return _run(restored, run, progress)


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
    start, whole = run.trial / START, next(run.whole_checkpoints(), None)
    if whole is None:
        shutil.rmtree(run.trial, ignore_errors=True)
        return None
    if whole != start:
        shutil.rmtree(start, ignore_errors=True)
        whole.rename(start)
    keep_results(run.trial)
    for left in run.checkpoints():
        shutil.rmtree(left)
    return start


def _rllib_config(agent: Agent, simulator: Location, settings: TrainSettings[Any]) -> Any:
    config = agent.rllib_config().recommender(str(simulator), settings)
    try:
        config.validate()
    except ValueError as error:  # settings that do not fit each other
        raise UserError(str(error)) from None
    return config


def _start(
    run: RunFolder, progress: Progress, trackers: Sequence[Callback] = (), start: Path | None = None
) -> RunFolder:
    settings = run.settings
    with quiet():
        config = _rllib_config(run.agent, run.simulator, settings)

    begins = [] if start is None else [_StartFrom(start)]

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

    return _run(begun, run, progress)


def _trial_name(trial: Any) -> str:
    return TRIAL


@contextmanager
def tune_storage(folder: Path) -> Iterator[dict[str, Any]]:
    """Where Tune has the experiment ``folder``, for ``RunConfig``: every node must be able to write there.

    In a working copy that is the URL, which gets what changed before the block, and gives what changed in it.
    """
    copy = copy_of(folder)
    if copy is None:
        yield {"name": folder.name, "storage_path": str(folder.parent)}
        return
    copy.push()
    filesystem, around = copy.on_storage(folder.parent)
    try:
        yield {"name": folder.name, "storage_path": around, "storage_filesystem": filesystem}
    except BaseException:
        with suppress(OSError, UserError):  # what is told is why Tune failed
            copy.pull()
        raise
    copy.pull()


def _run(make_tuner: Callable[[Mapping[str, Any]], Tuner], run: RunFolder, progress: Progress) -> RunFolder:
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
    return TrainingFailedError(f"training failed: {last_line(error)} ({run.path}: {left})")


@contextmanager
def quiet() -> Iterator[None]:
    """Leave the terminal to our progress: no tables, notices and tracebacks of Tune and RLlib in the block.

    ``RL_REC_TRACEBACK=1`` lets their errors through.
    """
    level = logging.ERROR if os.environ.get("RL_REC_TRACEBACK") else logging.CRITICAL
    loggers = {name: logging.getLogger(name) for name in ("ray.rllib", "ray.tune")}
    levels = {name: logger.level for name, logger in loggers.items()}
    for logger in loggers.values():
        logger.setLevel(level)
    # Tune's newer output engine prints its tables even at verbose=0.
    before = os.environ.get("RAY_AIR_NEW_OUTPUT")
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    try:
        yield
    finally:
        for name, logger in loggers.items():
            logger.setLevel(levels[name])
        if before is None:
            del os.environ["RAY_AIR_NEW_OUTPUT"]
        else:
            os.environ["RAY_AIR_NEW_OUTPUT"] = before


def last_line(error: BaseException) -> str:
    """The message of what was raised in the trial, without the tracebacks around it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    raised = lines[-1] if lines else type(error).__name__
    name, _, message = raised.partition(": ")
    return message if message and name.rpartition(".")[2].endswith("Error") else raised


class ResultsFirst(JsonLoggerCallback):
    """Writes a trial's results as Tune does, and stores them before every checkpoint that they are of.

    Tune copies them there only now and then: the checkpoint of a driver that dies would have none.
    """

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        """Called by Tune before it has the trial save."""
        super().log_trial_result(iteration, trial, result)
        due = trial.checkpoint_freq and result[TRAINING_ITERATION] % trial.checkpoint_freq == 0
        if due or result.get(DONE) or result.get(SHOULD_CHECKPOINT):
            self._store(trial)

    def on_checkpoint(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Called by Tune, also for those that a scheduler asked for by itself."""
        self._store(trial)

    def _store(self, trial: Any) -> None:
        staged, storage = Path(trial.local_path) / RESULTS, trial.storage
        with suppress(OSError):  # the disk is full, say: the next checkpoint brings them along
            if storage.custom_fs_provided:
                with staged.open("rb") as results:
                    upload(once(storage.storage_filesystem), results, f"{storage.trial_fs_path}/{RESULTS}")
                return
            draft = Path(storage.trial_fs_path) / f".{RESULTS}"
            shutil.copyfile(staged, draft)
            draft.replace(draft.with_name(RESULTS))


class _StartFrom(Callback):
    """Has the trial begin with the checkpoint ``start``, wherever it runs: Tune takes a local path alone."""

    def __init__(self, start: Path) -> None:
        copy = copy_of(start)
        filesystem, path = (LocalFileSystem(), str(start)) if copy is None else copy.on_storage(start)
        self._start = Checkpoint(path, filesystem)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Called by Tune before it restores the newest checkpoint that it knows of."""
        if trial.checkpoint is None:
            trial._restore_checkpoint_result = _TrainingResult(self._start, {})


class TellUnsaved(Callback):
    """Says which checkpoints could not be stored."""

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        """Called by Tune after each report."""
        if names.UNSAVED in result:
            behind = result.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, 0)
            _log.warning(
                "%s goes on at %s user-steps without having stored its latest checkpoint: %s",
                trial,
                f"{behind:,}",
                result[names.UNSAVED],
            )

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Called by Tune, also for those that a scheduler stopped, whose last checkpoint may be missing."""
        ended, newest = trial.last_result or {}, trial.latest_checkpoint_result
        stored = {} if newest is None else newest.metrics
        if stored.get(TRAINING_ITERATION) != ended.get(TRAINING_ITERATION):
            _log.warning(
                "%s ended after %s user-steps without having stored its last checkpoint: its newest has %s",
                trial,
                f"{ended.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, 0):,}",
                f"{stored.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, 0):,}",
            )


def always() -> list[Callback]:
    """What every experiment of Tune calls: who asks for a checkpoint before who looks for one."""
    return [TellUnsaved(), SaveWhenTold(), Failures(), ResultsFirst()]


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
