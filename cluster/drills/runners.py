"""Env runners that die or hang under a run."""

import os
import signal
import time
from pathlib import Path

from cluster.drills.sandbox import Sandbox, check, user_steps, wait_for
from cluster.drills.steps import LONG, RUNNER, Outcome, end, saved_state, started
from rl_rec.run_folder import TRIAL, RunFolder

_CAPACITY = 200_000
"""Of the replay: every user-step of a drill, so that one which was lost would be missing."""


def runner_killed(box: Sandbox) -> Outcome:
    """SIGKILL for one of two env runners."""
    return _lose_runner(box, signal.SIGKILL)


def runner_hung(box: Sandbox) -> Outcome:
    """SIGSTOP for one of two env runners in step."""
    return _lose_runner(box, signal.SIGSTOP, "rollout.timeout_s=5")


def runner_hung_async(box: Sandbox) -> Outcome:
    """SIGSTOP for one of two env runners out of step."""
    return _lose_runner(box, signal.SIGSTOP, "rollout.timeout_s=5", "rollout.mode=async")


def _lose_runner(box: Sandbox, number: signal.Signals, *settings: str) -> Outcome:
    run = box.folder / "run"
    more = ("rollout.runners=2", "rollout.users=5", f"replay.capacity={_CAPACITY}", *settings)
    command = box.train(run, LONG, *more)
    started(box, command)
    before = box.processes(RUNNER)
    check(len(before) == 2, f"two runners were to be there: {before}")
    victim, fault_s = min(before), time.monotonic()
    known = box.reported(TRIAL)
    os.kill(victim, number)

    def whole() -> bool:
        last = box.lines(TRIAL)[-1]["fault_tolerance"]
        return last["num_healthy_workers"] == 2 and victim not in box.processes(RUNNER)

    wait_for(lambda: box.reported(TRIAL) > known, "training to go on")
    wait_for(whole, "both runners", 120)
    recovery_s = time.monotonic() - fault_s
    now = box.reported(TRIAL)
    wait_for(lambda: box.reported(TRIAL) > now, "training to go on")
    end(box, command, run)
    in_hand = _in_hand(run)
    return Outcome(
        f"the other went on; a new process took its place; up to {in_hand} user-steps in its hands were asked "
        "of others",
        recovery_s,
        _lost(box, run),
    )


def _lost(box: Sandbox, run: Path) -> int:
    """User-steps that were reported by a run which nobody interrupted, and that its replay lacks."""
    lines = box.lines(TRIAL)
    check(len({line["pid"] for line in lines}) == 1, "the trial itself began anew")
    iterations = [line["training_iteration"] for line in lines]
    check(iterations == list(range(1, len(lines) + 1)), "an iteration was reported twice, or not at all")
    collected = [user_steps(line) for line in lines]
    check(collected == sorted(set(collected)), "user-steps went back")
    check(collected[-1] <= _CAPACITY, f"{collected[-1]} user-steps do not fit the replay")
    state = saved_state(RunFolder(run).checkpoints()[0])
    rows = min(len(column) for column in state["replay"]["columns"].values())
    check(rows <= collected[-1], f"{rows} rows were stored, and {collected[-1]} reported")
    return collected[-1] - rows


def _in_hand(run: Path) -> int:
    """User-steps that one runner may have been asked for at once."""
    rollout = RunFolder(run).settings.rollout
    return rollout.users * rollout.fragment * rollout.requests
