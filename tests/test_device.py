"""What would be wrong or slow on a GPU, seen without one: tensors of two devices, and hosts that wait."""

from dataclasses import replace

import pytest
import torch
from torch.utils._pytree import tree_leaves

from envs.data.behaviours import Behaviour
from envs.randomness import restore
from envs.simulator import Simulator
from envs.world_settings import WorldSettings
from rl_rec.bench.settings import bench_settings
from rl_rec.bench.train import FastLoop
from rl_rec.bench.world import WorldSizes, random_world
from rl_rec.evaluation import evaluate
from rl_rec.reference import OraclePolicy, RandomPolicy
from rl_rec.replay import Replay
from rl_rec.rollout import Rollout
from rl_rec.transitions import Transitions
from tests.pretend_device import META, HostSync, PretendDevice, pretended

SIZES = WorldSizes(population=12, items=30, profile_features=3, item_features=4, history=6, slate=3)
AGENTS = [
    *("hac", "hsrl", "ddpg", "ddpg-ra", "td3", "wolpertinger", "slateq", "a2c", "item-a2c", "supervised"),
]
WORLDS = {
    "plain": {},
    "candidates": {"candidates": 12, "candidates_per": "request", "retrieval": 1.0},
    "signals": {"signals": True, "dynamics": {"trust": 1.0, "satiation": 0.5, "drift": 0.1}},
    "sweet_point": {"reward": "sweet_point", "repeats": "allow", "start_history": "empty"},
    "budgets": {"candidates": 12, "budgets": {"clicks": 3.0, "day": 5}},
}


@pytest.fixture
def device(monkeypatch):
    with pretended(monkeypatch) as device:
        yield device


def loop_on(device, agent):
    settings = bench_settings(agent, world=SIZES, users=4, fragment=2, batch_size=8, capacity=64, device=device)
    return FastLoop(settings, random_world(SIZES, seed=0, device=device))


@pytest.mark.parametrize("agent", ["hac", "hsrl"])
def test_training_never_waits_and_comes_to_the_same(agent, monkeypatch):
    expected = loop_on("cpu", agent)
    expected.run(3)
    with pretended(monkeypatch) as device:
        loop = loop_on("meta", agent)
        loop.run(1)  # tables and optimizers are made
        with device.watching():
            loop.run(2)
        assert all(part.device == META for part in [*loop.networks.parameters(), *loop.replay.columns.values()])
        for name in ("slate", "click", "next_history"):
            assert torch.equal(loop.replay.columns[name].cpu(), expected.replay.columns[name])
        ours, theirs = (
            {name: value.cpu() for name, value in each.networks.state_dict().items()}
            for each in (loop, expected)
        )
    weight = max(ours, key=lambda name: ours[name].numel())
    torch.testing.assert_close(ours[weight], theirs[weight], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("world_name", WORLDS)
def test_no_world_makes_rollouts_or_replays_wait(device, world_name):
    rules = WorldSettings(history_length=6, max_steps=3, **WORLDS[world_name])
    world = random_world(SIZES, seed=0, device="meta")
    rollout = Rollout(simulator := Simulator(world, rules, 5, 0), RandomPolicy(simulator, generator(1)))
    replay = Replay(40, 0, "meta")
    replay.add(rollout.collect(2))
    with device.watching():
        replay.add(rollout.collect(5))
        replay.sample(8)
    assert rollout.statistics.drain()["episodes"] > 0


@pytest.mark.ray
@pytest.mark.parametrize("name", AGENTS)
def test_no_algorithm_makes_an_update_wait(device, name):
    from tests.agents.by_hand import make_module

    rules = WorldSettings(history_length=6, max_steps=3)
    world = random_world(SIZES, seed=0, device="meta")
    module = make_module(name, world, rules, **({"sid_codebook": 4} if name == "hsrl" else {})).to("meta")
    module.noise = generator(2)  # dropout
    policy, replay = module.rollout_policy(world, rules, generator(1)), Replay(40, 0, "meta")
    rollout = Rollout(Simulator(world, rules, 5, 0), policy)
    replay.add(rollout.collect(2))
    with device.watching():
        policy.weights_changed()
        replay.add(rollout.collect(2))
        batch = Transitions(**replay.sample(8))
        terms, watched = module.loss_terms(module.predict(batch), batch)
        torch.stack(list(terms.values())).sum().backward()
    assert all(value.isfinite() for value in {**terms, **watched}.values())


def generator(seed):
    return torch.Generator("meta").manual_seed(seed)


def test_evaluation_does_not_wait_for_every_step(device, monkeypatch):
    rules = WorldSettings(history_length=6, max_steps=3)
    world = random_world(SIZES, seed=0, device="meta")
    act = OraclePolicy.act

    def watched(policy, observation):  # from the first step to the end of the loop, which `advance` closes
        device.watch = True
        return act(policy, observation)

    monkeypatch.setattr(OraclePolicy, "act", watched)
    monkeypatch.setattr("rl_rec.evaluation.Catalogue.of", unwatch(device))
    assert evaluate(world, rules, OraclePolicy, 12, seed=0).return_mean > 0


def unwatch(device):
    from envs.catalogue import Catalogue

    of = Catalogue.of

    def after_the_loop(*arguments):
        device.watch = False
        return of(*arguments)

    return after_the_loop


def test_several_behaviours_and_money_do_not_wait(device):
    rules = WorldSettings(history_length=6, max_steps=3, weights={"like": 1.0})
    world = random_world(SIZES, seed=0, device="meta")
    money = torch.rand(SIZES.items + 1, 1, device="meta", generator=generator(3))
    world = replace(world, behaviours=(Behaviour("like"),), item_money=money)
    rollout = Rollout(simulator := Simulator(world, rules, 5, 0), RandomPolicy(simulator, generator(1)))
    with device.watching():
        assert rollout.collect(3)["value"].device == META


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: x + torch.zeros(3),  # a device forgotten
        lambda x: torch.where(x > 0, x, torch.zeros(3)),
        lambda x: torch.cat([x, torch.zeros(1)]),
        lambda x: torch.rand(3, device="meta", generator=torch.Generator()),
        lambda x: x[torch.arange(2)],  # works on a GPU, which waits for the copy
    ],
)
def test_two_devices_in_one_operation_are_seen(device, wrong):
    x = torch.arange(3.0, device="meta")
    with pytest.raises(RuntimeError, match=r"same device|the generator is on"):
        wrong(x)


