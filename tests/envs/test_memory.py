"""Freed memory stays with the process."""

import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from envs import memory

GIVEN_BACK = """
import resource, sys
import torch
from envs.memory import keep_freed_memory

def held():  # by address space: what is resident changes with the machine's other work
    return int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()

kept = sys.argv[1] == "keep" and keep_freed_memory()
scores = torch.ones(100, 100_000)  # 40 MB: more than glibc ever keeps by default
before = held()
del scores
print(kept, before - held())
"""
BLOCK = 40_000_000

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries have other allocators"
)


def given_back(how: str, **environment: str) -> int:
    """Bytes that a process returns to the kernel with a tensor of ``BLOCK``."""
    done = subprocess.run(
        [sys.executable, "-c", GIVEN_BACK, how],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
        check=True,
    )
    kept, count = done.stdout.split()
    assert kept == str(how == "keep" and not environment)
    return int(count)


def test_freed_tensors_stay_with_the_process():
    assert given_back("by default") >= BLOCK
    assert given_back("keep") < BLOCK / 10


def test_a_person_may_choose():
    assert given_back("keep", MALLOC_MMAP_THRESHOLD_="131072") >= BLOCK


def test_an_old_c_library_is_left_alone_or_asked_for_less(monkeypatch):
    asked = []

    def mallopt(number, value):
        asked.append((number, value))
        return value <= largest

    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=mallopt))
    largest = 2**30
    assert memory.keep_freed_memory() and asked == [(-3, 2**29), (-1, 2**30)]
    asked.clear()
    largest = 2**10  # never the second setting alone
    assert not memory.keep_freed_memory() and asked == [(-3, 2**29), (-3, 2**25)]
