"""Measuring throughput where other work shares the machine: variants take turns, medians are kept."""

import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from envs.progress import Progress
from rl_rec.bench.settings import BenchSettings

Clock: TypeAlias = Callable[[str], AbstractContextManager[None]]
"""Charges the time inside a ``with`` block to a named part."""


@dataclass(frozen=True)
class Rounds:
    """Units of work per second of one variant, a figure a round."""

    per_s: list[float]
    """By the clock on the wall."""
    per_cpu_s: list[float]
    """By the process's own CPU time: what other processes take does not count."""

    def summary(self) -> dict[str, float]:
        """Medians."""
        return {
            "user_steps_per_s": statistics.median(self.per_s),
            "user_steps_per_cpu_s": statistics.median(self.per_cpu_s),
        }


def measure(
    variants: Mapping[str, Callable[[], int]], repeats: int, device: str, progress: Progress
) -> dict[str, Rounds]:
    """Run each variant once to warm up, then ``repeats`` times in turns.

    Args:
        variants: by name, work that returns how many units (user-steps, rows) it did.
        repeats: measured rounds.
        device: waited for before the clock is read, and only then.
        progress: told after every round.
    """
    for work in variants.values():
        work()
    rounds: dict[str, Rounds] = {name: Rounds([], []) for name in variants}
    for done in range(repeats):
        for name, work in variants.items():
            synchronize(device)
            wall, cpu = time.perf_counter(), time.process_time()
            units = work()
            synchronize(device)
            rounds[name].per_s.append(units / (time.perf_counter() - wall))
            rounds[name].per_cpu_s.append(units / max(time.process_time() - cpu, 1e-9))
        progress(done + 1, repeats, "rounds")
    return rounds


def ratio(rounds: Mapping[str, Rounds], of: str, to: str, settings: BenchSettings[Any]) -> float:
    """How many times faster ``of`` is than ``to``, a median; by CPU time on one thread, else by the wall."""
    on_cpu = settings.device == "cpu" and settings.threads == 1
    return median_ratio(rounds[of], rounds[to], on_cpu)


def median_ratio(one: Rounds, other: Rounds, on_cpu: bool) -> float:
    """How many times faster ``one`` is than ``other``, a median over the rounds."""
    pairs = (
        zip(one.per_cpu_s, other.per_cpu_s, strict=True) if on_cpu else zip(one.per_s, other.per_s, strict=True)
    )
    return statistics.median(a / b for a, b in pairs)


class Split:
    """A ``Clock`` that waits for the device at both ends of every part."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Charge the time inside to ``part``."""
        synchronize(self._device)
        began = time.perf_counter()
        yield
        synchronize(self._device)
        self._seconds[part] = self._seconds.get(part, 0.0) + time.perf_counter() - began

    def shares(self) -> dict[str, float]:
        """Each part's share of the time."""
        total = sum(self._seconds.values())
        return {part: seconds / total for part, seconds in self._seconds.items()}


def synchronize(device: str) -> None:
    """Wait until the device has done its work."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def description(name: str, settings: BenchSettings[Any]) -> dict[str, Any]:
    """What was measured, where, and the memory it took."""
    gpu = settings.device.startswith("cuda")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB, on macOS bytes
    return {
        "benchmark": name,
        "device": settings.device,
        "device_name": torch.cuda.get_device_name(settings.device) if gpu else "cpu",
        "threads": torch.get_num_threads(),
        "peak_rss_mb": peak / (2**20 if sys.platform == "darwin" else 2**10),
        "peak_gpu_mb": torch.cuda.max_memory_allocated(settings.device) / 2**20 if gpu else None,
        "users": settings.users,
        "sizes": settings.world.model_dump(),
    }
