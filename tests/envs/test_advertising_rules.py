"""Worlds with money by hand: what slots earn, who leaves, candidates per request, budgets."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch

from envs.budgets import BudgetSettings
from envs.data.behaviours import Behaviour
from envs.errors import UserError
from envs.simulator import Simulator
from envs.transition import Transition
from envs.world import World
from envs.world_settings import WorldSettings
from rl_rec.reference import OraclePolicy, RandomPolicy
from rl_rec.rollout import Rollout
from rl_rec.scoring.losses import WorldView
from rl_rec.transitions import Transitions

MakeWorld = Callable[..., World]
ALWAYS, NEVER = 40.0, -40.0  # logits


def ad_world(small_world: MakeWorld, click: list[float], conversion: list[float], **sizes: Any) -> World:
    """Ad i bids i and its conversion is worth 10·i; logits are each ad's own, the same for every user."""
    ads = len(click)
    world = small_world(items=ads, **sizes)
    response = world.response
    response.behaviours = 2
    response.items.zero_()
    response.outputs = response.outputs.repeat(1, 1, 2)
    response.history_offset, response.user_offset = (
        response.history_offset.repeat(2),
        response.user_offset.repeat(1, 2),
    )
    response.item_bias = torch.tensor([[0.0, *click], [0.0, *conversion]]).T.contiguous()
    bid = torch.arange(ads + 1.0)
    behaviours = (Behaviour("click"), Behaviour("conversion", after="click"))
    return replace(world, behaviours=behaviours, item_money=torch.stack([bid, 10 * bid], dim=1))


def rules(**changes: Any) -> WorldSettings:
    fields = {"history_length": 3, "start_history": "empty", "repeats": "allow", "miss": 0.0, **changes}
    return WorldSettings.from_mapping(fields)


PROFIT = {"click": -0.5, "conversion": 1.0}


def certain(small_world: MakeWorld) -> World:
    """Ads 1 and 3 are clicked, of which 3 converts; 2 and 4 would convert but are not clicked."""
    return ad_world(
        small_world, [ALWAYS, NEVER, ALWAYS, NEVER] * 2, [NEVER, ALWAYS, ALWAYS, ALWAYS] * 2, slate=4, users=6
    )


def test_slots_are_worth_their_items_money(small_world: MakeWorld):
    simulator = Simulator(certain(small_world), rules(weights=PROFIT, miss=-0.25), num_users=2, seed=0)
    transition = simulator.advance(torch.tensor([[1, 2, 3, 4], [3, 7, 2, 1]]))
    # −0.5·1; a miss; −0.5·3 + 30; −0.5·7 + 70
    assert transition.value.tolist() == [[-0.5, -0.25, 28.5, -0.25], [28.5, 66.5, -0.25, -0.5]]
    assert transition.reward.tolist() == pytest.approx([27.5 / 4, 94.25 / 4])


def test_what_slots_moved_reaches_learners(small_world: MakeWorld):
    simulator = Simulator(certain(small_world), rules(weights=PROFIT), num_users=16, seed=0)
    policy = RandomPolicy(simulator, torch.Generator().manual_seed(0))
    batch = Transitions(**Rollout(simulator, policy).collect(4))
    ad = batch.slate.float()
    worth = torch.tensor([0.0, -0.5, 0.0, 9.5])[batch.slate % 4] * ad  # ads 1 and 5 cost, 3 and 7 convert
    torch.testing.assert_close(batch.slot_values, worth)
    torch.testing.assert_close(batch.slot_values.mean(dim=1), batch.reward)


def test_the_oracle_ranks_by_expected_profit(small_world: MakeWorld):
    # P(click) = 1/2, P(conversion | click) = 1/10, 3/4 …: 0.5·i·(10·c − 0.5) a slot, and 0.05 of misses.
    conversion = torch.tensor([0.1, 0.75, 0.02, 0.05]).logit().tolist()
    world = ad_world(small_world, [0.0] * 4, conversion, slate=2, users=5)
    simulator = Simulator(world, rules(weights=PROFIT, miss=-0.1), num_users=3, seed=0)
    expected = torch.tensor([0.25, 7.0, -0.45, 0.0]) - 0.05
    torch.testing.assert_close(simulator.expected_values()[:, 1:], expected.expand(3, -1))
    assert OraclePolicy(simulator).act(simulator.observation).slate.tolist() == [[2, 1]] * 3


@pytest.mark.parametrize(
    ("leaving", "gone"),
    [("reward", [False, False, True]), ("clicks", [False, False, False]), ("never", [False] * 3)],
)
def test_what_users_leave_for(small_world: MakeWorld, leaving: str, gone: list[bool]):
    # Half the slots are clicked: (1 − 0.45)·4 + 1 = 3.2 of patience a step, seven steps. As a reward
    # (−0.5·1 − 0.5·5)/4 = −0.75: (1 + 0.75)·4 + 1 = 8 a step, three steps.
    simulator = Simulator(
        certain(small_world),
        rules(weights={"click": -0.5}, leaving=leaving, max_steps=20),
        num_users=1,
        seed=0,
    )
    slate = torch.tensor([[1, 2, 5, 4]])
    assert [bool(simulator.advance(slate).terminated) for _ in gone] == gone
    stays = [bool(simulator.advance(slate).terminated) for _ in range(2, 9)]
    assert (True in stays) == (leaving != "never")


