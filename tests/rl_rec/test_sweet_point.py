"""The reward ``sweet_point``: what an episode can earn, and who leaves a deliberate miss."""

from collections.abc import Callable

import pytest
import torch

from envs.simulator import Simulator
from envs.world import World
from envs.world_settings import WorldSettings
from rl_rec.evaluation import evaluate
from rl_rec.policy import Decision
from rl_rec.reference import OraclePolicy, RankingPolicy
from rl_rec.sweet_point import episode_bounds, one_deliberate_miss, sweet_point_bounds

MakeWorld = Callable[..., World]
SWEET = WorldSettings(history_length=2, reward="sweet_point", start_history="empty", repeats="allow")


def test_bounds_by_hand():
    # 9 of 9: m = 1, r = 0.9, patience falls by 0.9 + 1 = 1.9: 20 − 10·1.9 = 1 is not below 1, so 11 steps.
    # 8: m = 7.9/9, r = 1 − 0.2/9, falls by 1.2: 16 steps. 7: r = 1 − 1.3/9, falls by 2.3: 9 steps.
    bounds = {bound.clicks: bound for bound in episode_bounds(9, max_steps=20)}
    assert list(bounds) == list(range(10))
    assert [bounds[clicks].steps for clicks in (9, 8, 7, 5)] == [11, 16, 9, 5]
    totals = [bounds[clicks].total for clicks in (9, 8, 7, 5)]
    assert totals == pytest.approx([11 * 0.9, 16 * (1 - 0.2 / 9), 9 * (1 - 1.3 / 9), 3.06], abs=5e-3)
    assert totals == pytest.approx([9.9, 15.64, 7.7, 3.06], abs=5e-3)
    assert max(bounds.values(), key=lambda bound: bound.total).clicks == 8


def test_bounds_are_cut_off_with_the_episode():
    bounds = episode_bounds(9, max_steps=10)
    assert [bound.steps for bound in bounds[-2:]] == [10, 10]
    assert bounds[-1].total == pytest.approx(9.0) and bounds[8].total == pytest.approx(10 * (1 - 0.2 / 9))


def test_the_simulator_agrees_with_the_bounds(small_world: MakeWorld):
    # Items 1 … 15 are always clicked, the others never: c clicks at every step.
    world = small_world(slate=9, logits=[40.0] * 15 + [-40.0] * 15)
    for bound in episode_bounds(9, SWEET.max_steps):
        slate = torch.tensor([*range(1, bound.clicks + 1), *range(16, 25 - bound.clicks)])

        class Same:
            def act(self, observation, slate=slate):
                return Decision(slate.expand(len(observation.user), -1), {})

        result = evaluate(world, SWEET, lambda _: Same(), 3, seed=0)
        assert result.depth.tolist() == [bound.steps] * 3
        assert result.return_mean == pytest.approx(bound.total, abs=1e-5)
        assert result.misses is not None and result.misses.one_short_share == (bound.clicks == 8)


def test_a_deliberate_miss_by_hand(small_world: MakeWorld):
    # Item i has the i-th lowest probability of ten: the lower median is item 5, below it lie 1 … 4.
    world = small_world(items=10, slate=3, logits=[0.1 * item for item in range(1, 11)])
    slates = [[10, 9, 4], [10, 9, 5], [10, 3, 4], [8, 7, 6], [10, 1, 10], [10, 9, 10]]
    simulator = Simulator(world, SWEET, len(slates), seed=0)
    miss = one_deliberate_miss(simulator, simulator.observation, torch.tensor(slates))
    # What is repeated may not be shown: it is never clicked.
    assert miss.tolist() == [True, False, False, False, False, True]


def test_the_median_is_of_what_may_be_shown(small_world: MakeWorld):
    world = small_world(items=10, slate=2, logits=[0.1 * item for item in range(1, 11)])
    rules = SWEET.model_copy(update={"repeats": "forbid", "history_length": 4})
    simulator = Simulator(world, rules, 2, seed=0)
    simulator.history = torch.tensor([[0, 0, 0, 0], [1, 2, 3, 4]])
    # Of 1 … 10 the lower median is 5; of 5 … 10 it is 7.
    miss = one_deliberate_miss(simulator, simulator.observation, torch.tensor([[10, 6], [10, 6]]))
    assert miss.tolist() == [False, True]


def test_the_oracle_leaves_a_miss_and_a_ranker_does_not(small_world: MakeWorld):
    world = small_world(slate=9, logits=[9.0 - 0.05 * item for item in range(30)])
    rules = SWEET.model_copy(update={"repeats": "forbid"})
    oracle = evaluate(world, rules, OraclePolicy, 64, seed=0)
    ranker = evaluate(world, rules, lambda s: RankingPolicy(s, -torch.arange(31.0)), 64, seed=0)
    assert oracle.misses is not None and ranker.misses is not None
    assert oracle.misses.deliberate_miss_share == 1.0
    assert ranker.misses.deliberate_miss_share == 0.0
    assert set(oracle.summary()) - set(
        evaluate(world, rules, OraclePolicy, 4, seed=0, returns_only=True).summary()
    ) == {"deliberate_miss_share", "one_short_share"}


def test_the_catalogue_is_scored_once_a_step(small_world: MakeWorld, monkeypatch: pytest.MonkeyPatch):
    world = small_world(slate=9, logits=[9.0 - 0.05 * item for item in range(30)])
    calls = {"user_vectors": 0, "all_logits": 0}

    def counted(name: str) -> Callable[..., torch.Tensor]:
        original = getattr(world.response, name)

        def call(*arguments: torch.Tensor) -> torch.Tensor:
            calls[name] += 1
            return original(*arguments)

        return call

    for name in calls:
        monkeypatch.setattr(world.response, name, counted(name))
    evaluate(world, SWEET, OraclePolicy, 5, seed=0)
    assert calls == {"user_vectors": SWEET.max_steps, "all_logits": SWEET.max_steps}


def test_steps_of_users_who_left_are_not_counted(small_world: MakeWorld):
    # Users of even slots get 8 of 9 clicks and stay for 16 steps, the others none and stay for two.
    world = small_world(slate=9, logits=[40.0] * 15 + [-40.0] * 15)
    slates = torch.tensor([[*range(1, 9), 16], [*range(16, 25)]])

    class Halves:
        def act(self, observation):
            return Decision(slates[torch.arange(len(observation.user)) % 2], {})

    result = evaluate(world, SWEET, lambda _: Halves(), 10, seed=0)
    alone = result.depth[::2].sum() / result.depth.sum()
    assert result.misses is not None
    assert result.misses.one_short_share == pytest.approx(float(alone))


@pytest.mark.parametrize(
    ("changes", "shown"),
    [({}, True), ({"reward": "mean_with_cost"}, False), ({"weights": {"like": 0.5}}, False)],
)
def test_bounds_are_shown_where_they_hold(small_world: MakeWorld, changes: dict, shown: bool):
    assert (sweet_point_bounds(small_world(), SWEET.model_copy(update=changes)) is not None) == shown
