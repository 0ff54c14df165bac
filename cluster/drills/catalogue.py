"""The drills: one function each, which brings its fault about and checks what must hold after it."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.drills.sandbox import (
    REPORT_EVERY,
    SAVE_EVERY,
    Command,
    DrillFailedError,
    Sandbox,
    check,
    sandbox,
    saved,
    title,
    user_steps,
    wait_for,
)
from rl_rec.run_folder import TRIAL, RunFolder, read_results

LONG = 100_000_000
"""User-steps of a run that does not end by itself."""
RUNNER, ALGORITHM, LEARNER, STUDY_TRIAL = (
    "ray::BatchedEnvRunner",
    "ray::HAC",
    "ray::_WrappedExecutable",
    "ray::StudyTrial",
)
_STRETCH = SAVE_EVERY // REPORT_EVERY
"""Reports that a driver leaves unwritten where it dies between a checkpoint and what follows it."""


@dataclass(frozen=True)
class Outcome:
    """What a drill saw."""

    happened: str
    recovery_s: float | None = None
    """From the fault, or from the command that goes on, until it trains again; until the end where it ends."""
    lost: int | None = None
    """User-steps that had been reported and were collected again."""


@dataclass(frozen=True)
class Drill:
    """A fault, and what brings it about."""

    fault: str
    run: Callable[[Sandbox], Outcome]


def _check_results(trial: Path, steps: int | None = None, may_miss: int = 0) -> int:
    """No iteration is counted twice, every stride is whole; how many are missing, ``may_miss`` at most."""
    results = read_results(trial)
    iterations = [line["training_iteration"] for line in results]
    missing = sorted(set(range(1, iterations[-1] + 1)) - set(iterations))
    check(len(missing) <= may_miss, f"of {iterations[-1]} iterations {missing} are missing")
    strides = [user_steps(line) - REPORT_EVERY * line["training_iteration"] for line in results]
    # Runners out of step bring more than a stride asks for; nothing is missing then either.
    check(
        all(0 <= over < REPORT_EVERY for over in strides), f"user-steps do not fit their iterations: {strides}"
    )
    if steps is not None:
        over = user_steps(results[-1]) - steps
        check(0 <= over < REPORT_EVERY, f"it ended after {steps + over} user-steps, not {steps}")
    return len(missing)


def _resume(box: Sandbox, run: Path, further: int = 1000, trial: str = TRIAL) -> tuple[float, int, Command]:
    """Go on for ``further`` user-steps; the seconds to the first report, where it began, and the command."""
    known = len(box.lines(trial))
    began, command = time.monotonic(), box.resume(run)

    def goes_on() -> list[dict[str, Any]]:
        check(command.process.poll() is None, f"--resume ended: {command.said[-2:]}")
        return box.lines(trial)[known:]

    lines = wait_for(goes_on, "a report after --resume", 180)
    recovery_s = time.monotonic() - began
    start = user_steps(lines[0]) - REPORT_EVERY
    wait_for(lambda: box.reported(trial) >= start + further, "more reports after --resume")
    return recovery_s, start, command


def _end(box: Sandbox, command: Command, run: Path, may_miss: int = 0) -> int:
    """Tell a resumed run to end, and look at all that it left; how many reports are missing."""
    command.process.send_signal(signal.SIGTERM)
    command.check_end(143, 60, "error: terminated")
    box.check_no_orphans()
    return _check_results(run / TRIAL, may_miss=may_miss)


def _started(box: Sandbox, command: Command, at_least: int = 1000, trial: str = TRIAL) -> None:
    """Wait until it trains and has saved."""

    def ready() -> bool:
        check(command.process.poll() is None, f"the command ended: {command.said[-2:]}")
        return box.reported(trial) >= at_least

    wait_for(ready, "the first reports", 180)


# --- env runners ----------------------------------------------------------------------------------------


def _lose_runner(box: Sandbox, number: signal.Signals, *settings: str) -> Outcome:
    run = box.folder / "run"
    command = box.train(run, LONG, "rollout.runners=2", "rollout.users=5", *settings)
    _started(box, command)
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
    _end_run(box, command, run)
    return Outcome("the others went on; a new process took its place", recovery_s, 0)


def _end_run(box: Sandbox, command: Command, run: Path) -> None:
    _end(box, command, run)
    repeats = [line["training_iteration"] for line in box.lines(TRIAL)]
    check(len(repeats) == len(set(repeats)), "an iteration was reported twice")


def runner_killed(box: Sandbox) -> Outcome:
    """SIGKILL for one of two env runners."""
    return _lose_runner(box, signal.SIGKILL)


def runner_hung(box: Sandbox) -> Outcome:
    """SIGSTOP for one of two env runners in step."""
    return _lose_runner(box, signal.SIGSTOP, "rollout.timeout_s=5")


def runner_hung_async(box: Sandbox) -> Outcome:
    """SIGSTOP for one of two env runners out of step."""
    return _lose_runner(box, signal.SIGSTOP, "rollout.timeout_s=5", "rollout.mode=async")


# --- the trial, the learner, the driver -----------------------------------------------------------------


def _lose_process(box: Sandbox, wanted: str, *settings: str) -> Outcome:
    """SIGKILL for what learns; the run goes on by itself."""
    run = box.folder / "run"
    command = box.train(run, LONG, *settings)
    _started(box, command)
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
    lost = max(reported - (user_steps(line) - REPORT_EVERY), 0)
    wait_for(lambda: box.reported(TRIAL) > reported, "more user-steps than before")
    _end(box, command, run)
    return Outcome("a new process went on from the newest checkpoint", recovery_s, lost)


def trial_killed(box: Sandbox) -> Outcome:
    """SIGKILL for the process that holds replay and networks."""
    return _lose_process(box, ALGORITHM)


def learner_killed(box: Sandbox) -> Outcome:
    """SIGKILL for a remote learner."""
    return _lose_process(box, LEARNER, "resources.learners=1")


def driver_killed(box: Sandbox) -> Outcome:
    """SIGKILL for ``rl-rec train``, then --resume."""
    run = box.folder / "run"
    command = box.train(run, LONG)
    _started(box, command)
    command.process.kill()
    command.process.wait()
    box.check_no_orphans()
    reported = box.reported(TRIAL)
    recovery_s, start, command = _resume(box, run)
    unwritten = _end(box, command, run, may_miss=_STRETCH)
    told = f"ended with all its processes; --resume went on; {unwritten} reports unwritten"
    return Outcome(told, recovery_s, max(reported - start, 0))


def terminated(box: Sandbox) -> Outcome:
    """SIGTERM for ``rl-rec train``, as a spot machine's 30 s notice."""
    run = box.folder / "run"
    command = box.train(run, LONG)
    _started(box, command)
    ended_s = _terminate(command, f"rl-rec train --resume {run}")
    box.check_no_orphans()
    reported = box.reported(TRIAL)
    check(saved(run / TRIAL) == reported, f"{reported} user-steps were reported, {saved(run / TRIAL)} saved")
    _, start, command = _resume(box, run)
    _end_run(box, command, run)
    return Outcome(
        f"saved and ended in {ended_s:.1f} s with exit code 143; --resume went on", ended_s, reported - start
    )


