"""The allocator's bargain with the kernel: memory that was freed is kept for the next step."""

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_SETTINGS = {
    _M_MMAP_THRESHOLD: ("MALLOC_MMAP_THRESHOLD_", 512 * 2**20),
    _M_TRIM_THRESHOLD: ("MALLOC_TRIM_THRESHOLD_", 1024 * 2**20),
}


def keep_freed_memory() -> bool:
    """Let this process reuse the memory of large tensors instead of giving it back and asking for it again.

    By default glibc returns large blocks to the kernel as soon as they are freed. A loop that makes scores of
    128 users times 1,682 items again and again then spends a fifth of its time on pages that the kernel clears
    and hands out anew, more where several processes do so at once. A gibibyte at most stays here unused, of
    what the process held at its peak. A person's own ``MALLOC_MMAP_THRESHOLD_`` or ``MALLOC_TRIM_THRESHOLD_``
    go before.

    Returns:
        Whether the C library knows these settings and took them: not on macOS, nor with musl.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None:
        return False
    taken = [
        bool(mallopt(number, value)) for number, (name, value) in _SETTINGS.items() if name not in os.environ
    ]
    return all(taken)
