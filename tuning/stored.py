"""What of a trial lies on its storage, and when: results, checkpoints, and what it begins with."""

import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pyarrow.fs import LocalFileSystem
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from ray.train._internal.session import _TrainingResult
from ray.tune import Callback, Checkpoint
from ray.tune.logger import JsonLoggerCallback
from ray.tune.result import DONE, SHOULD_CHECKPOINT, TRAINING_ITERATION

from envs.notice import NOTICE
from envs.storage.filesystem import Stamp
from envs.storage.patience import upload_newest
from envs.storage.working_copy import copy_of
from rl_rec import metrics as names
from rl_rec.run_folder import RESULTS

_log = logging.getLogger(__name__)


class ResultsFirst(JsonLoggerCallback):
    """Writes a trial's results as Tune does, and stores them before every checkpoint that they are of.

    Tune copies them there only now and then: the checkpoint of a driver that dies would have none.
    """

    def __init__(self) -> None:
        super().__init__()
        self._stored: dict[str, Stamp] = {}  # what storage holds, by the trial's id
        self._failed = False  # at the last try

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
        if self._failed and NOTICE.given:  # all trials wait meanwhile, and have no time to lose
            return
        staged = Path(trial.local_path) / RESULTS
        try:
            status = staged.stat()
            version = (status.st_size, status.st_mtime_ns)
            if self._stored.get(trial.trial_id) != version:
                _put(staged, trial.storage)
                self._stored[trial.trial_id] = version
            self._failed = False
        except Exception as error:  # the disk is full, say, or what a package of fsspec raises
            self._failed = True
            _log.warning("%s: the next checkpoint brings its results along: %s", trial, error)


def _put(staged: Path, storage: Any) -> None:
    if storage.custom_fs_provided:
        # Signals are handled by the main thread, and not while it is inside Arrow: SIGTERM would go unheard.
        with ThreadPoolExecutor(1) as pool:
            target = f"{storage.trial_fs_path}/{RESULTS}"
            pool.submit(upload_newest, storage.storage_filesystem, staged, target).result()
        return
    draft = Path(storage.trial_fs_path) / f".{RESULTS}"
    shutil.copyfile(staged, draft)
    draft.replace(draft.with_name(RESULTS))


class StartFrom(Callback):
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