def _terminate(command: Command, hint: str) -> float:
    began = time.monotonic()
    command.process.send_signal(signal.SIGTERM)
    command.check_end(143, 30, "error: terminated")
    check(any(hint in line for line in command.said), f"it did not say how to go on: {command.said[-3:]}")
    return time.monotonic() - began


def study_terminated(box: Sandbox) -> Outcome:
    """SIGTERM for ``rl-rec study`` with two of three trials running."""
    out, steps = box.folder / "study", 4000
    trials = [f"hac-world0-seed{seed}" for seed in range(3)]
    command = box.study(out, steps, 3)
    for trial in trials[:2]:
        _started(box, command, 500, trial)
    ended_s = _terminate(command, f"rl-rec study --resume {out}")
    box.check_no_orphans()
    reported = {trial: box.reported(trial) for trial in trials}
    for trial in trials:
        check(
            saved(out / trial) == reported[trial],
            f"{trial}: {reported[trial]} reported, {saved(out / trial)} saved",
        )
    done = {trial: len(box.lines(trial)) for trial in trials}
    command = box.resume(out, "study")
    check(command.wait(240) == 0, f"--resume failed: {command.said[-2:]}")
    box.check_no_orphans()
    lost = 0
    for trial in trials:
        _check_results(out / trial, steps)
        after = box.lines(trial)[done[trial] :]
        if after:
            lost += reported[trial] - (user_steps(after[0]) - REPORT_EVERY)
    tables = json.loads((out / "study.json").read_text())["tables"]
    seeds = len(tables[0]["rows"]["hac"]["returns"])
    check(seeds == 3, f"the table holds {seeds} of 3 trials")
    return Outcome(f"all saved, ended in {ended_s:.1f} s with exit code 143; --resume went on", ended_s, lost)


