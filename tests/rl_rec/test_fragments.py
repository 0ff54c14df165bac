"""What remote runners are asked and when, with runners that answer when the test says so."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ray.exceptions import RayError

import rl_rec.fragments as fragments_module
from envs.errors import UserError
from rl_rec import metrics as names
from rl_rec.env_runner import SENT_AT, WEIGHTS_UPDATES, Columns
from rl_rec.fragments import Fragments
from rl_rec.hac.config import HACSettings
from rl_rec.train_settings import TrainSettings


class Ray:
    """Runners' answers: an answer is its number, ready once ``finish`` is called."""

    def __init__(self, runners: int) -> None:
        self.asked: list[tuple[int, dict[str, Any]]] = []  # (runner, arguments of the request)
        self.weights: list[tuple[int, Any]] = []  # (runner, message)
        self.ready: list[int] = []
        self.dead: set[int] = set()
        self.hung: set[int] = set()
        self.replaced: list[int] = []
        self.now_s = 0.0
        self._runners = range(1, runners + 1)
        self._healthy = set(self._runners)

    def finish(self, *answers: int) -> None:
        self.ready += answers

    # What ``Fragments`` uses of ray:
    def wait(self, answers, num_returns, timeout):
        ready = [answer for answer in answers if answer in self.ready]
        late = [answer for answer in answers if answer not in self.ready]
        if timeout and len(ready) < num_returns:
            if not {self.asked[answer][0] for answer in late} & self.hung:
                pytest.fail(f"would wait for {late}")
            self.now_s += timeout
        return ready, late

    def replace(self, runner):
        self.replaced.append(runner)
        self.set_actor_state(runner, healthy=False)

    def get(self, answer):
        runner, arguments = self.asked[answer]
        if runner in self.dead:
            raise RayError
        user = torch.full((4 * arguments["steps"],), runner).numpy()
        columns = Columns({"user": user}, weights_updates=arguments["weights"])
        return columns, f"figures of {runner}" if arguments["report"] else None

    def put(self, value):
        return value

    # and of the group's manager of actors:
    def actors(self):
        return {
            runner: SimpleNamespace(apply=SimpleNamespace(remote=self._call(runner)))
            for runner in self._runners
        }

    def healthy_actor_ids(self):
        return sorted(self._healthy)

    def set_actor_state(self, runner, healthy):
        (self._healthy.add if healthy else self._healthy.discard)(runner)

    def _call(self, runner):
        def remote(function, *arguments, **named):
            if function is fragments_module._set_weights:
                self.weights.append((runner, arguments[0]))
                return None
            held = [message[WEIGHTS_UPDATES] for to, message in self.weights if to == runner]
            self.asked.append((runner, {**named, "weights": held[-1] if held else 0}))
            return len(self.asked) - 1

        return remote


@pytest.fixture
def make(monkeypatch):
    """``make("rollout.mode=async", runners=2)``: the fake Ray, and fragments of 4 users × 5 steps."""

    def build(*overrides: str, runners: int = 2) -> tuple[Ray, Fragments]:
        rollout = {"users": 4, "fragment": 5, "runners": runners}
        base = {"rollout": rollout, "report_every": 100, "steps": 1000, "agent": {}}
        settings = TrainSettings[HACSettings].from_mapping(base).with_overrides(overrides)
        fake = Ray(runners)
        for name in ("wait", "get", "put"):
            monkeypatch.setattr(fragments_module.ray, name, getattr(fake, name))
        monkeypatch.setattr(fragments_module.time, "perf_counter", lambda: fake.now_s)
        return fake, Fragments(SimpleNamespace(_worker_manager=fake), settings, fake.replace)

    return build


def calm(user_steps: int) -> dict[str, float]:
    return {"sigma": float(user_steps)}


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_runner_that_hangs_is_replaced_and_nobody_waits_for_it(make, mode):
    ray, fragments = make(f"rollout.mode={mode}", "rollout.timeout_s=7", "rollout.in_flight=2")
    fragments.ask(0, calm)
    ray.hung = {2}
    ray.finish(*(answer for answer, (runner, _) in enumerate(ray.asked) if runner == 1))
    taken = fragments.take(0)
    if mode == "async":  # others go on
        assert ray.replaced == [] and ray.now_s == 0
        ray.now_s = 6.0
        fragments.ask(40, calm)
        ray.finish(*(answer for answer, (runner, _) in enumerate(ray.asked) if runner == 1))
        taken += fragments.take(0)
        assert ray.replaced == []
        ray.now_s = 8.0
        fragments.ask(80, calm)
        ray.finish(*(answer for answer, (runner, _) in enumerate(ray.asked) if runner == 1))
        taken += fragments.take(0)
    assert ray.replaced == [2] and 7 < ray.now_s <= 9
    assert {int(batch.columns["user"][0]) for batch in taken} == {1}
    before = fragments.outstanding
    fragments.ask(100, calm)
    assert all(runner == 1 for runner, _ in ray.asked[4:]) and fragments.outstanding >= before


