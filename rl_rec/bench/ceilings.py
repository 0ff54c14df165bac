"""What a device can do at most, measured: arithmetic, memory, launches."""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from rl_rec.bench.measure import synchronize

_MATRIX = {"cuda": 8192, "cpu": 1024}
_COPIED = {"cuda": 1 << 30, "cpu": 1 << 26}
_LAUNCHES = 2_000
_ROUNDS = 5


class Ceilings(NamedTuple):
    """Peaks of one device."""

    flops: float
    """Operations per second of a large matrix product, in the precision that the program uses."""
    bytes: float
    """Bytes per second of a large copy, read and written counted."""
    launch_s: float
    """Seconds per operation of many tiny ones, one after the other."""

    def least_s(self, flops: float, moved: float) -> float:
        """Seconds that so much work takes at least: the roofline."""
        return max(flops / self.flops, moved / self.bytes)


def measure_ceilings(device: str) -> Ceilings:
    """Best of some rounds each."""
    kind = torch.device(device).type
    size, copied = _MATRIX[kind], _COPIED[kind]
    generator = torch.Generator().manual_seed(0)  # random: zeros can be faster than data
    a, b = (torch.randn(size, size, generator=generator).to(device) for _ in range(2))
    product = torch.empty_like(a)
    source = torch.ones(copied, dtype=torch.uint8, device=device)
    target, little = torch.empty_like(source), torch.zeros(32, device=device)

    def launches() -> None:
        for _ in range(_LAUNCHES):
            little.add_(1.0)

    matmul_s = _best_s(lambda: torch.mm(a, b, out=product), device)
    copy_s = _best_s(lambda: target.copy_(source), device)
    launch_s = _best_s(launches, device) / _LAUNCHES
    return Ceilings(2.0 * size**3 / matmul_s, 2.0 * copied / copy_s, launch_s)


def _best_s(work: Callable[[], object], device: str) -> float:
    work()
    seconds = []
    for _ in range(_ROUNDS):
        synchronize(device)
        began = time.perf_counter()
        work()
        synchronize(device)
        seconds.append(time.perf_counter() - began)
    return min(seconds)