# --- nodes ----------------------------------------------------------------------------------------------


def _placed(nodes: Mapping[str, Any], pids: set[int]) -> dict[str, set[int]]:
    """By node, those of ``pids`` that run on it."""
    return {name: pids & node.pids() for name, node in nodes.items()}


def node_killed(box: Sandbox) -> Outcome:
    """Power off for one of two worker nodes, which holds a trial with its runner or a part of one."""
    out, steps = box.folder / "study", 3000
    trials = [f"hac-world0-seed{seed}" for seed in range(2)]
    box.head(0)
    nodes = {f"node {index}": box.node(2) for index in range(2)}
    command = box.study(out, steps, 2, "rollout.runners=1")
    for trial in trials:
        _started(box, command, 600, trial)
    working = box.processes(RUNNER, STUDY_TRIAL)
    placed = _placed(nodes, working)
    check(len(working) == 4, f"two trials with a runner each were to be there: {len(working)}")
    check(all(placed.values()), f"all run on one node: {placed}")
    holds = [name for name, pids in placed.items() if any(title(pid).startswith(STUDY_TRIAL) for pid in pids)]
    victim = holds[0]
    on_it = len(placed[victim])
    known = {trial: len(box.lines(trial)) for trial in trials}
    reported = {trial: box.reported(trial) for trial in trials}
    fault_s = time.monotonic()
    nodes[victim].kill()
    nodes["node 2"] = box.node(2)  # as an autoscaler would

    def hit() -> dict[str, dict[str, Any]]:
        new = {trial: box.lines(trial)[known[trial] :] for trial in trials}
        return {
            trial: line
            for trial, lines in new.items()
            for line in lines
            if line["iterations_since_restore"] == 1
        }

    lines = wait_for(hit, "a trial that goes on elsewhere", 240)
    recovery_s = time.monotonic() - fault_s
    lost = sum(max(reported[trial] - (user_steps(line) - REPORT_EVERY), 0) for trial, line in lines.items())
    check(command.wait(400) == 0, f"the study failed: {command.said[-2:]}")
    for trial in trials:
        _check_results(out / trial, steps)
    rows = json.loads((out / "study.json").read_text())["tables"][0]["rows"]
    check(len(rows["hac"]["returns"]) == 2, "a trial is missing in the table")
    return Outcome(
        f"{on_it} of 4 processes died with it; the study went on by itself and ended", recovery_s, lost
    )


def head_restarted(box: Sandbox) -> Outcome:
    """Power off for the head, on which everything runs; another comes, and the user goes on with --resume."""
    run = box.folder / "run"
    head = box.head(4)
    command = box.train(run, LONG)
    _started(box, command)
    fault_s = time.monotonic()
    head.kill()
    problem = command.check_end(1, 120, "error: ", "the Ray cluster is gone")
    ended_s = time.monotonic() - fault_s
    check(any(f"--resume {run}" in line for line in command.said), f"it did not say how to go on: {problem}")
    reported = box.reported(TRIAL)
    box.check_no_orphans()
    box.head(4)
    recovery_s, start, command = _resume(box, run)
    command.process.send_signal(signal.SIGTERM)
    command.check_end(143, 60)
    _check_results(run / TRIAL)
    told = f"the driver ended after {ended_s:.1f} s with one line; on a new cluster --resume went on"
    return Outcome(told, recovery_s, max(reported - start, 0))