def test_a_long_update_is_no_sign_of_a_runner_that_hangs(make):
    ray, fragments = make("rollout.mode=async", "rollout.timeout_s=7")
    fragments.ask(0, calm)
    ray.now_s = 60.0  # of the driver, meanwhile
    ray.finish(0, 1)  # the first of each
    assert len(fragments.take(0)) == 2 and ray.replaced == []


def test_out_of_step_no_runner_waits_for_another(make):
    ray, fragments = make("rollout.mode=async")
    fragments.ask(0, calm)
    assert Counter(runner for runner, _ in ray.asked) == {1: 2, 2: 2}  # two in flight each
    ray.finish(1)
    (batch,) = fragments.take(0)
    assert set(batch.columns["user"]) == {2}
    fragments.ask(20, calm)
    assert [runner for runner, _ in ray.asked[4:]] == [2]
    assert fragments.outstanding == 80


def test_in_step_a_round_is_waited_for_and_comes_in_order(make):
    ray, fragments = make()
    fragments.ask(0, calm)
    assert [runner for runner, _ in ray.asked] == [1, 2]
    ray.finish(1, 0)
    assert [set(batch.columns["user"]) for batch in fragments.take(0)] == [{1}, {2}]


def test_asked_ahead_rounds_keep_their_order_and_exploration(make):
    ray, fragments = make("rollout.in_flight=2")
    fragments.ask(0, calm)
    assert [(runner, arguments["sigma"]) for runner, arguments in ray.asked] == [
        (1, 0),
        (2, 0),
        (1, 40),
        (2, 40),
    ]
    ray.finish(3, 2, 1, 0)
    fragments.take(0)
    fragments.ask(40, calm)
    assert [arguments["sigma"] for _, arguments in ray.asked[4:]] == [80, 80]


def test_rounds_end_with_strides_and_the_run(make):
    ray, fragments = make("steps=230")
    collected, rounds = 0, []
    while collected < 230:
        fragments.ask(collected, calm)
        rounds.append(ray.asked[-1][1]["steps"])
        assert ray.asked[-1][1]["report"] == (collected + 2 * 4 * rounds[-1] in (104, 200, 232))
        ray.finish(len(ray.asked) - 1, len(ray.asked) - 2)
        collected += sum(batch.env_steps() for batch in fragments.take(0))
    assert rounds == [5, 5, 3, 5, 5, 2, 4]  # of 8 user-steps a step: 104, 200, 232
    fragments.ask(collected, calm)
    assert fragments.outstanding == 0
    assert fragments.metrics == ["figures of 1", "figures of 2"] * 3


def test_weights_go_to_runners_that_are_asked_again(make):
    ray, fragments = make("rollout.mode=async")
    fragments.ask(0, calm)
    ray.finish(1)
    fragments.take(0)
    fragments.publish({WEIGHTS_UPDATES: 7})
    assert [runner for runner, _ in ray.weights] == [2]  # runner 1 has two requests before it
    assert SENT_AT in ray.weights[0][1]
    fragments.publish({WEIGHTS_UPDATES: 8})
    fragments.ask(20, calm)
    ray.finish(0)
    fragments.take(8)
    fragments.ask(40, calm)
    assert [(runner, message[WEIGHTS_UPDATES]) for runner, message in ray.weights] == [(2, 7), (2, 8), (1, 8)]
    ray.finish(4)
    fragments.drain_figures()
    fragments.take(10)
    assert fragments.drain_figures()[names.STALENESS_UPDATES] == 2  # the weights of update 8


