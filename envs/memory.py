"""The allocator's bargain with the kernel: memory that was freed is kept for the next step."""

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_VARIABLES = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
_LARGEST_BLOCKS = (512 * 2**20, 32 * 2**20)
"""Bytes up to which blocks are kept; glibc before 2.35 refuses more than the second."""
_UNUSED = 1024 * 2**20


def keep_freed_memory() -> bool:
    """Let this process reuse the memory of large tensors instead of giving it back and asking for it again.

    By default glibc returns large blocks to the kernel as soon as they are freed. A loop that makes scores of
    128 users times 1,682 items again and again then spends a fifth of its time on pages that the kernel clears
    and hands out anew. The price: up to what it held at its peak stays with the process.
    Where a person set one of glibc's two variables, theirs hold alone.

    Returns:
        Whether the C library knows these settings and took them: not on macOS, nor with musl.
    """
    if any(name in os.environ for name in _VARIABLES):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    # The second alone would be worse than nothing: any setting ends glibc's own adaptation of the first.
    return (
        mallopt is not None
        and any(mallopt(_M_MMAP_THRESHOLD, size) for size in _LARGEST_BLOCKS)
        and bool(mallopt(_M_TRIM_THRESHOLD, _UNUSED))
    )
