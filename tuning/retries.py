"""How often a trial that failed goes on from its newest checkpoint, and why it failed in the end."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from ray.tune import Callback, TuneError
from ray.tune.experiment import Trial

RETRIES = 1
"""Failures in a row, without a checkpoint between them, that are tried again."""
UNREADABLE = (EOFError, pickle.UnpicklingError)
"""What Tune's results raise where the disk had no room for a trial's error."""


class Failures(Callback):
    """Counts a trial's failures in a row, and notes those that are final.

    Tune counts over a trial's whole life: on a cluster whose nodes come and go, every long one would fail. And
    it reads errors back from the trial's folder, which may be full or gone.
    """

    _final: ClassVar[dict[str, BaseException]] = {}

    @classmethod
    @contextmanager
    def noted(cls) -> Iterator[dict[str, BaseException]]:
        """By name of its folder, why a trial failed inside the block."""
        cls._final = {}
        yield cls._final

    def on_checkpoint(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Called by Tune, not for a save that could not be stored."""
        trial.run_metadata.num_failures = 0

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Called by Tune, which has written the error beside its own notes."""
        self._final[Path(trial.path).name] = _error(trial)


def _error(trial: Trial) -> BaseException:
    try:
        error = pickle.loads(Path(trial.pickled_error_file).read_bytes())
        assert isinstance(error, BaseException)
        return error
    except Exception:  # none, or one that cannot be pickled
        return TuneError(Path(trial.error_file).read_text() if trial.error_file else "no reason is known")
