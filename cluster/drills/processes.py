"""Processes that learn, and those that drive them, which die or are told to end."""

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cluster.drills.sandbox import REPORT_EVERY, Command, Sandbox, check, wait_for
from cluster.drills.steps import (
    ALGORITHM,
    LEARNER,
    LONG,
    Outcome,
    check_results,
    collected_again,
    end,
    resume,
    returns,
    saved,
    started,
    terminate,
)
from rl_rec.run_folder import TRIAL, checkpoints


def trial_killed(box: Sandbox) -> Outcome:
    """SIGKILL for the process that holds replay and networks."""
    return _lose_process(box, ALGORITHM)


def learner_killed(box: Sandbox) -> Outcome:
    """SIGKILL for a remote learner."""
    return _lose_process(box, LEARNER, "resources.learners=1")


def _lose_process(box: Sandbox, wanted: str, *settings: str) -> Outcome:
    """SIGKILL for what learns; the run goes on by itself."""
    run = box.folder / "run"
    command = box.train(run, LONG, *settings)
    started(box, command)
    (victim,) = box.processes(wanted)
    known, fault_s = len(box.lines(TRIAL)), time.monotonic()
    os.kill(victim, signal.SIGKILL)
    reported = box.reported(TRIAL)

    def goes_on() -> list[dict[str, Any]]:
        check(command.process.poll() is None, f"the command ended: {command.said[-1:]}")
        new = [line for line in box.lines(TRIAL)[known:] if line["iterations_since_restore"] == 1]
        return new

    line = wait_for(goes_on, "a report of a new process")[-1]
    recovery_s = time.monotonic() - fault_s
    wait_for(lambda: box.reported(TRIAL) > reported, "more user-steps than before")
    end(box, command, run)
    told = "a new process went on from the newest checkpoint"
    return Outcome(told, recovery_s, collected_again(reported, line))


def driver_killed(box: Sandbox) -> Outcome:
    """SIGKILL for ``rl-rec train`` the moment a checkpoint is whole, then --resume."""
    run = box.folder / "run"
    command = box.train(run, LONG)
    started(box, command)
    # The worst moment: the driver does not know yet of what its trial has stored.
    known = checkpoints(run / TRIAL)[0].name

    def stored() -> bool:
        newest = checkpoints(run / TRIAL)[0]
        return newest.name > known and (newest / "manifest.json").exists()

    wait_for(stored, "another checkpoint", every_s=0.0)
    command.process.kill()
    command.process.wait()
    box.check_no_orphans()
    reported, whole = box.reported(TRIAL), saved(run / TRIAL)
    recovery_s, start, command = resume(box, run)
    check(start == whole, f"it went on from {start}, the newest whole checkpoint has {whole}")
    end(box, command, run)
    told = "ended with all its processes; --resume went on; no report is missing"
    return Outcome(told, recovery_s, max(reported - start, 0))


def terminated(box: Sandbox) -> Outcome:
    """SIGTERM for ``rl-rec train``, as a spot machine's 30 s notice."""
    run = box.folder / "run"
    command = box.train(run, LONG)
    started(box, command)
    ended_s = terminate(command, f"rl-rec train --resume {run}")
    box.check_no_orphans()
    reported = box.reported(TRIAL)
    check(saved(run / TRIAL) == reported, f"{reported} user-steps were reported, {saved(run / TRIAL)} saved")
    _, start, command = resume(box, run)
    end(box, command, run)
    told = f"saved and ended in {ended_s:.1f} s with exit code 143; --resume went on"
    return Outcome(told, ended_s, reported - start)


def study_terminated(box: Sandbox) -> Outcome:
    """SIGTERM for ``rl-rec study`` with two of three trials running."""
    out, steps = box.folder / "study", 4000
    command = box.study(out, steps, 3)
    trials = [out / f"hac-world0-seed{seed}" for seed in range(3)]
    ended_s, lost = _terminate_trials(
        box, command, trials, steps, f"rl-rec study --resume {out}", lambda: box.resume(out, "study")
    )
    seeds = len(returns(out)["hac"])
    check(seeds == 3, f"the table holds {seeds} of 3 trials")
    return Outcome(f"all saved, ended in {ended_s:.1f} s with exit code 143; --resume went on", ended_s, lost)


def sweep_terminated(box: Sandbox) -> Outcome:
    """SIGTERM for ``rl-rec sweep`` in a search's first stage, with two of three candidates running."""
    out, steps = box.folder / "sweep", 3000
    question = {
        "name": "drill",
        "question": "Which step size?",
        "space": {"agent.actor_lr": [1e-4, 1e-3, 1e-2]},
    }
    sizes = {"steps": steps, "rung": REPORT_EVERY, "trials": 3, "finalists": 1, "seeds": 1, "episodes": 16}
    ways = {"scheduler": "fifo", "validation_episodes": 16}
    search = box.folder / "search.yaml"
    search.write_text(json.dumps({**question, **sizes, **ways}))  # JSON is YAML
    trials = [out / "candidates" / f"trial-{index:03d}" for index in range(3)]
    command = box.sweep(search, out)
    ended_s, lost = _terminate_trials(
        box,
        command,
        trials,
        steps,
        "--if-exists resume",
        lambda: box.sweep(search, out, "--if-exists", "resume"),
    )
    found = json.loads((out / "search.json").read_text())["trials"]
    states = {name: trial["state"] for name, trial in found.items()}
    check(states == dict.fromkeys((trial.name for trial in trials), "finished"), f"candidates: {states}")
    check(all(returns(out / "finals").values()), "the finalists were not compared")
    told = f"all saved, ended in {ended_s:.1f} s with exit code 143; --if-exists resume went on"
    return Outcome(told, ended_s, lost)


def _terminate_trials(
    box: Sandbox, command: Command, trials: Sequence[Path], steps: int, hint: str, go_on: Callable[[], Command]
) -> tuple[float, int]:
    """SIGTERM for the driver of several trials, two of them at once, then ``go_on`` to their end.

    Returns:
        The seconds until the command had ended, and the user-steps that were collected again.
    """
    for trial in trials[:2]:
        started(box, command, 500, trial.name)
    ended_s = terminate(command, hint)
    box.check_no_orphans()
    reported = {trial: box.reported(trial.name) for trial in trials}
    for trial, behind in reported.items():
        check(saved(trial) == behind, f"{trial.name}: {behind} reported, {saved(trial)} saved")
    done = {trial: len(box.lines(trial.name)) for trial in trials}
    command = go_on()
    check(command.wait(300) == 0, f"it could not go on: {command.said[-2:]}")
    box.check_no_orphans()
    lost = 0
    for trial in trials:
        check_results(trial, steps)
        if after := box.lines(trial.name)[done[trial] :]:
            lost += collected_again(reported[trial], after[0])
    return ended_s, lost
