"""A model of training's throughput: from seconds and bytes of each part to user-steps per second.

The unit is the fragment, ``rows`` transitions of one runner, which owes u = rows · ratio / batch_size updates.
R runners sample at once, and everything else happens one after the other in the driver, per fragment

    handle + send + u · update(L) + rows · report + publications · publish

(``docs/scaling.md`` has the derivation and the assumptions.)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

LEVERS = {
    "runners": "rollout.runners (more of them) or rollout.users (more users in a batch)",
    "request": "rollout.in_flight (ask for more at once) or rollout.fragment (longer fragments)",
    "driver": "rollout.users, rollout.fragment and report_every (larger), rollout.sync_every (rarer weights)",
    "learner": "replay.ratio (lower), replay.batch_size (larger), device=cuda or resources.learners",
    "network": "the bandwidth, rollout.sync_every (rarer weights)",
    "object store": "the memory's bandwidth, rollout.sync_every (rarer weights)",
    "cores": "more CPUs",
}
"""What moves each bottleneck."""


@dataclass(frozen=True)
class Costs:
    """What each part takes."""

    rows: float
    """Transitions of a fragment."""
    runner_s: float
    """A fragment in its runner, which has a core to itself."""
    latency_s: float
    """From asking for a fragment to its arrival, but for ``runner_s``: calls, waking up, transfer."""
    handle_s: float
    """The driver's work on a fragment: taking it, and adding it to the replay."""
    send_s: float
    """The driver's work on one message to a runner: a request, or weights that lie in the object store."""
    publish_s: float
    """Reading the learner's weights and writing them to the object store."""
    update_s: float
    """An update on a whole batch in one learner, its draw from the replay included."""
    update_fixed: float
    """The share of ``update_s`` that a smaller part of the batch would take as well, 0 to 1."""
    report_s: float
    """Everything else in the driver, per user-step: mostly reports."""
    fragment_bytes: float
    weights_bytes: float
    gradient_bytes: float
    """Of the message that learners average."""
    store_bytes_per_s: float = math.inf
    """Of the object store of the driver's node."""


@dataclass(frozen=True)
class Layout:
    """A run to predict."""

    runners: int
    """0: sampling in the driver."""
    mode: str = "sync"
    in_flight: int = 1
    learners: int = 0
    """Remote ones; 0 learns in the driver."""
    ratio: float = 2.0
    batch_size: int = 64
    sync_every: int = 1
    """Updates."""
    cores: float = math.inf
    """Of all machines together; infinite where every process has its own."""
    bandwidth: float = math.inf
    """Of the driver's network, bytes per second; infinite on one machine."""


@dataclass(frozen=True)
class Prediction:
    """What a layout reaches."""

    user_steps_per_s: float
    bottleneck: str
    """One of ``LEVERS``."""
    parts_s: dict[str, float]
    """Seconds per fragment that each part alone would allow; in lock step, how long it lasts."""

    @property
    def lever(self) -> str:
        """What moves the bottleneck."""
        return LEVERS[self.bottleneck]


def update_s(costs: Costs, learners: int, bandwidth: float) -> float:
    """Seconds of an update that ``learners`` share; they average gradients by a ring."""
    many = max(learners, 1)
    share = costs.update_s * (costs.update_fixed + (1 - costs.update_fixed) / many)
    return share + 2 * (many - 1) / many * costs.gradient_bytes / bandwidth


