"""Which candidates of a search go on: Tune's schedulers, taught what happened before a restart."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    PopulationBasedTraining,
    TrialScheduler,
)

from tuning.search import Axis, Search, draw
from tuning.sweep import Value
from tuning.trial import CANDIDATE, SCORE, VALUES

History = Mapping[str, Sequence[tuple[int, float]]]
"""By candidate, its looks: user-steps and score."""

_REDRAW = 0.25
_FACTORS = (0.8, 1.25)


def make_scheduler(search: Search, history: History) -> TrialScheduler:
    """The scheduler that a search asks for.

    Args:
        search: the search.
        history: looks of an earlier start, which a scheduler compares with as with its own.
    """
    if search.scheduler == "asha":
        return ResumedASHA(search, history)
    if search.scheduler == "pbt":
        return PopulationBasedTraining(
            time_attr=NUM_ENV_STEPS_SAMPLED_LIFETIME,
            metric=SCORE,
            mode="max",
            perturbation_interval=search.interval,
            custom_explore_fn=perturbation(search),
            log_config=False,
        )
    return FIFOScheduler()


class ResumedASHA(AsyncHyperBandScheduler):
    """Asynchronous successive halving (Li et al., 2020, arXiv 1810.05934) that knows earlier looks.

    Tune stores no scheduler's state: after a restart the first candidates would face empty rungs.
    """

    def __init__(self, search: Search, history: History) -> None:
        super().__init__(
            time_attr=NUM_ENV_STEPS_SAMPLED_LIFETIME,
            metric=SCORE,
            mode="max",
            max_t=search.steps,
            grace_period=search.interval,
            reduction_factor=search.reduction,
        )
        self._history = dict(history)
        for name in self._history:
            self._recall(name, _Past(name))

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Called by Tune: a candidate that goes on brings its looks along, under its new id."""
        super().on_trial_add(tune_controller, trial)
        if str(trial) in self._history:
            for _, recorded in self._brackets[0]._rungs:
                recorded.pop(_Past(str(trial)).trial_id, None)
            self._recall(str(trial), trial)

    def _recall(self, name: str, trial: Any) -> None:
        for user_steps, score in self._history[name]:
            self._brackets[0].on_result(trial, user_steps, score)


class _Past:
    """A candidate of an earlier start."""

    def __init__(self, name: str) -> None:
        self.trial_id = f"past {name}"


def perturbation(search: Search) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Population-based training's exploration (Jaderberg et al., 2017, arXiv 1711.09846), inside the ranges.

    A value is drawn anew with probability 0.25; otherwise a number is multiplied by 0.8 or 1.25 and a listed
    value gives way to a neighbour. Tune's own leaves the ranges. Which donor a member copies depends on Tune
    and on who is ahead when: two populations of the same seed differ.
    """
    generator = np.random.default_rng([search.seed, 1])

    def explore(config: dict[str, Any]) -> dict[str, Any]:
        values = {
            path: _perturb(config[CANDIDATE][VALUES][path], axis, generator)
            for path, axis in search.space.items()
        }
        return {**config, CANDIDATE: {**config[CANDIDATE], VALUES: values}}

    return explore


def _perturb(value: Value, axis: Axis, generator: np.random.Generator) -> Value:
    if generator.random() < _REDRAW:
        return draw(axis, generator)
    if isinstance(axis, tuple):
        place = axis.index(value) + int(generator.choice((-1, 1)))
        return axis[min(max(place, 0), len(axis) - 1)]
    return axis.clip(float(value) * float(generator.choice(_FACTORS)))