# --- storage --------------------------------------------------------------------------------------------


def disk_full(box: Sandbox) -> Outcome:
    """A file system of 12 MiB that fills up while it is trained on (needs root, for the mount)."""
    disk = box.folder / "disk"
    disk.mkdir()
    _mount(disk, "12m")
    try:
        run = disk / "run"
        command = box.train(run, LONG)
        _started(box, command, 1500)
        ballast = disk / "ballast"
        fault_s = time.monotonic()
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        problem = command.check_end(2, 120, "error: training failed: ", "No space left", "--resume")
        ended_s = time.monotonic() - fault_s
        reported = box.reported(TRIAL)
        box.check_no_orphans()
        whole = saved(run / TRIAL)
        check(whole > 0, f"no checkpoint survived: {problem}")
        ballast.unlink()
        recovery_s, start, command = _resume(box, run)
        check(start == whole, f"it went on from {start}, the newest whole checkpoint has {whole}")
        # Reports reach the folder now and then; those for which there was no room are nowhere.
        unwritten = _end(box, command, run, may_miss=_STRETCH)
    finally:
        _unmount(disk)
    told = f"ended after {ended_s:.1f} s with one line; with room --resume went on; {unwritten} reports lost"
    return Outcome(told, recovery_s, max(reported - start, 0))


def _mount(folder: Path, size: str) -> None:
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "drill", str(folder)], capture_output=True, text=True
    )
    check(done.returncode == 0, f"a small disk cannot be mounted (only root may): {done.stderr.strip()}")


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def storage_away(box: Sandbox) -> Outcome:
    """The run folder is renamed away for a minute, and comes back."""
    return _storage_away(box, 60.0)


def _storage_away(box: Sandbox, seconds: float) -> Outcome:
    run, away = box.folder / "runs" / "run", box.folder / "away"
    command = box.train(run, LONG)
    _started(box, command)
    fault_s = time.monotonic()
    run.parent.rename(away)
    end = fault_s + seconds
    while time.monotonic() < end and command.process.poll() is None:
        time.sleep(0.2)
    ended = command.process.poll() is not None
    ended_s = time.monotonic() - fault_s
    reported = box.reported(TRIAL)
    if run.parent.exists():
        shutil.rmtree(run.parent)  # what was written to the bare place
    away.rename(run.parent)
    back_s = time.monotonic()
    if ended:
        command.check_end(2, 1, "error: training failed")
        box.check_no_orphans()
        recovery_s, start, command = _resume(box, run)
        told = f"ended after {ended_s:.1f} s with one line; --resume went on"
        lost = max(reported - start, 0)
    else:
        before = saved(run / TRIAL)
        wait_for(lambda: saved(run / TRIAL) > before, "a checkpoint in the folder that came back", 60)
        recovery_s, lost, told = time.monotonic() - back_s, 0, "training waited for it, and went on"
    _end(box, command, run)
    return Outcome(told, recovery_s, lost)


