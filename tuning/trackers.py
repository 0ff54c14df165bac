"""Experiment trackers beside TensorBoard, which every trial's folder holds: Tune's callbacks, by name."""

import functools
import logging
import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from ray.tune import Callback

from envs.errors import UserError

TRACKERS = ("wandb", "mlflow")
_LOG = logging.getLogger(__name__)


def make_trackers(names: Sequence[str], experiment: str) -> list[Callback]:
    """Callbacks that send every result to trackers.

    Where to and as whom is each tracker's own business: ``WANDB_API_KEY``, ``WANDB_PROJECT``, ``WANDB_MODE``,
    ``MLFLOW_TRACKING_URI``.

    Args:
        names: of ``TRACKERS``.
        experiment: W&B's group and MLflow's experiment.

    Raises:
        UserError: a tracker that is unknown, not installed, or that cannot be reached.
    """
    made: list[Callback] = []
    for name in dict.fromkeys(names):
        if name not in TRACKERS:
            raise UserError(f"unknown tracker {name!r}; use {' or '.join(TRACKERS)}")
        found = find_spec(name)
        if found is None or found.origin is None:  # W&B leaves folders of its own name behind
            raise UserError(f"--track {name} needs a package more: pip install 'rl-rec[{name}]'")
        made.append(Guarded(name, _wandb(experiment) if name == "wandb" else _mlflow(experiment)))
    return made


class Guarded(Callback):
    """A tracker whose failures cost its own records alone: Tune would fail the trial that it was told about."""

    def __init__(self, name: str, tracker: Callback) -> None:
        self._name, self._tracker = name, tracker
        self._failed = False

    def setup(self, *args: Any, **info: Any) -> None:
        """Called by Tune before the first trial; what fails here is the user's to know."""
        self._tracker.setup(*args, **info)

    def _tell(self, hook: str, *args: Any, **info: Any) -> None:
        try:
            getattr(self._tracker, hook)(*args, **info)
        except Exception as error:
            if not self._failed:
                _LOG.warning(
                    "%s lost results, training goes on: %s: %s", self._name, type(error).__name__, error
                )
            self._failed = True


for _hook in (
    "on_trial_start",
    "on_trial_result",
    "on_trial_save",
    "on_trial_restore",
    "on_trial_complete",
    "on_trial_error",
    "on_experiment_end",
):
    setattr(Guarded, _hook, functools.partialmethod(Guarded._tell, _hook))


def _wandb(experiment: str) -> Callback:
    import wandb
    from ray.air.integrations.wandb import WandbLoggerCallback

    mode = os.environ.get("WANDB_MODE")
    if mode not in ("offline", "disabled", "dryrun") and not wandb.login(prompt=False):
        raise UserError("W&B knows no key: run wandb login, set WANDB_API_KEY, or WANDB_MODE=offline")
    made: Callback = WandbLoggerCallback(
        project=os.environ.get("WANDB_PROJECT", "rl-rec"),
        group=experiment,
        mode=mode,  # it logs from a process of its own, which may not share this one's environment
    )
    return made


def _mlflow(experiment: str) -> Callback:
    # By default an address that nobody answers is asked for minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    import mlflow
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    uri = os.environ.get("MLFLOW_TRACKING_URI")
    try:  # before anything is written
        mlflow.MlflowClient(uri).search_experiments(max_results=1)
    except mlflow.exceptions.MlflowException as error:
        raise UserError(f"MLflow cannot track to {uri or 'its default place'}: {error.message}") from None
    made: Callback = MLflowLoggerCallback(tracking_uri=uri, experiment_name=experiment)
    return made