def test_a_miss_of_odd_parts_is_refused(small_world: MakeWorld):
    with pytest.raises(UserError, match=r"world.miss is 0.0005, expected thousandths"):
        Simulator(certain(small_world), rules(miss=0.0005), num_users=1, seed=0)


def test_values_are_stored_unless_only_clicks_count(small_world: MakeWorld):
    plain, ads = small_world(items=8, slate=4), certain(small_world)
    for world, changes, only in (
        (plain, {"miss": -0.1}, True),
        (plain, {}, False),
        (replace(plain, item_money=torch.ones(9, 1)), {"miss": -0.1}, True),
        (ads, {"miss": -0.1}, False),
    ):
        assert Simulator(world, rules(**changes), 2, seed=0).only_clicks_count is only


@pytest.mark.parametrize("name", ["retrieval=0.5", "candidates_per=request", "budgets.clicks=3"])
def test_what_needs_candidates_says_so(name: str):
    with pytest.raises(UserError, match=r"set candidates, e\.g\. to 200"):
        WorldSettings().with_overrides([name])


REQUEST = {"candidates": 5, "candidates_per": "request", "max_steps": 3, "leaving": "never"}


def test_every_request_has_its_own_candidates(small_world: MakeWorld):
    world = ad_world(small_world, [0.0] * 12, [0.0] * 12, slate=2, users=6)
    simulator = Simulator(world, rules(**REQUEST), num_users=20, seed=0)
    rollout = Rollout(simulator, OraclePolicy(simulator))
    columns = [rollout.collect(1) for _ in range(6)]
    for step, (row, after) in enumerate(pairwise(columns), start=1):
        assert (row["candidates"] != row["next_candidates"]).any(dim=1).all()
        # A user who goes on finds exactly what was foretold; a new one finds another set.
        same = (row["next_candidates"] == after["candidates"]).all(dim=1)
        assert same.tolist() == [step % 3 != 0] * 20

    view = WorldView(world.profiles, world.item_features, forbid_repeats=False)
    batch = Transitions(**columns[0])
    now, then = view.observations(batch)
    assert torch.equal(now.candidates, batch.candidates) and torch.equal(then.candidates, batch.next_candidates)
    assert view.observations(batch._replace(next_candidates=None))[1].candidates is batch.candidates


def test_users_on_hold_keep_their_candidates(small_world: MakeWorld):
    world = ad_world(small_world, [0.0] * 12, [0.0] * 12, slate=2, users=6)
    simulator = Simulator(world, rules(**REQUEST), num_users=8, seed=0)
    before, hold = simulator.candidates.clone(), torch.arange(8) < 4
    simulator.advance(simulator.candidates[:, :2], hold)
    assert torch.equal(simulator.candidates[:4], before[:4])
    assert (simulator.candidates[4:] != before[4:]).any(dim=1).all()


def test_retrieval_follows_the_users_own_logits(two_kinds: World):
    # logit ±3: of ten items of either kind, nearly all candidates are of the user's.
    shares = {}
    for strength in (0.0, 2.0):
        changes = rules(candidates=6, retrieval=strength, miss=-0.1)
        simulator = Simulator(two_kinds, changes, num_users=200, seed=0)
        kind = two_kinds.profiles[simulator.user, :1]
        shares[strength] = (two_kinds.item_features[simulator.candidates, 0] == kind).float().mean().item()
    assert shares[0.0] == pytest.approx(0.5, abs=0.05) and shares[2.0] > 0.99


def test_used_up_ads_are_not_retrieved_before_the_next_day(small_world: MakeWorld):
    world = ad_world(small_world, [ALWAYS] * 6, [NEVER] * 6, slate=2, users=6)
    budget = {"clicks": 2.0, "day": 4}
    for per, at in (("request", 5), ("user", 6)):
        changes = rules(**{**REQUEST, "candidates": 6, "candidates_per": per, "max_steps": 99}, budgets=budget)
        simulator = Simulator(world, changes, num_users=2, seed=0)
        simulator.advance(torch.tensor([[1, 2], [1, 3]]))  # two clicks on ad 1: its budget
        found = [set(row) for row in simulator.candidates.tolist()]
        assert [len(row - {0}) for row in found] == [at] * 2, "sets that are drawn stay as they are"
        assert all((1 in row) == (per == "user") for row in found)
        for _ in range(3):
            simulator.advance(torch.tensor([[4, 5], [4, 5]]))
        simulator.restart(torch.ones(2, dtype=torch.bool))
        assert all(set(row) == {1, 2, 3, 4, 5, 6} for row in simulator.candidates.tolist())


def serve(simulator: Simulator, steps: int) -> list[Transition]:
    return [simulator.step(simulator.candidates[:, :2]) for _ in range(steps)]


def test_a_restored_world_goes_on_bit_equal(small_world: MakeWorld):
    world = ad_world(small_world, [1.0] * 12, [0.0] * 12, slate=2, users=6)
    changes = rules(**REQUEST, retrieval=0.7).model_copy(
        update={"budgets": BudgetSettings(clicks=12.0, spread=0.5, day=50)}
    )
    one, other = (Simulator(world, changes, num_users=6, seed=seed) for seed in (1, 77))
    serve(one, 5)
    state = one.state_dict()
    assert bool(state["spent"].any())
    expected = serve(one, 20)
    for simulator in (other, one):  # the state did not change with the simulator it came from
        simulator.load_state_dict(state)
        for a, b in zip(serve(simulator, 20), expected, strict=True):
            assert torch.equal(a.value, b.value)
            assert torch.equal(a.next_observation.candidates, b.next_observation.candidates)
