"""How training's throughput grows with env runners and learners: one measured block of training per point."""

import math
import os
import platform
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

from envs.counted import counted
from envs.errors import UserError
from envs.notice import NOTICE
from envs.progress import Progress
from envs.storage.location import Location
from rl_rec import metrics as names
from rl_rec.agents import Agent
from rl_rec.algorithm import OffPolicyAlgorithm
from rl_rec.provenance import package_versions
from rl_rec.train_settings import TrainSettings
from tuning.experiment import quiet
from tuning.scaling_model import Costs, Layout

_PARTS = (names.ROLLOUT_S, names.REPLAY_S, names.UPDATE_S, names.SYNC_S)
_FRAGMENT_FIGURES = (
    names.SAMPLE_LATENCY_S,
    names.SAMPLE_S,
    names.WEIGHTS_LATENCY_S,
    names.STALENESS_UPDATES,
)
_PROCESSES = ("driver", "runner", "learner")
_ENDLESS = 10**9


def named(what: str, learners: int) -> str:
    """``what`` with its remote learners, where it has any."""
    return f"{what}, {counted(learners, 'learner')}" if learners else what


@dataclass(frozen=True)
class Point:
    """One layout to measure."""

    runners: int
    mode: str
    learners: int

    def __str__(self) -> str:
        return named(f"{self.runners} {self.mode}" if self.runners else "local", self.learners)

    def settings(self, base: TrainSettings[Any]) -> TrainSettings[Any]:
        """The run of this point: endless, without evaluations, whole rounds of fragments between reports.

        Raises:
            UserError: the layout does not fit the other settings.
        """
        rollout = base.rollout
        a_round = rollout.users * rollout.fragment * max(self.runners, 1)
        changes = {
            "steps": _ENDLESS,
            "report_every": -(-base.report_every // a_round) * a_round,
            "evaluation.every": 0,
            "rollout.runners": self.runners,
            "rollout.mode": self.mode,
            "resources.learners": self.learners,
        }
        if not self.runners:
            changes |= {"rollout.in_flight": "null", "rollout.sync_every": 1, "resources.runner_gpus": 0}
        return base.with_overrides([f"{name}={value}" for name, value in changes.items()])

    def layout(self, settings: TrainSettings[Any], cores: float) -> Layout:
        """What the model predicts."""
        return Layout(
            runners=self.runners,
            mode=self.mode,
            in_flight=settings.rollout.requests,
            learners=self.learners,
            ratio=settings.replay.ratio,
            batch_size=settings.replay.batch_size,
            sync_every=settings.rollout.sync_every,
            cores=cores,
        )


def points(runners: Sequence[int], modes: Sequence[str], learners: Sequence[int]) -> list[Point]:
    """All combinations, each preceded by the local baseline (no runners, which know no mode)."""
    return [
        point
        for count in learners
        for point in (
            Point(0, "sync", count),
            *(Point(number, mode, count) for mode in modes for number in runners if number),
        )
    ]


@dataclass
class _Seconds:
    """Of the calls of one method in the driver."""

    wall: float = 0.0
    cpu: float = 0.0
    """Of the calling thread."""
    count: int = 0


def measure_point(
    agent: Agent, simulator: Location, settings: TrainSettings[Any], seconds: float
) -> dict[str, Any]:
    """One block of training, after everything that happens once. Needs a running Ray.

    Args:
        agent: what is trained.
        simulator: where.
        settings: of a ``Point``.
        seconds: how long at least; whole reports are measured.

    Returns:
        Plain data: throughput (``None`` where the replay ratio was not held), latencies in seconds, shares of
        the driver's time by part, CPU time by process, and what the model needs (``costs``).

    Raises:
        UserError: an env runner died meanwhile.
    """
    with quiet():
        algorithm = agent.rllib_config().recommender(str(simulator), settings).build_algo()
    try:
        while algorithm.updates == 0:
            algorithm.train()
        with _watched(algorithm) as watched:
            return _measure(algorithm, settings, seconds, watched)
    finally:
        if not NOTICE.given:  # then the session's end stops the actors, which Ray may no longer reach
            algorithm.stop()


def _measure(
    algorithm: OffPolicyAlgorithm, settings: TrainSettings[Any], seconds: float, watched: dict[str, _Seconds]
) -> dict[str, Any]:
    cpu_before, collected = _cpu_seconds(algorithm), algorithm.collected
    algorithm.train()  # takes what the runners did meanwhile: counted in the block, it would flatter it
    results: list[dict[str, Any]] = []
    for name in watched:
        watched[name] = _Seconds()
    user_steps, updates, began = algorithm.collected, algorithm.updates, time.perf_counter()
    while (took := time.perf_counter() - began) < seconds or not results:
        results.append(algorithm.train())
    user_steps, updates = algorithm.collected - user_steps, algorithm.updates - updates
    cpu_after = _cpu_seconds(algorithm)
    if cpu_after.keys() != cpu_before.keys():
        raise UserError("an env runner died while it was measured: look at Ray's logs, and measure again")
    share = user_steps / (algorithm.collected - collected)  # of what was collected between the two readings
    cpu = {name: (after - cpu_before[name]) * share for name, after in cpu_after.items()}
    due = settings.replay.updates_due(algorithm.collected)
    held = algorithm.updates == due
    parts = {name: sum(_reported(results, name)) for name in _PARTS}
    rest = took - sum(parts.values())
    busiest = max(cpu.values())
    row_bytes = sum(column[0].nbytes for column in algorithm.replay.columns.values())
    rows = settings.rollout.users * settings.rollout.fragment
    learner_cpu = [value for name, value in cpu.items() if name.startswith("learner")]
    figures: dict[str, Any] = {
        "user_steps_per_s": user_steps / took if held else None,
        "per_busiest_cpu_s": user_steps / busiest if held else None,
        "updates_per_s": updates / took,
        "replay_ratio": updates * settings.replay.batch_size / user_steps,
        "ratio_held": held,
        "seconds": took,
        "user_steps": user_steps,
        "updates": updates,
        **{_plain(name): value / took for name, value in parts.items()},
        "rest": rest / took,
        "learner_idle": 1 - (statistics.fmean(learner_cpu) if learner_cpu else parts[names.UPDATE_S]) / took,
        **{_plain(name): _mean(results, name) for name in _FRAGMENT_FIGURES},
        "fragment_bytes": rows * row_bytes,
        "weights_bytes": _bytes(algorithm._weights()),
        **{f"cpu_{name}_us_per_user_step": 1e6 * value / user_steps for name, value in _grouped(cpu).items()},
    }
    seen = {name: replace(seconds) for name, seconds in watched.items()}
    update_fixed = 1.0 if settings.resources.learners else _fixed_share(algorithm, settings)
    for name, by_cpu in (("costs", False), ("costs_cpu", True)):
        figures[name] = vars(_costs(algorithm, settings, figures, seen, update_fixed, by_cpu))
    return figures


def _costs(
    algorithm: OffPolicyAlgorithm,
    settings: TrainSettings[Any],
    figures: Mapping[str, Any],
    seen: Mapping[str, _Seconds],
    update_fixed: float,
    by_cpu: bool,
) -> Costs:
    """What each part took, by the clock on the wall or in CPU seconds."""
    took = {name: seconds.cpu if by_cpu or name == "take" else seconds.wall for name, seconds in seen.items()}
    rows, updates = settings.rollout.users * settings.rollout.fragment, max(figures["updates"], 1)
    fragments = figures["user_steps"] / rows
    latency, update = 0.0, took["update"] / updates
    used = {
        name: figures[f"cpu_{name}_us_per_user_step"] * 1e-6 * rows for name in ("driver", "runner", "learner")
    }
    waited = seen["take"].wall - took["take"]
    rest = (used["driver"] * fragments if by_cpu else figures["seconds"] - waited) - sum(took.values())
    if not settings.rollout.runners:
        runner = took["local"] / fragments
    else:
        runner = used["runner"] if by_cpu else figures["sample_s"]
        if not by_cpu:  # a request waits for those before it
            latency = max(figures["sample_latency_s"] - settings.rollout.requests * runner, 0.0)
    if by_cpu and settings.resources.learners:
        update = used["learner"] * fragments / updates / settings.resources.learners
    return Costs(
        rows=rows,
        runner_s=runner,
        latency_s=latency,
        handle_s=(took["take"] + took["add"]) / fragments,
        send_s=took["ask"] / fragments,
        publish_s=took["publish"] / max(seen["publish"].count, 1),
        update_s=update + took["draw"] / updates,
        update_fixed=update_fixed,
        report_s=max(rest, 0.0) / figures["user_steps"],
        fragment_bytes=figures["fragment_bytes"],
        weights_bytes=figures["weights_bytes"],
        gradient_bytes=sum(weights.nbytes for weights in _parameters(algorithm)),
        store_bytes_per_s=_store_bytes_per_s() if settings.rollout.runners else np.inf,
    )


@contextmanager
def _watched(algorithm: OffPolicyAlgorithm) -> Iterator[dict[str, _Seconds]]:
    """What the driver's methods take, measured from outside while the block runs."""
    seen = {name: _Seconds() for name in ("local", "ask", "take", "publish", "add", "draw", "update")}

    def watch(holder: Any, method: str, name: str) -> None:
        original = getattr(holder, method)

        def timed(*arguments: Any, **named: Any) -> Any:
            wall, cpu = time.perf_counter(), time.thread_time()
            try:
                return original(*arguments, **named)
            finally:
                seconds = seen[name]
                seconds.wall += time.perf_counter() - wall
                seconds.cpu += time.thread_time() - cpu
                seconds.count += 1

        setattr(holder, method, timed)

    watch(algorithm.replay, "add", "add")
    watch(algorithm.replay, "sample", "draw")
    watch(algorithm.learner_group, "update", "update")
    if algorithm.fragments is None:
        watch(algorithm.env_runner, "sample", "local")
    else:
        watch(algorithm.fragments, "ask", "ask")
        watch(algorithm.fragments, "take", "take")
        watch(algorithm, "_sync_weights", "publish")
    yield seen


def _cpu_seconds(algorithm: OffPolicyAlgorithm) -> dict[str, float]:
    """CPU seconds of every process so far; waits until the runners have done what they were asked."""
    group = algorithm.env_runner_group
    assert group is not None
    used = {"driver": time.process_time()}
    if algorithm.fragments is not None:
        asked = group.foreach_env_runner(lambda runner: time.process_time(), local_env_runner=False)
        used |= {f"runner {index}": seconds for index, seconds in enumerate(asked)}
    if algorithm.config.num_learners:
        answers = algorithm.learner_group.foreach_learner(lambda learner: time.process_time())
        used |= {f"learner {index}": answer.get() for index, answer in enumerate(answers)}
    return used


def _grouped(cpu: Mapping[str, float]) -> dict[str, float]:
    groups = dict.fromkeys(_PROCESSES, 0.0)
    for name, seconds in cpu.items():
        kind = name.split()[0]
        groups[kind] += seconds
    return groups


def _fixed_share(algorithm: OffPolicyAlgorithm, settings: TrainSettings[Any], tries: int = 5) -> float:
    """The share of an update's time that half of the batch takes as well."""
    learner, batch = algorithm.learner_group._learner, settings.replay.batch_size
    if batch < 2:
        return 1.0
    module_id = next(iter(learner.module.keys()))
    taken: dict[int, list[float]] = {batch: [], batch // 2: []}
    for _ in range(tries):
        for rows, times in taken.items():
            sample = {module_id: algorithm.replay.sample(rows)}
            if learner.device.type == "cuda":
                torch.cuda.synchronize()
            began = time.perf_counter()
            learner._uncompiled_update(sample)
            if learner.device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - began)
    whole, half = (statistics.median(times) for times in taken.values())
    return min(max((2 * half - whole) / whole, 0.0), 1.0)


def _parameters(algorithm: OffPolicyAlgorithm) -> list[torch.Tensor]:
    (answer, *_) = algorithm.learner_group.foreach_learner(
        lambda learner: [weights.detach().cpu() for weights in learner._weights]
    )
    return list(answer.get())


def _store_bytes_per_s(size: int = 2**23, tries: int = 5) -> float:
    block, taken = np.zeros(size, np.uint8), []
    for _ in range(tries):
        began = time.perf_counter()
        ray.put(block)
        taken.append(time.perf_counter() - began)
    return size / statistics.median(taken)


def _bytes(tree: Any) -> int:
    if isinstance(tree, Mapping):
        return sum(_bytes(value) for value in tree.values())
    return int(getattr(tree, "nbytes", 0))


def _mean(results: Sequence[Mapping[str, Any]], name: str) -> float | None:
    values = _reported(results, name)
    return statistics.fmean(values) if values else None


def _reported(results: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """A figure of every iteration that had it; RLlib reports NaN for the others."""
    values = [float(result[name]) for result in results if name in result]
    return [value for value in values if math.isfinite(value)]


def _plain(name: str) -> str:
    return name.removeprefix("time/")


def hardware() -> dict[str, Any]:
    """What the figures were measured on: plain data, read before the measurement starts."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    return {
        "cpu_model": _cpu_model(),
        "cores": cores(),
        "memory_gb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
        "nodes": [
            {name: node["Resources"].get(name, 0.0) for name in ("CPU", "GPU", "memory", "object_store_memory")}
            for node in nodes
        ],
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "load_average": list(os.getloadavg()),
        "versions": package_versions(),
    }


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def measure_all(
    agent: Agent,
    simulator: Location,
    runs: Mapping[Point, TrainSettings[Any]],
    seconds: float,
    repeats: int,
    progress: Progress,
) -> Iterator[tuple[Point, dict[str, Any]]]:
    """Every point ``repeats`` times, in turns: what else the machine does falls on all alike."""
    for done in range(repeats):
        for index, (point, settings) in enumerate(runs.items()):
            progress(done * len(runs) + index, repeats * len(runs), f"now {point}")
            yield point, measure_point(agent, simulator, settings, seconds)
    progress(repeats * len(runs), repeats * len(runs))


def check_counts(runners: Sequence[int]) -> None:
    """Refuse what cannot be compared.

    Raises:
        UserError: a count twice, a negative one, or no 1.
    """
    given = ",".join(map(str, runners))
    if any(count < 0 for count in runners) or len(set(runners)) < len(runners):
        raise UserError(f"--runners {given}: give each count once, e.g. 1,2,4")
    if 1 not in runners:
        raise UserError(f"--runners {given}: leave 1 among them, which the others are compared with")
