"""Seeds for explicit generators: nothing draws from a global one."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def stream_seed(*path: int) -> int:
    """A 63-bit seed for a path of non-negative integers (seed, stream, purpose, ...).

    Paths give independent seeds unless they differ only by zeros at the end.
    """
    low, high = np.random.SeedSequence(path).generate_state(2, dtype=np.uint32)
    return int(low) | (int(high) & 0x7FFFFFFF) << 32


def restore(generator: torch.Generator, state: torch.Tensor) -> None:
    """Let ``generator`` go on from ``state``, another generator's ``get_state``.

    States of another kind of device mean nothing here, where draws are others anyway: they become a seed.
    """
    state = state.cpu()
    if state.numel() == generator.get_state().numel():
        generator.set_state(state)
    else:
        generator.manual_seed(stream_seed(*state.tolist()))


@contextmanager
def seeded_weights(seed: int) -> Iterator[None]:
    """Initial weights (and dropout) drawn inside depend on ``seed`` alone, and nothing outside notices.

    ``torch.nn`` only knows the global generator; this lends it a state and takes it back.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
