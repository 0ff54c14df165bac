"""What drills have in common: a run that starts, ends and goes on, and what must hold for its results."""

import json
import pickle
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.drills.sandbox import REPORT_EVERY, Command, Sandbox, check, user_steps, wait_for
from envs.errors import UserError
from rl_rec.checkpoint import verify
from rl_rec.run_folder import TRIAL, checkpoints, read_results

LONG = 100_000_000
"""User-steps of a run that does not end by itself."""
RUNNER, ALGORITHM, LEARNER = "ray::BatchedEnvRunner", "ray::HAC", "ray::_WrappedExecutable"
"""How processes call themselves."""


@dataclass(frozen=True)
class Outcome:
    """What a drill saw."""

    happened: str
    recovery_s: float | None = None
    """From the fault, or from the command that goes on, until it trains again; until the end where it ends."""
    lost: int | None = None
    """User-steps that had been reported and were collected again, or that the replay lacks."""


def started(box: Sandbox, command: Command, at_least: int = 1000, trial: str = TRIAL) -> None:
    """Wait until it trains and has saved."""

    def ready() -> bool:
        check(command.process.poll() is None, f"the command ended: {command.said[-2:]}")
        return box.reported(trial) >= at_least

    wait_for(ready, "the first reports", 180)


def resume(box: Sandbox, run: Path | str, further: int = 1000) -> tuple[float, int, Command]:
    """Go on for ``further`` user-steps; the seconds to the first report, where it began, and the command."""
    known = len(box.lines(TRIAL))
    began, command = time.monotonic(), box.resume(run)
    line = started_again(box, command, TRIAL, known)
    recovery_s = time.monotonic() - began
    start = user_steps(line) - REPORT_EVERY
    wait_for(lambda: box.reported(TRIAL) >= start + further, "more reports after --resume")
    return recovery_s, start, command


def started_again(box: Sandbox, command: Command, trial: str, known: int) -> dict[str, Any]:
    """Wait for the first report of ``trial`` after those ``known`` before --resume, and return it."""

    def goes_on() -> list[dict[str, Any]]:
        check(command.process.poll() is None, f"--resume ended: {command.said[-2:]}")
        return box.lines(trial)[known:]

    return wait_for(goes_on, f"a report of {trial} after --resume", 180)[0]


def collected_again(reported: int, first: dict[str, Any]) -> int:
    """Of ``reported`` user-steps, those collected again by a new process with the first report ``first``."""
    return max(reported - (user_steps(first) - REPORT_EVERY), 0)


def terminate(command: Command, hint: str) -> float:
    """SIGTERM, as a spot machine's notice of 30 s; the seconds until it ended and said ``hint``."""
    began = time.monotonic()
    command.process.send_signal(signal.SIGTERM)
    command.check_end(143, 30, "error: terminated")
    check(any(hint in line for line in command.said), f"it did not say how to go on: {command.said[-3:]}")
    return time.monotonic() - began


def end(box: Sandbox, command: Command, run: Path) -> None:
    """Tell a run to end, and look at all that it left."""
    command.process.send_signal(signal.SIGTERM)
    command.check_end(143, 60, "error: terminated")
    box.check_no_orphans()
    check_results(run / TRIAL)


def check_results(trial: Path, steps: int | None = None) -> None:
    """Every iteration is there and counts once, every stride is whole.

    Args:
        trial: its folder.
        steps: user-steps after which it ended.
    """
    results = read_results(trial)
    iterations = [line["training_iteration"] for line in results]
    check(bool(iterations), f"{trial} holds no results")
    missing = sorted(set(range(1, iterations[-1] + 1)) - set(iterations))
    check(not missing, f"of {iterations[-1]} iterations {missing} are missing")
    strides = [user_steps(line) - REPORT_EVERY * line["training_iteration"] for line in results]
    # Runners out of step bring more than a stride asks for; nothing is missing then either.
    check(
        all(0 <= over < REPORT_EVERY for over in strides), f"user-steps do not fit their iterations: {strides}"
    )
    if steps is not None:
        over = user_steps(results[-1]) - steps
        check(0 <= over < REPORT_EVERY, f"it ended after {steps + over} user-steps, not {steps}")


def saved(trial: Path) -> int:
    """User-steps behind the newest whole checkpoint of a trial's folder; 0 where there is none."""
    for folder in checkpoints(trial):
        try:
            verify(folder)
        except UserError:
            continue
        return int(saved_state(folder)["collected"])
    return 0


def saved_state(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint holds beside RLlib's state."""
    state: dict[str, Any] = pickle.loads((checkpoint / "algorithm_state.pkl").read_bytes())["off_policy"]
    return state


def returns(out: Path) -> dict[str, list[float]]:
    """By variant, what each seed reached: the table of a study."""
    rows = json.loads((out / "study.json").read_text())["tables"][0]["rows"]
    return {name: row["returns"] for name, row in rows.items() if "returns" in row}