def test_a_dead_runner_takes_nothing_along_but_its_own(make):
    ray, fragments = make("rollout.in_flight=2")
    fragments.publish({WEIGHTS_UPDATES: 3})
    fragments.ask(0, calm)
    ray.dead = {1}
    ray.finish(0, 1, 3)
    assert [set(batch.columns["user"]) for batch in fragments.take(3)] == [{2}]
    fragments.ask(20, calm)
    assert fragments.outstanding == 40  # of runner 2
    ray.dead = set()
    ray.set_actor_state(1, True)
    before = len(ray.weights)
    fragments.ask(20, calm)
    assert ray.asked[-1][0] == 1 and [runner for runner, _ in ray.weights[before:]] == [1]


def test_what_is_kept_for_a_checkpoint_is_taken_first(make):
    ray, fragments = make("rollout.in_flight=2")
    fragments.ask(0, calm)
    ray.finish(0, 1, 2, 3)
    fragments.take(0)
    kept = fragments.keep_all()
    assert fragments.outstanding == 40 and [len(batches) for batches in kept] == [2]
    _, other = make("rollout.in_flight=2")
    other.restore(kept)
    other.ask(40, calm)
    assert other.outstanding == 40 + 24  # to the end of the stride
    assert [set(batch.columns["user"]) for batch in other.take(0)] == [{1}, {2}]


def test_nothing_of_the_time_before_a_restored_checkpoint_is_left(make):
    ray, fragments = make()
    fragments.publish({WEIGHTS_UPDATES: 9})
    fragments.ask(0, calm)
    ray.finish(*range(len(ray.asked)))
    fragments.take(0)
    fragments.metrics.append("of later iterations")
    before, sent = len(ray.asked), len(ray.weights)
    fragments.restore([])
    assert fragments.outstanding == 0 and fragments.metrics == [] and fragments.drain_figures() == {}
    fragments.ask(0, calm)
    assert len(ray.weights) == sent  # those are not the checkpoint's
    reports = [arguments["report"] for _, arguments in ray.asked]
    assert reports[before:] == reports[:before]  # the same stride is reported again
    fragments.publish({WEIGHTS_UPDATES: 3})
    ray.finish(*range(before, len(ray.asked)))
    fragments.take(0)
    fragments.ask(fragments.outstanding, calm)
    assert [message[WEIGHTS_UPDATES] for _, message in ray.weights[sent:]] == [3, 3]


def test_requests_at_once_by_mode():
    def rollout(*overrides):
        return TrainSettings[HACSettings].from_mapping({"agent": {}}).with_overrides(overrides).rollout

    assert rollout("rollout.runners=1").requests == 1
    assert rollout("rollout.runners=1", "rollout.mode=async").requests == 2
    assert rollout("rollout.runners=1", "rollout.in_flight=3").requests == 3
    with pytest.raises(UserError, match=r"rollout\.in_flight needs rollout\.runners >= 1"):
        rollout("rollout.in_flight=2")


def test_what_a_dead_runner_still_owes_is_not_waited_for_nor_held_against_it(make):
    ray, fragments = make("rollout.mode=async")
    fragments.ask(0, calm)
    ray.dead = {1}
    ray.finish(*(answer for answer, (runner, _) in enumerate(ray.asked) if runner == 1))
    assert fragments.take(0) == []
    ray.dead = set()
    ray.set_actor_state(1, healthy=True)
    fragments.forget([1])
    fragments.ask(0, calm)
    ray.finish(*range(len(ray.asked)))
    assert {int(batch.columns["user"][0]) for batch in fragments.take(0)} == {1, 2}
    assert ray.healthy_actor_ids() == [1, 2]


def test_a_runner_that_fails_again_and_again_ends_the_run_unless_others_bring_something(make):
    ray, fragments = make("rollout.mode=async", "rollout.in_flight=1", runners=1)
    ray.dead = {1}
    with pytest.raises(RayError):
        while len(ray.asked) < 10:
            fragments.ask(0, calm)
            ray.finish(len(ray.asked) - 1)
            fragments.take(0)
            ray.set_actor_state(1, healthy=True)
            fragments.forget([1])
    assert len(ray.asked) == 4

    ray, fragments = make("rollout.mode=async", "rollout.in_flight=1")
    ray.dead = {1}
    for _ in range(10):
        fragments.ask(0, calm)
        ray.finish(*range(len(ray.asked)))
        assert {int(batch.columns["user"][0]) for batch in fragments.take(0)} == {2}
        ray.set_actor_state(1, healthy=True)
        fragments.forget([1])