def predict(costs: Costs, layout: Layout) -> Prediction:
    """Throughput and first bottleneck of ``layout``."""
    updates = costs.rows * layout.ratio / layout.batch_size  # per fragment
    learner = updates * update_s(costs, layout.learners, layout.bandwidth)
    report = costs.rows * costs.report_s
    if layout.runners == 0:
        return _prediction(
            costs, {"runners": costs.runner_s, "driver": report, "learner": learner}, serial=True
        )
    runners = layout.runners
    driver, received = _driver(costs, layout, _at_most_together(layout))
    moved = costs.fragment_bytes + received * costs.weights_bytes
    per_fragment = {
        "driver": driver,
        "learner": learner,
        "network": moved / layout.bandwidth,
        "object store": moved / costs.store_bytes_per_s,
    }
    if layout.mode == "sync" and layout.in_flight == 1:
        at_once = min(runners, layout.cores)
        in_turn = {
            "runners": costs.runner_s / at_once,
            "request": costs.latency_s / runners,
            **per_fragment,
        }
        return _prediction(costs, in_turn, serial=True)
    serial = driver + learner
    alone = _driver(costs, layout, 1)[0] + learner
    cycle = costs.runner_s + costs.latency_s + (alone if layout.mode == "async" else serial * runners)
    parts = {
        "runners": costs.runner_s / runners,
        "request": cycle / (runners * layout.in_flight),
        **per_fragment,
        # The driver's process does both, and waits for remote learners.
        **{("learner" if learner >= driver else "driver"): serial},
        "cores": (costs.runner_s + driver + learner * max(layout.learners, 1)) / layout.cores,
    }
    return _prediction(costs, parts, serial=False)


def _at_most_together(layout: Layout) -> int:
    """Fragments that the driver takes at once: a round, or whatever came while it was busy."""
    return layout.runners * (1 if layout.mode == "sync" else layout.in_flight)


def _driver(costs: Costs, layout: Layout, together: int) -> tuple[float, float]:
    """The driver's seconds per fragment but for learning, and messages of weights per fragment.

    Weights are published once for all fragments taken together, and sent to the runners they came from.
    """
    updates = costs.rows * layout.ratio / layout.batch_size
    published = min(1.0, updates * together / layout.sync_every) / together
    received = published * min(together, layout.runners)
    report = costs.rows * costs.report_s
    return costs.handle_s + costs.send_s * (1 + received) + published * costs.publish_s + report, received


def per_busiest_cpu_s(costs: Costs, layout: Layout) -> float:
    """User-steps per CPU-second of the process that uses most; ``costs`` are CPU seconds."""
    if not layout.runners:
        return predict(costs, layout).user_steps_per_s
    updates = costs.rows * layout.ratio / layout.batch_size
    learner = updates * update_s(costs, layout.learners, layout.bandwidth)
    runner = costs.runner_s / layout.runners
    together = layout.runners if layout.mode == "sync" else 1
    driver, _ = _driver(costs, layout, together)
    if driver + learner > runner:  # they queue up
        driver, _ = _driver(costs, layout, _at_most_together(layout))
    shares = [runner, driver, learner] if layout.learners else [runner, driver + learner]
    return costs.rows / max(shares)


def _prediction(costs: Costs, parts: dict[str, float], serial: bool) -> Prediction:
    """Parts in turn add up; of parts that overlap the slowest decides."""
    fragment_s = sum(parts.values()) if serial else max(parts.values())
    return Prediction(costs.rows / fragment_s, max(parts, key=lambda name: parts[name]), parts)


def curve(costs: Costs, layouts: Sequence[Layout]) -> list[dict[str, Any]]:
    """Predictions as rows of a table, with the gain over one runner of the same kind."""
    rows = []
    for layout in layouts:
        found = predict(costs, layout)
        one = predict(costs, Layout(**{**vars(layout), "runners": 1})) if layout.runners else None
        rows.append(
            {
                "runners": layout.runners,
                "mode": layout.mode,
                "learners": layout.learners,
                "user_steps_per_s": found.user_steps_per_s,
                "speedup": found.user_steps_per_s / one.user_steps_per_s if one else None,
                "bottleneck": found.bottleneck,
                "lever": found.lever,
            }
        )
    return rows


def knee(costs: Costs, layout: Layout, most: int = 4096) -> int | None:
    """The fewest runners, up to ``most``, at which something else than the runners is the bottleneck."""
    for runners in range(1, most + 1):
        if predict(costs, Layout(**{**vars(layout), "runners": runners})).bottleneck != "runners":
            return runners
    return None
