"""Graph capture without a GPU: a recorder of tensor operations that replays them on the memory they ran on."""

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from envs.errors import UserError
from rl_rec.bench.capture import WARM_UP_CALLS, Captured, CapturedLoop, difference
from rl_rec.bench.settings import bench_settings
from rl_rec.bench.train import FastLoop
from rl_rec.bench.world import WorldSizes, random_world

SIZES = WorldSizes(population=12, items=24, profile_features=3, item_features=4, history=6, slate=3)


class Tape(TorchDispatchMode):
    """Every operation with its arguments and results: what a CUDA graph holds, as far as results go.

    Python runs once, when it is recorded. A replay does each operation again on the same tensors.
    """

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero):
            raise RuntimeError("operation not permitted when stream is capturing")
        result = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, result))
        return result

    @torch.no_grad()
    def replay(self):
        with torch._C._AutoDispatchBelowAutograd():  # where the operations were seen
            self._replay()

    def _replay(self):
        for func, args, kwargs, result in self.operations:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and new.data_ptr() != old.data_ptr():  # not a view, nor in place
                    old.copy_(new)


class Recorder:
    """Like CUDA's, but that it does the work while it records, and so skips the first replay."""

    def __init__(self):
        self.recorded = 0

    def warm_up(self, work):
        return work()

    def record(self, work, generators):
        self.recorded += 1
        with Tape() as tape:
            result = work()
        fresh = [True]

        def replay():
            if not fresh:
                tape.replay()
            fresh.clear()

        return replay, result


def settings_for(agent, *changes):
    sizes = {"users": 4, "fragment": 2, "batch_size": 8, "capacity": 64, "replay_ratio": 3.0}
    return bench_settings(agent, world=SIZES, **sizes).with_overrides(changes)


def loops(settings):
    world, recorder = random_world(SIZES, seed=0), Recorder()
    return FastLoop(settings, world), CapturedLoop(settings, world, recorder), recorder


@pytest.mark.parametrize(
    "agent, changes",
    [
        ("hac", ()),
        ("hsrl", ("agent.temperature=3",)),
        ("hac", ("fragment=1", "rules.signals=true", "rules.dynamics.drift=0.3", "rules.dynamics.trust=1")),
        ("hac", ("rules.candidates=12", "rules.candidates_per=request")),
    ],
)
def test_recorded_training_is_equal_to_the_bit(agent, changes):
    eager, captured, recorder = loops(settings_for(agent, *changes))
    for _ in range(3 + WARM_UP_CALLS):
        eager.run(2)
        captured.run(2)
        assert difference(eager, captured) == (0.0, 0.0)
    assert recorded_both(recorder)
    assert eager.rollout.statistics.drain() == captured.rollout.statistics.drain()


def recorded_both(recorder):
    return recorder.recorded == 2  # collecting and the update, once each


def test_a_step_that_leaves_its_state_elsewhere_is_found(monkeypatch):
    """What the recorder is worth: without the copy back, replays serve the same users again."""
    eager, captured, _ = loops(settings_for("hac"))
    monkeypatch.setattr(type(captured.rollout.simulator), "keep_users_in", lambda *_: None)
    for loop in (eager, captured):
        loop.run(3 + WARM_UP_CALLS)
    assert difference(eager, captured).collected > 0


def test_inputs_are_copied_to_where_the_recording_reads_them():
    double = Captured(lambda x: 2 * x, Recorder(), [])
    results = [double(x=torch.full((2,), float(call))).clone() for call in range(WARM_UP_CALLS + 3)]
    assert [float(result[0]) for result in results] == [2.0 * call for call in range(WARM_UP_CALLS + 3)]


@pytest.mark.parametrize(
    "changes",
    [
        ("rules.candidates=12", "rules.budgets.clicks=3"),
        ("rules.catalogue.withheld=0.5", "rules.catalogue.churn=0.1"),
    ],
)
def test_rules_that_need_the_host_are_refused(changes):
    with pytest.raises(UserError, match="graphs repeat the same work"):
        CapturedLoop(settings_for("hac", *changes), random_world(SIZES, seed=0), Recorder())
