"""Freed memory stays with the process: large tensors made again and again cost no page faults."""

import os
import subprocess
import sys

import pytest

LOOP = """
import resource, sys
import torch
from envs.memory import keep_freed_memory

torch.set_num_threads(1)
kept = sys.argv[1] == "keep" and keep_freed_memory()


def scores():
    return torch.ones(100, 100_000).sum()  # 40 MB: more than glibc ever keeps by default


for _ in range(5):
    scores()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    scores()
print(kept, (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 20)
"""


def page_faults(how: str, **environment: str) -> tuple[bool, float]:
    done = subprocess.run(
        [sys.executable, "-c", LOOP, how],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
        check=True,
    )
    kept, count = done.stdout.split()
    return kept == "True", float(count)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other C libraries have other allocators")
def test_large_tensors_cost_no_page_faults():
    by_default = page_faults("not")
    kept, count = page_faults("keep")
    if not kept:
        pytest.skip("not glibc")
    assert count < 5 < by_default[1]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other C libraries have other allocators")
def test_a_person_may_choose():
    kept, count = page_faults("keep", MALLOC_MMAP_THRESHOLD_="131072")
    if not kept:
        pytest.skip("not glibc")
    assert count > 100  # every block comes from the kernel, as was asked for
