"""The drills by name, and running one."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cluster.drills import nodes, overflow, processes, runners, storage
from cluster.drills.sandbox import DrillFailedError, LeftOutError, Sandbox, sandbox
from cluster.drills.steps import Outcome


@dataclass(frozen=True)
class Drill:
    """A fault, and what brings it about."""

    fault: str
    run: Callable[[Sandbox], Outcome]


DRILLS: Mapping[str, Drill] = {
    "runner-killed": Drill("an env runner is killed", runners.runner_killed),
    "runner-hung": Drill("an env runner hangs (sync)", runners.runner_hung),
    "runner-hung-async": Drill("an env runner hangs (async)", runners.runner_hung_async),
    "node-killed": Drill("a node is lost with a trial and runners", nodes.node_killed),
    "trial-killed": Drill("the process that learns is killed", processes.trial_killed),
    "learner-killed": Drill("a remote learner is killed", processes.learner_killed),
    "driver-killed": Drill("the driver is killed as a checkpoint is stored", processes.driver_killed),
    "terminated": Drill("SIGTERM for rl-rec train", processes.terminated),
    "study-terminated": Drill("SIGTERM for rl-rec study", processes.study_terminated),
    "sweep-terminated": Drill("SIGTERM for rl-rec sweep", processes.sweep_terminated),
    "head-restarted": Drill("the cluster's head is lost", nodes.head_restarted),
    "disk-full": Drill("the disk is full", storage.disk_full),
    "storage-away": Drill("storage is away for a minute (a local folder)", storage.storage_away),
    "storage-away-url": Drill("storage is away for a minute (s3://)", storage.storage_away_url),
    "terminated-away-url": Drill("SIGTERM while storage is away (s3://)", storage.terminated_away_url),
    "terminated-mute-url": Drill("SIGTERM while storage never answers (s3://)", storage.terminated_mute_url),
    "checkpoint-damaged": Drill("a checkpoint is truncated, one is foreign", storage.checkpoint_damaged),
    "loss-nan": Drill("a loss is NaN", overflow.loss_nan),
    "loss-infinite": Drill("a loss is infinite", overflow.loss_infinite),
    "object-store-small": Drill("the object store is too small", overflow.object_store_small),
}


def run_drill(name: str) -> dict[str, Any]:
    """Run one, whatever happens in it.

    Returns:
        The entry of the table. ``passed`` is ``None`` where something that the drill needs is not there.
    """
    began = time.monotonic()
    outcome, passed = Outcome(""), None
    try:
        with sandbox() as box:
            outcome = DRILLS[name].run(box)
        passed = True
    except LeftOutError as missing:
        outcome = Outcome(f"left out: {missing}")
    except DrillFailedError as error:
        outcome, passed = Outcome(str(error)), False
    except Exception as error:  # of the drill itself: the others are to run all the same
        outcome, passed = Outcome(f"{type(error).__name__}: {' '.join(str(error).split())}"), False
    return {
        "fault": DRILLS[name].fault,
        "happened": outcome.happened,
        "recovery_s": outcome.recovery_s,
        "lost_user_steps": outcome.lost,
        "passed": passed,
        "drill_s": time.monotonic() - began,
    }
