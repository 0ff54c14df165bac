"""Nodes that are lost: a worker, and the head."""

import signal
import time
from typing import Any

from cluster.drills.ray_state import RayState
from cluster.drills.sandbox import Sandbox, check, wait_for
from cluster.drills.steps import LONG, Outcome, check_results, collected_again, resume, returns, started
from rl_rec.run_folder import TRIAL

_TRIAL, _RUNNER = "StudyTrial", "BatchedEnvRunner"


def node_killed(box: Sandbox) -> Outcome:
    """Power off for one of two worker nodes, which holds a trial with its runner or a part of one."""
    out, steps = box.folder / "study", 3000
    trials = [f"hac-world0-seed{seed}" for seed in range(2)]
    box.head(0)
    workers = [box.node(2), box.node(2)]
    command = box.study(out, steps, 2, "rollout.runners=1")
    for trial in trials:
        started(box, command, 600, trial)
    state = RayState(box.address)
    before = [actor for actor in state.actors(_TRIAL, _RUNNER) if actor.alive]
    check(len(before) == 4, f"two trials with a runner each were to be there: {before}")
    spread = {node.id: [actor for actor in before if actor.node == node.id] for node in workers}
    check(all(spread.values()), f"all run on one node: {spread}")
    victim = next(node for node in workers if any(actor.name == _TRIAL for actor in spread[node.id]))
    known = {trial: len(box.lines(trial)) for trial in trials}
    reported = {trial: box.reported(trial) for trial in trials}
    fault_s = time.monotonic()
    victim.kill()
    box.node(2)  # as an autoscaler would

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
    # Processes that lose each other's connections go on before the head has missed enough signs of life.
    wait_for(lambda: not state.nodes()[victim.id], "Ray to take the node for dead")
    check(all(state.nodes()[node.id] for node in workers if node is not victim), "another node died as well")

    now = state.actors(_TRIAL, _RUNNER)
    check(not any(actor.alive and actor.node == victim.id for actor in now), f"Ray has actors on it: {now}")
    at = {actor.pid: actor.node for actor in now}
    for trial, line in lines.items():
        check(at[box.lines(trial)[known[trial] - 1]["pid"]] == victim.id, f"{trial} began anew without need")
        check(at[line["pid"]] not in (victim.id, ""), f"Ray does not know where {trial} went on")
    lost = sum(collected_again(reported[trial], line) for trial, line in lines.items())
    check(command.wait(400) == 0, f"the study failed: {command.said[-2:]}")
    for trial in trials:
        check_results(out / trial, steps)
    check(len(returns(out)["hac"]) == 2, "a trial is missing in the table")
    dead = ", ".join(sorted(actor.name for actor in spread[victim.id]))
    told = f"{dead} died with it; the trial went on at another node; the study ended by itself"
    return Outcome(told, recovery_s, lost)


def head_restarted(box: Sandbox) -> Outcome:
    """Power off for the head, on which everything runs; another comes, and the user goes on with --resume."""
    run = box.folder / "run"
    head = box.head(4)
    command = box.train(run, LONG)
    started(box, command)
    fault_s = time.monotonic()
    head.kill()
    problem = command.check_end(1, 120, "error: ", "the Ray cluster is gone")
    ended_s = time.monotonic() - fault_s
    check(any(f"--resume {run}" in line for line in command.said), f"it did not say how to go on: {problem}")
    reported = box.reported(TRIAL)
    box.check_no_orphans()
    box.head(4)
    recovery_s, start, command = resume(box, run)
    command.process.send_signal(signal.SIGTERM)
    command.check_end(143, 60)
    check_results(run / TRIAL)
    told = f"the driver ended after {ended_s:.1f} s with one line; on a new cluster --resume went on"
    return Outcome(told, recovery_s, max(reported - start, 0))
