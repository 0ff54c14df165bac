"""Rollouts: columns by hand, and statistics over all finished users against a naive count."""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch

from envs.catalogue import CatalogueSettings
from envs.simulator import Simulator
from envs.transition import Observation
from envs.world import World
from envs.world_settings import WorldSettings
from rl_rec.policy import Decision
from rl_rec.reference import RandomPolicy
from rl_rec.rollout import EpisodeStatistics, Rollout

MakeWorld = Callable[..., World]
RULES = WorldSettings(history_length=8, max_steps=5)


class Script:
    """Shows what it is told, and stores the number of the step."""

    def __init__(self, slates: list[list[list[int]]]) -> None:
        self._slates, self._step = torch.tensor(slates), -1

    def act(self, observation: Observation) -> Decision:
        self._step += 1
        return Decision(self._slates[self._step], {"step": torch.full((len(observation.user),), self._step)})


def random_rollout(world: World, rules: WorldSettings = RULES, users: int = 6, seed: int = 0) -> Rollout:
    simulator = Simulator(world, rules, users, seed)
    return Rollout(simulator, RandomPolicy(simulator, torch.Generator().manual_seed(seed)))


def test_columns_by_hand(small_world: MakeWorld):
    # Odd items are always clicked, even ones never; two users, slates of two, gone after two steps at most.
    world = small_world(slate=2, logits=[40.0 if item % 2 else -40.0 for item in range(1, 31)])
    rules = WorldSettings(history_length=3, start_history="empty", max_steps=2)
    simulator = Simulator(world, rules, num_users=2, seed=0)
    users = simulator.user.tolist()
    slates = [[[1, 3], [2, 4]], [[5, 2], [7, 1]]]
    columns = Rollout(simulator, Script(slates)).collect(steps=2)

    assert columns["user"].tolist() == users * 2
    assert columns["slate"].tolist() == [slate for step in slates for slate in step]
    assert columns["history"].tolist() == [[0, 0, 0], [0, 0, 0], [0, 1, 3], [0, 0, 0]]
    assert columns["next_history"].tolist() == [[0, 1, 3], [0, 0, 0], [1, 3, 5], [0, 7, 1]]
    assert columns["click"].tolist() == [[True, True], [False, False], [True, False], [True, True]]
    assert columns["reward"].tolist() == pytest.approx([1.0, -0.1, 0.45, 1.0])
    assert columns["terminated"].tolist() == [False] * 4
    assert columns["step"].tolist() == [0, 0, 1, 1], "the policy's extras"
    assert simulator.steps.tolist() == [0, 0], "both were cut off and replaced"
    assert not simulator.history.any()


def test_columns_are_compact(small_world: MakeWorld):
    columns = random_rollout(small_world(), RULES.model_copy(update={"candidates": 9})).collect(steps=3)

    assert {name: (column.dtype, tuple(column.shape)) for name, column in columns.items()} == {
        "user": (torch.int32, (18,)),
        "history": (torch.int32, (18, 8)),
        "slate": (torch.int32, (18, 4)),
        "click": (torch.bool, (18, 4)),
        "reward": (torch.float32, (18,)),
        "terminated": (torch.bool, (18,)),
        "next_history": (torch.int32, (18, 8)),
        "candidates": (torch.int32, (18, 9)),
    }


def test_the_clock_is_a_column_where_the_catalogue_changes(small_world: MakeWorld):
    churning = CatalogueSettings(withheld=0.5, churn=0.1)
    rollout = random_rollout(small_world(), RULES.model_copy(update={"catalogue": churning}), users=2)
    rollout.collect(steps=3)
    columns = rollout.collect(steps=3)

    assert columns["clock"].tolist() == [3, 3, 4, 4, 5, 5] and columns["clock"].dtype == torch.int32
    for clock, slate in zip(columns["clock"].tolist(), columns["slate"], strict=True):
        assert rollout.simulator.catalogue.live_at(clock)[slate.long()].all(), "when the slate was shown"
    static = RULES.model_copy(update={"catalogue": CatalogueSettings(withheld=0.5)})
    assert "clock" not in random_rollout(small_world(), static).collect(steps=1)


def test_steps_may_be_collected_in_any_portions(small_world: MakeWorld):
    whole, parts = random_rollout(small_world()), random_rollout(small_world())
    columns = whole.collect(steps=12)
    pieces = [parts.collect(steps=steps) for steps in (1, 4, 7)]

    for name, column in columns.items():
        assert torch.equal(torch.cat([piece[name] for piece in pieces]), column), name


