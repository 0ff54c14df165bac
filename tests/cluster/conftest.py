"""A command line that trains in a small simulator for a moment."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def command(simulator: Path, small_run: list[str]) -> Callable[..., list[str]]:
    """``command(out, steps, "agent.gamma=0.5", ...)``: arguments of a small ``rl-rec train hac``."""

    def make(out: Path, steps: int, *more: str) -> list[str]:
        assignments = [argument for setting in (*small_run, *more) for argument in ("--set", setting)]
        base = ["train", "hac", "--simulator", str(simulator), "--out", str(out), "--seed", "3"]
        return [*base, "--steps", str(steps), *assignments]

    return make
