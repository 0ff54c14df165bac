"""Fragments of experience from remote env runners: what is asked, what arrives, and the weights that go out."""

import logging
import statistics
import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import ray
from ray.exceptions import RayError
from ray.rllib.env.env_runner_group import EnvRunnerGroup

from rl_rec import metrics as names
from rl_rec.env_runner import SENT_AT, BatchedEnvRunner, Columns
from rl_rec.train_settings import TrainSettings

_log = logging.getLogger(__name__)
_FAILURES = 3
"""Of one runner, while nobody brings anything, before they are the run's: a node takes many along, but once."""
_GLANCE_S = 1.0
"""How often somebody who waits looks for runners that hang."""


@dataclass(frozen=True)
class _Request:
    runner: int
    round: int
    rows: int
    at_s: float


class Fragments:
    """Keeps every runner busy with up to ``rollout.in_flight`` requests.

    In mode ``sync`` the runners are asked in rounds and a whole round arrives at once, in their order: what is
    learned from what does not depend on who is faster. In mode ``async`` whatever is ready arrives. A runner
    gets new weights together with its next request, so that messages do not pile up where it is slow.

    Args:
        group: the runners.
        settings: the run's.
        replace: starts a runner anew that brought nothing for ``rollout.timeout_s``.
    """

    def __init__(
        self, group: EnvRunnerGroup, settings: TrainSettings[Any], replace: Callable[[int], None]
    ) -> None:
        self._manager = group._worker_manager
        self._settings = settings
        self._replace = replace
        self._heard: dict[int, float] = {}  # by runner, when it last brought something
        self._failures: dict[int, int] = defaultdict(int)  # by runner, since anybody brought something
        self._sync = settings.rollout.mode == "sync"
        self._asked: dict[ray.ObjectRef, _Request] = {}  # oldest first
        self._round = 0
        self._kept: deque[list[Columns]] = deque()
        self._weights: ray.ObjectRef | None = None
        self._version = 0
        self._has: dict[int, int] = {}  # versions of the runners' weights
        self._reported: dict[int, int] = {}  # strides that the runners were asked to report
        self._seen: dict[str, list[float]] = defaultdict(list)
        self.metrics: list[Any] = []
        """What the runners reported since it was last emptied."""

    @property
    def outstanding(self) -> int:
        """User-steps that were asked for and not taken yet."""
        kept = sum(batch.env_steps() for batches in self._kept for batch in batches)
        return kept + sum(request.rows for request in self._asked.values())

    def ask(self, collected: int, exploration: Any) -> None:
        """Give every runner as much to do as ``rollout.in_flight`` allows.

        Args:
            collected: user-steps taken so far.
            exploration: from user-steps to the scheduled parameters of the policy.
        """
        settings, rollout = self._settings, self._settings.rollout
        self._forget_the_dead()
        while len(self._kept) < rollout.requests:
            asked = collected + self.outstanding
            runners = self._with_room()
            if not runners or asked >= settings.steps:
                return
            if self._sync:  # the whole round ends with the stride, or before
                left = min(settings.report_every - asked % settings.report_every, settings.steps - asked)
                steps = min(rollout.fragment, -(-left // (rollout.users * rollout.runners)))
            else:
                steps = min(rollout.fragment, -(-(settings.steps - asked) // rollout.users))
            rows = rollout.users * steps
            after = asked + rows * len(runners)
            stride = after // settings.report_every + (after >= settings.steps)
            self._round += 1
            for runner in runners:
                report = stride > self._reported.get(runner, 0)
                self._reported[runner] = stride
                self._send_weights(runner)
                answer = self._manager.actors()[runner].apply.remote(
                    _sample, steps=steps, report=report, **exploration(asked)
                )
                self._asked[answer] = _Request(runner, self._round, rows, time.perf_counter())

    def take(self, updates: int) -> list[Columns]:
        """Wait for one round (``sync``), or for at least one fragment (``async``).

        Args:
            updates: made so far; by how many the weights that sampled lag behind them is their staleness.

        Returns:
            Nothing where all who were asked have died.
        """
        batches = self._kept.popleft() if self._kept else self._fetch()
        for batch in batches:
            self._seen[names.STALENESS_UPDATES].append(updates - batch.weights_updates)
        return batches

    def keep_all(self) -> list[list[dict[str, Any]]]:
        """Wait for everything that was asked for, and keep it until it is taken.

        Returns:
            Its columns: what a checkpoint needs beside the runners' state.
        """
        while self._asked:
            self._kept.append(self._fetch())
        if not self._sync and self._kept:  # taken at once: runners wait while something is kept
            self._kept = deque([[batch for batches in self._kept for batch in batches]])
        return [
            [{"columns": batch.columns, "updates": batch.weights_updates} for batch in batches]
            for batches in self._kept
        ]

    def restore(self, kept: list[list[dict[str, Any]]]) -> None:
        """Take over what ``keep_all`` returned, and forget everything that was asked for or sent."""
        self._asked.clear()
        self._has.clear()
        self._reported.clear()
        self._weights = None
        self._seen.clear()
        self._failures.clear()
        self.metrics = []
        self._kept = deque(
            [Columns(batch["columns"], weights_updates=batch["updates"]) for batch in batches]
            for batches in kept
        )

    def publish(self, weights: dict[str, Any]) -> None:
        """Send new weights: at once to runners that may be asked again, to others with their next request."""
        self._weights = ray.put({**weights, SENT_AT: time.time()})
        self._version += 1
        for runner in self._with_room():
            self._send_weights(runner)

    def forget(self, runners: list[int]) -> None:
        """Count on nothing that these runners, which were restarted, had or were asked."""
        gone = set(runners)
        self._has = {runner: version for runner, version in self._has.items() if runner not in gone}
        self._asked = {answer: request for answer, request in self._asked.items() if request.runner not in gone}

    def _failed(self, runner: int, error: RayError) -> None:
        last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        _log.warning("env runner %d failed: %s", runner, last)
        self._failures[runner] += 1
        if self._failures[runner] > _FAILURES:  # started anew each time, and nobody brings anything
            raise error
        self._manager.set_actor_state(runner, healthy=False)
        self.forget([runner])

    def drain_figures(self) -> dict[str, float]:
        """Means since the last call: latencies in seconds, and the staleness."""
        figures = {name: statistics.fmean(values) for name, values in self._seen.items()}
        self._seen.clear()
        return figures

    def _with_room(self) -> list[int]:
        count: dict[int, int] = defaultdict(int)
        for request in self._asked.values():
            count[request.runner] += 1
        most = self._settings.rollout.requests - len(self._kept)
        return [runner for runner in self._manager.healthy_actor_ids() if count[runner] < most]

    def _send_weights(self, runner: int) -> None:
        if self._weights is not None and self._has.get(runner) != self._version:
            self._manager.actors()[runner].apply.remote(_set_weights, self._weights)
            self._has[runner] = self._version

    def _fetch(self) -> list[Columns]:
        if not self._asked:
            return []
        waited = list(self._asked)
        if self._sync:
            oldest = self._asked[waited[0]].round
            waited = [answer for answer in waited if self._asked[answer].round == oldest]
        batches = []
        for answer in self._ready(waited):
            request = self._asked.pop(answer, None)
            if request is None:  # of a runner that died meanwhile
                continue
            self._heard[request.runner] = time.perf_counter()
            try:
                columns, report = ray.get(answer)
            except RayError as error:  # the runner died; Ray starts another
                self._failed(request.runner, error)
                continue
            self._failures.clear()
            self._seen[names.SAMPLE_LATENCY_S].append(time.perf_counter() - request.at_s)
            self._seen[names.SAMPLE_S].append(columns.seconds)
            if columns.weights_s is not None:
                self._seen[names.WEIGHTS_LATENCY_S].append(columns.weights_s)
            if report is not None:
                self.metrics.append(report)
            batches.append(columns)
        return batches

    def _ready(self, waited: list[ray.ObjectRef]) -> list[ray.ObjectRef]:
        """Wait for all (``sync``) or for one, but not for runners that hang."""
        while waited:
            needed = len(waited) if self._sync else 1
            ray.wait(waited, num_returns=needed, timeout=_GLANCE_S)
            ready, late = ray.wait(waited, num_returns=len(waited), timeout=0)
            if len(ready) >= needed and self._sync:
                return waited  # in their order
            bringing = {self._asked[answer].runner for answer in ready}
            self._replace_hung(
                [self._asked[answer] for answer in late if self._asked[answer].runner not in bringing]
            )
            if ready and not self._sync:
                return cast(list[ray.ObjectRef], ready)
            waited = [answer for answer in waited if answer in self._asked]
        return []

    def _replace_hung(self, late: list[_Request]) -> None:
        patience_s, now = self._settings.rollout.timeout_s, time.perf_counter()
        # A request's turn comes when the one before it has been answered.
        turns = [(request.runner, max(request.at_s, self._heard.get(request.runner, 0.0))) for request in late]
        for runner in {runner for runner, began in turns if now - began > patience_s}:
            self._replace(runner)
            self.forget([runner])
        self._forget_the_dead()

    def _forget_the_dead(self) -> None:
        alive = set(self._manager.healthy_actor_ids())
        self._asked = {answer: request for answer, request in self._asked.items() if request.runner in alive}
        self._has = {runner: version for runner, version in self._has.items() if runner in alive}


def _sample(runner: BatchedEnvRunner, report: bool, **arguments: Any) -> tuple[Columns, Any]:
    (columns,) = runner.sample(**arguments)
    return columns, runner.get_metrics() if report else None


def _set_weights(runner: BatchedEnvRunner, weights: dict[str, Any]) -> None:
    runner.set_state(weights)
