"""Told to end (SIGTERM, as a spot machine gets shortly before it goes away): save what is running, then end."""

import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import ray
from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.result import SHOULD_CHECKPOINT

from envs.errors import Terminated
from envs.notice import NOTICE

PATIENCE_S = 18.0
"""How long trials may take to their next report and checkpoint: clouds give 30 s, Ray needs some to stop."""
_LOOP_S = 1.0
"""What Tune's loop takes to end, after which the end of a trial is no failure to it."""

_log = logging.getLogger(__name__)


class SaveWhenTold(Callback):
    """Has every trial that was running at the notice save at its next report; then Tune's loop ends.

    Tune stores callbacks with the experiment: what is going on is the class's.
    """

    _told: ClassVar[bool] = False
    _to_save: ClassVar[dict[str, str] | None] = None
    """By id, the names of those that ran at the notice and have not saved since."""
    _trials: ClassVar[Sequence[Trial]] = ()

    @classmethod
    @contextmanager
    def on_sigterm(cls) -> Iterator[None]:
        """Run Tune inside the block.

        Raises:
            Terminated: at the end of the block, if SIGTERM came meanwhile.
        """
        if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
            yield
            return
        cls._told, cls._to_save, cls._trials = False, None, ()
        NOTICE.withdraw()
        # Whatever Tune waits for: whoever sent the signal does not wait.
        last_calls = [threading.Timer(PATIENCE_S, _end_loop), threading.Timer(PATIENCE_S + _LOOP_S, cls._kill)]

        def tell(*_: object) -> None:
            if not cls._told:
                cls._told = True
                NOTICE.give()
                for last_call in last_calls:
                    last_call.daemon = True
                    last_call.start()

        before = signal.signal(signal.SIGTERM, tell)
        try:
            with NOTICE.last_words(cls._tell_unsaved):
                yield
        except Exception as problem:  # storage that is away as well, say: whoever ends it knows how it ended
            if not cls._told:
                raise
            _log.warning("the end was not noted: %s", problem)
        finally:
            signal.signal(signal.SIGTERM, before)
            for last_call in last_calls:
                last_call.cancel()
                if last_call.ident is not None:  # Ray stops next
                    last_call.join()
        if cls._told:
            cls._tell_unsaved()
            raise Terminated

    @classmethod
    def _kill(cls) -> None:
        """End trials that are still busy, for which Tune waits a quarter of a minute more."""
        for trial in cls._trials:
            if (actor := trial.temporary_state.ray_actor) is not None:
                ray.kill(actor)

    @classmethod
    def _tell_unsaved(cls) -> None:
        if cls._to_save:
            late = ", ".join(sorted(cls._to_save.values()))
            _log.warning("not stored in time, and to go on from an earlier checkpoint: %s", late)

    def on_step_begin(self, iteration: int, trials: list[Trial], **_: Any) -> None:
        """Called by Tune. Trials that start after the notice have nothing to lose."""
        type(self)._trials = trials
        if self._told and self._to_save is None:
            type(self)._to_save = {
                trial.trial_id: str(trial) for trial in trials if trial.status == Trial.RUNNING
            }

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        """Called by Tune, which saves a trial that asks for it before it goes on."""
        if self._told:
            result[SHOULD_CHECKPOINT] = True

    def on_checkpoint(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Called by Tune, not for a save that could not be stored."""
        if self._to_save is not None:
            self._to_save.pop(trial.trial_id, None)

    def on_step_end(self, iteration: int, trials: list[Trial], **_: Any) -> None:
        """Called by Tune."""
        if self._to_save is not None:
            running = {trial.trial_id for trial in trials if trial.status == Trial.RUNNING}
            if not self._to_save.keys() & running:
                _end_loop()


def _end_loop() -> None:
    """As Ctrl-C does: Tune notes the state of all trials and returns."""
    if callable(signal.getsignal(signal.SIGUSR1)):  # Tune's handler is there
        os.kill(os.getpid(), signal.SIGUSR1)
