"""How often a trial that failed goes on from its newest checkpoint before it is reported."""

from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

RETRIES = 1
"""Failures in a row, without a checkpoint between them, that are tried again."""


class CountInARow(Callback):
    """Forgives a trial its failures once it has saved again.

    Tune counts over a trial's whole life: on a cluster whose nodes come and go, every long one would fail.
    """

    def on_trial_save(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Called by Tune."""
        trial.run_metadata.num_failures = 0