def checkpoint_damaged(box: Sandbox) -> Outcome:
    """The newest checkpoint is truncated and a foreign folder lies beside it."""
    run = box.folder / "run"
    command = box.train(run, LONG)
    _started(box, command, 1500)
    _terminate(command, f"--resume {run}")
    box.check_no_orphans()
    reported = box.reported(TRIAL)
    newest, older = RunFolder(run).checkpoints()[:2]
    state = newest / "algorithm_state.pkl"
    with state.open("r+b") as file:
        file.truncate(state.stat().st_size // 2)
    whole = saved(run / TRIAL)
    check(0 < whole < reported, f"the truncated one counts as whole: {whole}")
    foreign = run / TRIAL / "checkpoint_999999"
    foreign.mkdir()
    (foreign / "weights.pt").write_bytes(b"of another program")
    recovery_s, start, command = _resume(box, run)
    check(start == whole, f"it went on from {start}, the newest whole checkpoint ({older.name}) has {whole}")
    _end(box, command, run)
    return Outcome("both were passed over; --resume went on from the older one", recovery_s, reported - start)


def loss_nan(box: Sandbox) -> Outcome:
    """A learning rate without bounds makes a loss NaN; what was saved before is used."""
    run = box.folder / "run"
    began = time.monotonic()
    command = box.train(run, LONG, "agent.critic_lr=1e30", "replay.learning_starts=650")
    command.check_end(2, 240, "error: training failed: loss/", "NaN or infinite", "its last checkpoint is kept")
    ended_s = time.monotonic() - began
    box.check_no_orphans()
    whole = saved(run / TRIAL)
    check(whole > 0, "nothing was saved")
    weights = RunFolder(run).weights()
    check(all(bool((value == value).all()) for value in weights.values()), "poisoned weights were saved")
    _check_results(run / TRIAL)
    return Outcome(
        f"ended with one line {ended_s:.1f} s after its start; what was saved before is whole", None, None
    )


# --- memory ---------------------------------------------------------------------------------------------


def object_store_small(box: Sandbox) -> Outcome:
    """Weights alone are larger than the object store, and go to two runners after every round of updates."""
    run, steps = box.folder / "run", 300
    box.head(4, store_mb=80)
    wide = ("agent.encoder.dim=768", "agent.encoder.feedforward=6144", "agent.encoder.layers=2")
    command = box.train(run, steps, *wide, "rollout.runners=2", "rollout.users=5", "replay.ratio=0.32")
    check(command.wait(300) == 0, f"it failed: {command.said[-2:]}")
    _check_results(run / TRIAL, steps)
    megabytes = sum(value.nbytes for value in RunFolder(run).weights().values()) / 2**20
    check(megabytes > 80, f"the weights are {megabytes:.0f} MB only")
    return Outcome(
        f"weights of {megabytes:.0f} MB and a store of 80 MB: Ray used the disk; the run ended", None, 0
    )


DRILLS: Mapping[str, Drill] = {
    "runner-killed": Drill("an env runner is killed", runner_killed),
    "runner-hung": Drill("an env runner hangs (sync)", runner_hung),
    "runner-hung-async": Drill("an env runner hangs (async)", runner_hung_async),
    "node-killed": Drill("a node is lost with a trial and runners", node_killed),
    "trial-killed": Drill("the process that learns is killed", trial_killed),
    "learner-killed": Drill("a remote learner is killed", learner_killed),
    "driver-killed": Drill("the driver is killed", driver_killed),
    "terminated": Drill("SIGTERM for rl-rec train", terminated),
    "study-terminated": Drill("SIGTERM for rl-rec study", study_terminated),
    "head-restarted": Drill("the cluster's head is lost", head_restarted),
    "disk-full": Drill("the disk is full", disk_full),
    "storage-away": Drill("storage is away for a minute", storage_away),
    "checkpoint-damaged": Drill("a checkpoint is truncated, one is foreign", checkpoint_damaged),
    "loss-nan": Drill("a loss is NaN", loss_nan),
    "object-store-small": Drill("the object store is too small", object_store_small),
}


def run_drill(name: str) -> dict[str, Any]:
    """Run one; the entry of the table."""
    began = time.monotonic()
    entry: dict[str, Any] = {"fault": DRILLS[name].fault}
    try:
        with sandbox() as box:
            outcome = DRILLS[name].run(box)
        entry |= {
            "happened": outcome.happened,
            "recovery_s": outcome.recovery_s,
            "lost_user_steps": outcome.lost,
        }
        entry["passed"] = True
    except DrillFailedError as error:
        entry |= {"happened": str(error), "recovery_s": None, "lost_user_steps": None, "passed": False}
    return {**entry, "drill_s": time.monotonic() - began}