@pytest.mark.parametrize(
    "waits",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).any()),
        lambda x: int(x.max()),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.unique(),
        lambda x: torch.bincount(x.long()),
        lambda x: x.masked_select(x > 0),
        lambda x: x.repeat_interleave(x.long()),
        lambda x: x.index_put_((x > 0,), torch.ones((), device=x.device)),
        lambda x: torch.tensor(1.0, device=x.device),
        lambda x: torch.arange(3).to(x.device),
        lambda x: torch.equal(x, x),
    ],
)
def test_what_waits_is_seen(device, waits):
    x = torch.arange(3.0).to("meta")
    waits(x)
    with pytest.raises(HostSync), device.watching():
        waits(x)


def test_nothing_else_is_taken_for_waiting(device):
    x = torch.arange(3.0, device="meta")
    with device.watching():
        y = torch.where(x > 1, 0.0, x)
        y[0] = 5.0
        y.masked_fill_(x == 1, 7.0).clamp_(max=6.5)
        assert x.repeat_interleave(2).shape == (6,)
    assert y.tolist() == [5.0, 6.5, 0.0]
    assert isinstance(device, PretendDevice) and device.calls > 0


def test_what_was_saved_on_one_device_goes_on_on_another(monkeypatch):
    """Nothing of a checkpoint lies on a GPU: a machine without one could not even read it."""
    rules = WorldSettings(history_length=6, max_steps=3, signals=True, dynamics={"trust": 1.0, "drift": 0.1})

    def made(device):
        rollout = Rollout(
            simulator := Simulator(random_world(SIZES, 0, device), rules, 5, 0),
            RandomPolicy(simulator, torch.Generator(device).manual_seed(1)),
        )
        replay = Replay(40, 0, device)
        replay.add(rollout.collect(2))
        return rollout, replay

    here, stored_here = made("cpu")
    with pretended(monkeypatch):
        there, stored_there = made("meta")
        state, rows = there.state_dict(), stored_there.state_dict()
        tensors = [leaf for leaf in tree_leaves((state, rows)) if isinstance(leaf, torch.Tensor)]
        assert {type(leaf) for leaf in tensors} == {torch.Tensor} and len(tensors) > 20
        there.load_state_dict(here.state_dict())
        stored_there.load_state_dict(stored_here.state_dict())
        assert there.simulator.history.device == META and stored_there.columns["slate"].device == META
        there.collect(1)
    here.load_state_dict(state)
    stored_here.load_state_dict(rows)
    assert here.collect(1)["slate"].shape == stored_here.sample(5)["slate"].shape


def test_a_generators_state_of_another_kind_of_device_becomes_a_seed():
    of_a_gpu = torch.arange(16, dtype=torch.uint8)  # a seed and an offset; a CPU's state has 5056 bytes
    one, same, other = (torch.Generator() for _ in range(3))
    restore(one, of_a_gpu)
    restore(same, of_a_gpu)
    restore(other, of_a_gpu + 1)
    first, second, third = (torch.rand(4, generator=each) for each in (one, same, other))
    assert torch.equal(first, second) and not torch.equal(first, third)
    restore(other, one.get_state())
    assert torch.equal(torch.rand(4, generator=one), torch.rand(4, generator=other))
