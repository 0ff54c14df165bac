"""Seeds for explicit generators: nothing draws from a global one."""

import numpy as np


def stream_seed(*path: int) -> int:
    """An independent 63-bit seed for each path of non-negative integers (seed, worker, purpose, ...)."""
    low, high = np.random.SeedSequence(path).generate_state(2, dtype=np.uint32)
    return int(low) | (int(high) & 0x7FFFFFFF) << 32
