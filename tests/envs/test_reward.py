"""Rewards and patience by hand, and the published bounds of whole episodes."""

from fractions import Fraction

import pytest
import torch

from envs.reward import (
    INITIAL_PATIENCE,
    LEAVE_BELOW,
    UNIT,
    RewardName,
    best_clicks,
    only_clicks_count,
    patience_cost,
    slate_reward,
    slot_reward,
    slot_values,
)
from envs.simulator import Simulator
from envs.world_settings import WorldSettings

SWEET, MEAN = "sweet_point", "mean_with_cost"
NAMES: list[RewardName] = [MEAN, SWEET]


def totals(slate_size: int) -> torch.Tensor:
    """What slates of 0 … K clicks are worth, in thousandths."""
    clicked = torch.arange(slate_size)[None, :] < torch.arange(slate_size + 1)[:, None]
    return slot_values(clicked[..., None], torch.tensor([UNIT])).sum(dim=1)


def reward_table(name: RewardName, slate_size: int) -> torch.Tensor:
    return slate_reward(name, totals(slate_size), slate_size)


def patience_cost_table(name: RewardName, slate_size: int) -> torch.Tensor:
    return patience_cost(name, totals(slate_size), slate_size)


def exact_reward(name: RewardName, clicks: int, slate_size: int) -> Fraction:
    mean = (clicks - Fraction(slate_size - clicks, 10)) / slate_size
    return mean if name == MEAN else 1 - abs(mean - Fraction(9, 10))


def walk(name: RewardName, clicks: int, slate_size: int) -> tuple[int, float]:
    """Steps and total reward of a user who clicks ``clicks`` of every slate."""
    cost = int(patience_cost_table(name, slate_size)[clicks])
    patience, steps = INITIAL_PATIENCE, 0
    while patience >= LEAVE_BELOW:
        patience, steps = patience - cost, steps + 1
    return steps, steps * float(reward_table(name, slate_size)[clicks])


def test_both_rewards_by_hand():
    # Four slots, c clicks: m = (c − 0.1·(4 − c)) / 4.
    assert reward_table(MEAN, 4).tolist() == pytest.approx([-0.1, 0.175, 0.45, 0.725, 1.0])
    assert reward_table(SWEET, 4).tolist() == pytest.approx([0.0, 0.275, 0.55, 0.825, 0.9])


def test_both_patience_costs_by_hand():
    assert patience_cost_table(MEAN, 4).tolist() == [5400, 4300, 3200, 2100, 1000]
    assert patience_cost_table(SWEET, 4).tolist() == [5000, 3900, 2800, 1700, 1400]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("slate_size", [1, 2, 7, 9, 10, 33])
def test_tables_equal_exact_arithmetic(name: RewardName, slate_size: int):
    rewards = [exact_reward(name, clicks, slate_size) for clicks in range(slate_size + 1)]

    assert reward_table(name, slate_size).tolist() == pytest.approx([float(r) for r in rewards], abs=1e-7)
    assert patience_cost_table(name, slate_size).tolist() == [
        1000 * ((1 - r) * slate_size + 1) for r in rewards
    ]


def test_the_reward_is_single_precision_and_the_patience_whole():
    assert reward_table(SWEET, 9).dtype == torch.float32
    assert patience_cost_table(SWEET, 9).dtype == torch.int64


@pytest.mark.parametrize(
    ("clicks", "steps", "total"), [(9, 11, 9.9), (8, 16, 15.64), (7, 9, 7.7), (5, 5, 55 / 18)]
)
def test_published_bounds_of_sweet_point(small_world, clicks: int, steps: int, total: float):
    assert walk(SWEET, clicks, 9) == (steps, pytest.approx(total, abs=0.005))
    assert total == pytest.approx({9: 9.9, 8: 15.64, 7: 7.7, 5: 3.1}[clicks], abs=0.05)
    # The same through the simulator: the first items always get a response, the others never.
    world = small_world(slate=9, items=30, logits=[40.0] * clicks + [-40.0] * (30 - clicks))
    rules = WorldSettings(reward=SWEET, repeats="allow", max_steps=30)
    assert (
        stay(Simulator(world, rules, num_users=3, seed=0), torch.arange(1, 10))
        == [(steps, pytest.approx(total, abs=0.005))] * 3
    )


def test_an_all_click_user_of_mean_with_cost_stays_exactly_20_steps(small_world):
    world = small_world(slate=10, items=30, logits=[40.0] * 30)
    rules = WorldSettings(repeats="allow", max_steps=30)

    assert walk(MEAN, 10, 10) == (20, 20.0)
    assert stay(Simulator(world, rules, num_users=2, seed=0), torch.arange(1, 11)) == [(20, 20.0)] * 2


def test_single_precision_would_end_an_all_click_episode_one_step_early():
    # Why patience is kept in whole thousandths: this is what the released environment computes.
    reward = 1 - (torch.ones(9).mean() - 0.9).abs()
    patience, steps = torch.tensor(20.0), 0
    while patience >= 1:
        patience, steps = patience - ((1 - reward) * 9 + 1), steps + 1

    assert steps == 10
    assert walk(SWEET, 9, 9)[0] == 11


def test_behaviours_are_worth_their_weights_by_hand():
    # Click, like and hate are worth 1, 0.5 and -2; without a click a slot loses 0.1.
    response = torch.tensor([[[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0]]], dtype=torch.bool)
    values = slot_values(response, torch.tensor([1000, 500, -2000]))

    assert values.tolist() == [[1000, 1500, -2100, -100]]
    assert slate_reward(MEAN, values.sum(dim=1), 4).tolist() == pytest.approx([0.075])  # 0.3 / 4
    assert patience_cost(MEAN, values.sum(dim=1), 4).tolist() == [4700]  # (1 - 0.075) * 4 + 1
    assert slate_reward(SWEET, values.sum(dim=1), 4).tolist() == pytest.approx([0.175])  # 1 - |0.075 - 0.9|
    assert patience_cost(SWEET, values.sum(dim=1), 4).tolist() == [4300]


def test_with_clicks_alone_a_slot_is_worth_its_own_response():
    response = torch.tensor([[[True, False], [False, True]]])

    assert only_clicks_count(torch.tensor([1000, 0])) and not only_clicks_count(torch.tensor([1000, 1]))
    assert torch.equal(slot_values(response, torch.tensor([1000, 0])) / UNIT, slot_reward(response[..., 0]))


def test_one_click_too_many_where_the_sweet_point_is_below_a_full_slate():
    assert [best_clicks(SWEET, size) for size in (4, 9, 10)] == [4, 8, 9]
    assert best_clicks(MEAN, 9) == 9


def stay(simulator: Simulator, slate: torch.Tensor) -> list[tuple[int, float]]:
    """Steps and total reward of every user until they leave, shown the same slate throughout."""
    users = simulator.num_users
    steps, total = torch.zeros(users, dtype=torch.int64), torch.zeros(users, dtype=torch.float64)
    gone = torch.zeros(users, dtype=torch.bool)
    while not gone.all():
        transition = simulator.advance(slate.expand(users, -1), hold=gone)
        assert not transition.truncated.any()
        steps += ~gone
        total += transition.reward * ~gone
        gone |= transition.terminated
    return list(zip(steps.tolist(), total.tolist(), strict=True))