def test_statistics_count_every_finished_user(small_world: MakeWorld):
    # Counted again, user by user, from the columns: many finish in one step.
    rollout = random_rollout(small_world(), users=16)
    steps, users = 40, 16
    columns = {name: column.reshape(steps, users, -1) for name, column in rollout.collect(steps).items()}
    returns, depths, cut = [], [], 0
    for slot in range(users):
        total, depth = 0.0, 0
        for step in range(steps):
            total, depth = total + float(columns["reward"][step, slot]), depth + 1
            if columns["terminated"][step, slot] or depth == RULES.max_steps:
                cut += not columns["terminated"][step, slot]
                returns.append(total)
                depths.append(depth)
                total, depth = 0.0, 0
    expected = torch.tensor(returns, dtype=torch.float64)
    figures = rollout.statistics.drain()

    assert 0 < cut < len(returns), "users leave and are cut off"
    assert figures == {
        "episodes": len(returns),
        "return_mean": pytest.approx(expected.mean().item(), abs=1e-6),
        "return_std": pytest.approx(expected.std(correction=0).item(), abs=1e-6),
        "depth_mean": pytest.approx(sum(depths) / len(depths)),
        "click_rate": pytest.approx(columns["click"].double().mean().item()),
        "distinct_items": len(columns["slate"].unique()),
    }


def test_statistics_by_hand():
    statistics = EpisodeStatistics(2, 9, torch.device("cpu"))
    slate = torch.tensor([[1, 2], [2, 3]])
    click = torch.tensor([[True, False], [False, False]])
    statistics.update(slate, click, torch.tensor([1.0, 2.0]), torch.tensor([False, True]))
    statistics.update(slate + 4, click, torch.tensor([0.5, 4.0]), torch.tensor([True, True]))

    assert statistics.drain() == {
        "episodes": 3,
        "return_mean": pytest.approx((2.0 + 1.5 + 4.0) / 3),
        "return_std": pytest.approx(torch.tensor([2.0, 1.5, 4.0]).std(correction=0).item()),
        "depth_mean": pytest.approx(4 / 3),
        "click_rate": 2 / 8,
        "distinct_items": 6,
    }


def test_padding_in_a_slate_that_candidates_could_not_fill_is_no_item():
    statistics = EpisodeStatistics(1, 3, torch.device("cpu"))
    slate, click = torch.tensor([[2, 0]]), torch.tensor([[True, False]])
    statistics.update(slate, click, torch.tensor([1.0]), torch.tensor([False]))
    assert statistics.drain()["distinct_items"] == 1


def test_draining_starts_anew_while_episodes_go_on():
    statistics = EpisodeStatistics(1, 3, torch.device("cpu"))
    one = (torch.tensor([[1]]), torch.tensor([[True]]), torch.tensor([1.0]))
    statistics.update(*one, torch.tensor([False]))
    assert statistics.drain() == {"episodes": 0, "distinct_items": 1, "click_rate": 1.0}
    assert statistics.drain() == {"episodes": 0, "distinct_items": 0}
    statistics.update(*one, torch.tensor([True]))
    figures = statistics.drain()

    assert (figures["return_mean"], figures["depth_mean"]) == (2.0, 2.0)


@pytest.mark.parametrize("candidates", [None, 9])
def test_a_restored_rollout_goes_on_bit_equal(small_world: MakeWorld, candidates: int | None):
    rules = RULES.model_copy(update={"candidates": candidates})
    one = random_rollout(small_world(), rules)
    one.collect(steps=7)
    state = one.state_dict()
    untouched = deepcopy(state)
    one.collect(steps=3)  # must not change the state it gave
    slates = torch.randint(1, 31, (12, 6, 4), generator=torch.Generator().manual_seed(0)).tolist()
    runs = []
    for stored, seed in ((untouched, 0), (state, 5), (state, 0)):  # nor must a run that loads it
        other = random_rollout(small_world(), rules, seed=seed)
        other.load_state_dict(stored)
        other.policy = Script(slates)
        runs.append((other.collect(steps=12), other.statistics.drain()))

    for columns, figures in runs[1:]:
        assert all(torch.equal(columns[name], column) for name, column in runs[0][0].items())
        assert figures == runs[0][1]
