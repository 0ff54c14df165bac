"""What Ray Tune costs: the same training driven by a plain loop, and as one trial."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from ray.tune import Callback

from envs.progress import Progress
from rl_rec.agents import Agent
from rl_rec.train_settings import TrainSettings
from tuning.trial import trial_config
from tuning.trials import run_trials


def measure_overhead(
    agent: Agent, simulator: Path, settings: TrainSettings[Any], repeats: int, progress: Progress
) -> dict[str, Any]:
    """Seconds of both, in turns; both report and save as often as ``settings`` say. Needs a running Ray.

    Args:
        agent: what is trained.
        simulator: where.
        settings: how long, and everything else.
        repeats: rounds.
        progress: told after every round.

    Returns:
        Medians: ``loop_s`` of the plain loop; ``tune_s`` from the start of the trial's first iteration to its
        end; ``overhead``, what the latter takes more, as a share; ``start_s`` from asking for the trial to its
        first iteration (a process, imports, the algorithm); ``end_s`` from the trial's end to Tune's.
    """
    rounds: list[dict[str, float]] = []
    for done in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            loop_s = _loop(agent, simulator, settings, Path(folder))
        with tempfile.TemporaryDirectory() as folder:
            seen = _tune(agent, simulator, settings, Path(folder))
        rounds.append({"loop_s": loop_s, **seen, "overhead": seen["tune_s"] / loop_s - 1})
        progress(done + 1, repeats, "rounds")
    return {
        **{name: median(entry[name] for entry in rounds) for name in rounds[0]},
        "overheads": [entry["overhead"] for entry in rounds],
        "user_steps": settings.steps,
        "reports": -(-settings.steps // settings.report_every),
        "checkpoints": -(-settings.steps // settings.checkpoint_every),
    }


def _loop(agent: Agent, simulator: Path, settings: TrainSettings[Any], folder: Path) -> float:
    algorithm = agent.rllib_config().recommender(str(simulator), settings).build_algo()
    every = -(-settings.checkpoint_every // settings.report_every)
    began = time.perf_counter()
    while algorithm.collected < settings.steps:
        algorithm.train()
        if algorithm.iteration % every == 0 or algorithm.collected >= settings.steps:
            checkpoint = folder / f"checkpoint_{algorithm.iteration:06d}"
            checkpoint.mkdir()
            algorithm.save_checkpoint(str(checkpoint))
    took = time.perf_counter() - began
    algorithm.stop()
    return took


def _tune(agent: Agent, simulator: Path, settings: TrainSettings[Any], folder: Path) -> dict[str, float]:
    watch = _Watch(time.perf_counter)
    out = folder / "trials"
    out.mkdir()
    config = trial_config("trial", agent, settings, simulator, {})
    asked = time.perf_counter()
    run_trials({"trial": config}, settings, out, 1, [watch])
    return {
        "tune_s": watch.ended - watch.first,
        "start_s": watch.first - asked,
        "end_s": time.perf_counter() - watch.ended,
    }


class _Watch(Callback):
    """When the trial's first iteration began, and when the trial was over."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.first = self.ended = 0.0

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        """Called by Tune."""
        if not self.first:
            self.first = self._clock() - float(result["time_this_iter_s"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Called by Tune, once the last checkpoint is written."""
        self.ended = self._clock()
