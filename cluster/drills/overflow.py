"""Losses without bounds, and an object store that is too small."""

import time
from pathlib import Path

from cluster.drills.sandbox import Sandbox, check
from cluster.drills.steps import LONG, Outcome, check_results, saved
from rl_rec.run_folder import TRIAL, RunFolder

_BROKEN = "error: training failed: loss/"


def loss_nan(box: Sandbox) -> Outcome:
    """A learning rate without bounds makes a loss NaN."""
    return _break_loss(box, "nan", "replay.learning_starts=650")


def loss_infinite(box: Sandbox) -> Outcome:
    """A learning rate without bounds makes a loss infinite: nothing that would make it NaN is done with it."""
    # Two updates before the first look: one breaks the weights, the other one's loss overflows.
    return _break_loss(box, "inf", "replay.learning_starts=690", "replay.ratio=3.2")


def _break_loss(box: Sandbox, value: str, *settings: str) -> Outcome:
    run = box.folder / "run"
    began = time.monotonic()
    command = box.train(run, LONG, "agent.critic_lr=1e30", *settings)
    told = ("NaN or infinite", "its last checkpoint is kept")
    problem = command.check_end(2, 240, _BROKEN, f"({value})", *told)
    ended_s = time.monotonic() - began
    box.check_no_orphans()
    before = _check_saved(run)
    # The settings are the run's: it goes on from what was saved, and breaks in the same place.
    command = box.resume(run)
    again = command.check_end(2, 240, _BROKEN, f"({value})", *told)
    check(again == problem, f"--resume ended otherwise: {again!r}, before {problem!r}")
    box.check_no_orphans()
    check(_check_saved(run) == before, "--resume saved what was broken")
    command = box.start("evaluate", "--run", str(run), "--episodes", "16")
    check(command.wait(120) == 0, f"what was saved cannot be evaluated: {command.said[-2:]}")
    return Outcome(
        f"ended with one line {ended_s:.1f} s after its start, and so did --resume; what was saved before is "
        "whole and was evaluated"
    )


def _check_saved(run: Path) -> int:
    """User-steps behind the newest checkpoint, whose weights are finite."""
    whole = saved(run / TRIAL)
    check(whole > 0, "nothing was saved")
    weights = RunFolder(run).weights()
    check(all(bool((abs(value) < 1e20).all()) for value in weights.values()), "poisoned weights were saved")
    check_results(run / TRIAL)
    return whole


def object_store_small(box: Sandbox) -> Outcome:
    """Weights alone are larger than the object store, and go to two runners after every round of updates."""
    run, steps = box.folder / "run", 300
    box.head(4, store_mb=80)
    wide = ("agent.encoder.dim=768", "agent.encoder.feedforward=6144", "agent.encoder.layers=2")
    command = box.train(run, steps, *wide, "rollout.runners=2", "rollout.users=5", "replay.ratio=0.32")
    check(command.wait(300) == 0, f"it failed: {command.said[-2:]}")
    check_results(run / TRIAL, steps)
    megabytes = sum(value.nbytes for value in RunFolder(run).weights().values()) / 2**20
    check(megabytes > 80, f"the weights are {megabytes:.0f} MB only")
    return Outcome(
        f"weights of {megabytes:.0f} MB and a store of 80 MB: Ray used the disk; the run ended", None, 0
    )
