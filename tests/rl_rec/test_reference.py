"""The reference policies: uniform, ranked, and the oracle that knows the world."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from envs.catalogue import CatalogueSettings
from envs.data.behaviours import Behaviour
from envs.data.dataset import Split
from envs.data.prepare import PrepareSettings, prepare
from envs.data.synthetic import SyntheticSettings
from envs.dynamics import DynamicsSettings
from envs.ensemble import Ensemble
from envs.errors import UserError
from envs.simulator import Simulator
from envs.world import World
from envs.world_settings import WorldSettings
from rl_rec.evaluation import evaluate
from rl_rec.reference import (
    OraclePolicy,
    PenalisedOracle,
    RandomPolicy,
    RankingPolicy,
    expected_reward,
    popularity,
    search_ranking,
)

MakeWorld = Callable[..., World]
RULES = WorldSettings(history_length=8)
OLD = CatalogueSettings(withheld=0.5, rule="newest")
"""Items 1 … 15 of 30 are live."""


def simulator_with(world: World, users: int, **rules: object) -> Simulator:
    simulator = Simulator(world, RULES.model_copy(update=rules), users, seed=0)
    simulator.history = torch.zeros_like(simulator.history)
    simulator.history[:, -3:] = torch.tensor([2, 30, 2])
    if simulator.candidates is not None:
        simulator.candidates = torch.tensor([2, 4, 6, 8, 10, 12]).expand(users, -1)
    return simulator


@pytest.mark.parametrize(
    ("rules", "allowed"),
    [
        ({"repeats": "allow"}, range(1, 31)),
        ({"repeats": "forbid"}, sorted({*range(1, 31)} - {2, 30})),
        ({"repeats": "forbid", "candidates": 6}, [4, 6, 8, 10, 12]),
        ({"repeats": "forbid", "catalogue": OLD}, [1, *range(3, 16)]),
    ],
)
def test_random_is_uniform_over_what_may_be_shown(small_world: MakeWorld, rules: dict, allowed):
    users = 4000
    simulator = simulator_with(small_world(), users, **rules)
    slate = RandomPolicy(simulator, torch.Generator().manual_seed(0)).act(simulator.observation).slate
    count = torch.bincount(slate.flatten(), minlength=31)
    share = 4 / len(allowed)  # of the slates hold an item

    assert sorted(count.nonzero().flatten().tolist()) == list(allowed)
    spread = (users * share * (1 - share)) ** 0.5
    assert ((count[list(allowed)] - users * share).abs() <= 4 * spread).all()
    assert all(len(set(row)) == 4 for row in slate.tolist())


def test_a_ranking_shows_its_best_that_may_be_shown(small_world: MakeWorld):
    scores = torch.arange(31.0)
    for repeats, expected in (("allow", [30, 29, 28, 27]), ("forbid", [29, 28, 27, 26])):
        simulator = simulator_with(small_world(), 2, repeats=repeats)
        assert RankingPolicy(simulator, scores).act(simulator.observation).slate.tolist() == [expected] * 2
    simulator = simulator_with(small_world(), 2, catalogue=OLD)
    assert RankingPolicy(simulator, scores).act(simulator.observation).slate.tolist() == [[15, 14, 13, 12]] * 2
    simulator = simulator_with(small_world(), 2, candidates=6)
    assert RankingPolicy(simulator, scores).act(simulator.observation).slate.tolist() == [[12, 10, 8, 6]] * 2
    assert scores.tolist() == list(range(31)), "the ranking is not masked in place"


@pytest.mark.parametrize("repeats", ["allow", "forbid"])
@pytest.mark.parametrize("last", [30, 15])
def test_the_oracle_shows_the_most_probable_items(small_world: MakeWorld, repeats: str, last: int):
    changes = {"repeats": repeats, "catalogue": OLD if last == 15 else CatalogueSettings()}
    simulator = Simulator(small_world(), RULES.model_copy(update=changes), num_users=8, seed=0)
    slate = OraclePolicy(simulator).act(simulator.observation).slate
    for row, p, history in zip(
        slate.tolist(), simulator.probabilities().tolist(), simulator.history.tolist(), strict=True
    ):
        banned = {0, *(history if repeats == "forbid" else ())}
        assert row == sorted({*range(last + 1)} - banned, key=lambda item: -p[item])[:4]


@pytest.mark.parametrize(("slate_size", "misses"), [(4, 0), (9, 1), (10, 1), (20, 2)])
def test_the_oracle_leaves_the_misses_that_sweet_point_wants(
    small_world: MakeWorld, slate_size: int, misses: int
):
    # Clicks are sure. K clicks of 9 earn 0.9, K − 1 earn 0.978; of 4 slots all are worth a click.
    sure = [9.0 - 0.1 * item for item in range(26)] + [-9.0, -9.2, -9.4, -9.6]
    world = small_world(slate=slate_size, logits=sure)
    simulator = Simulator(world, WorldSettings(history_length=2, reward="sweet_point"), num_users=3, seed=0)
    simulator.history = torch.tensor([[0, 0], [1, 30], [2, 0]])
    slates = OraclePolicy(simulator).act(simulator.observation).slate.tolist()
    for slate, history in zip(slates, simulator.history.tolist(), strict=True):
        allowed = [item for item in range(1, 31) if item not in history]
        assert slate[: slate_size - misses] == allowed[: slate_size - misses]
        assert sorted(slate[slate_size - misses :]) == allowed[len(allowed) - misses :]


def test_the_oracle_leaves_no_miss_where_clicks_are_not_sure(small_world: MakeWorld):
    world = small_world(slate=9, logits=[0.5 - 0.01 * item for item in range(30)])
    rules = WorldSettings(history_length=2, repeats="allow", reward="sweet_point")
    simulator = Simulator(world, rules, num_users=3, seed=0)

    assert OraclePolicy(simulator).act(simulator.observation).slate.tolist() == [list(range(1, 10))] * 3


TRUST = {"dynamics": DynamicsSettings(trust=3.0)}


def several_behaviours(world: World, logits: list[list[float]]) -> World:
    """Clicks, purchases after them, and shares on their own, whose logits (3, N) hold for every user.

    A purchase of item i moves i/10.
    """
    response = world.response
    response.behaviours = 3
    response.items.zero_()
    response.outputs = response.outputs.repeat(1, 1, 3)
    response.history_offset = response.history_offset.repeat(3)
    response.user_offset = response.user_offset.repeat(1, 3)
    response.item_bias = torch.tensor([[0.0, *own] for own in logits]).T.contiguous()
    money = torch.ones(len(world.item_features), 3)
    money[:, 1] = torch.arange(len(money)) / 10
    behaviours = (Behaviour("click"), Behaviour("purchase", after="click"), Behaviour("share"))
    return replace(world, behaviours=behaviours, item_money=money)


def drawn_logits(items: int) -> list[list[float]]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(3, items, generator=generator).tolist()


@pytest.mark.parametrize("penalty", [0.0, 1.5])
@pytest.mark.parametrize(
    "weights", [{}, {"purchase": 5.0}, {"purchase": 5.0, "share": 2.0}, {"click": -0.5, "share": 1.0}]
)
def test_the_planner_ranks_by_what_slots_are_worth(
    small_world: MakeWorld, penalty: float, weights: dict[str, float]
):
    logits = drawn_logits(30)
    world = several_behaviours(small_world(), logits)
    rules = RULES.model_copy(update={**TRUST, "weights": weights, "miss": -0.5, "repeats": "allow"})
    simulator = Simulator(world, rules, num_users=2, seed=0)
    click, purchase, share = torch.tensor(logits)  # (30,)
    p = (click - penalty * simulator.trait[1:]).sigmoid()
    values = p * weights.get("click", 1.0) - 0.5 * (1 - p) + weights.get("share", 0.0) * share.sigmoid()
    values = values + weights.get("purchase", 0.0) * p * purchase.sigmoid() * torch.arange(1, 31) / 10
    expected = (values.argsort(descending=True)[:4] + 1).tolist()

    planner = PenalisedOracle(simulator, penalty)
    assert planner.act(simulator.observation).slate.tolist() == [expected] * 2
    if not penalty:
        assert OraclePolicy(simulator).act(simulator.observation).slate.tolist() == [expected] * 2


def test_the_planner_leaves_the_misses_that_sweet_point_wants(small_world: MakeWorld):
    sure = [9.0 - 0.1 * item for item in range(29)] + [-9.0]
    world = small_world(slate=9, logits=sure)
    rules = WorldSettings(history_length=2, repeats="allow", reward="sweet_point", **TRUST)
    simulator = Simulator(world, rules, num_users=3, seed=0)
    slate = PenalisedOracle(simulator, 0.0).act(simulator.observation).slate

    assert torch.equal(slate, OraclePolicy(simulator).act(simulator.observation).slate)
    assert slate[0].tolist() == [*range(1, 9), 30]


def test_the_planner_knows_the_price_of_uncertainty(small_world: MakeWorld):
    worlds = [small_world(items=12, slate=2, logits=[one, *[0.0] * 11]) for one in (1.0, 3.0)]
    ensemble = Ensemble(worlds[0].response, lambda: [worlds[1].response], threshold=0.2)
    world = replace(worlds[0], ensemble=ensemble)
    for price, shown in ((0.0, True), (3.0, False)):
        rules = RULES.model_copy(update={**TRUST, "repeats": "allow", "uncertainty_penalty": price})
        simulator = Simulator(world, rules, num_users=2, seed=0)
        slate = PenalisedOracle(simulator, 0.0).act(simulator.observation).slate
        assert (slate == 1).any(dim=1).tolist() == [shown] * 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dynamics": DynamicsSettings(satiation=1.0)}, r"dynamics\.trust=3"),
        ({"dynamics": DynamicsSettings(trust=1.0, drift=1.0), "weights": {"like": 2.0}}, r"dynamics\.drift"),
    ],
)
def test_a_planner_that_cannot_rank_is_refused(small_world: MakeWorld, changes: dict, message: str):
    simulator = Simulator(small_world(), RULES.model_copy(update=changes), num_users=2, seed=0)
    with pytest.raises(UserError, match=message):
        PenalisedOracle(simulator, 1.0)


def test_the_expected_reward_by_hand():
    # Chances of 0, 1, 2 clicks: 0.3, 0.5, 0.2; then 0, 0, 1.
    p = torch.tensor([[0.5, 0.4], [1.0, 1.0]])
    assert expected_reward(p, torch.tensor([1.0, 10.0, 100.0])).tolist() == pytest.approx([25.3, 100.0])


@pytest.mark.parametrize("reward", ["mean_with_cost", "sweet_point"])
def test_no_reference_shows_what_is_not_live(small_world: MakeWorld, reward: str):
    # The best and the worst items come and go; a slate of 9 wants a deliberate miss under sweet_point.
    world = small_world(slate=9, logits=[0.2 * item - 3.0 for item in range(30)])
    churning = CatalogueSettings(withheld=0.5, churn=0.2)
    rules = WorldSettings(history_length=3, reward=reward, catalogue=churning)
    makers = (
        lambda s: RandomPolicy(s, torch.Generator().manual_seed(0)),
        lambda s: RankingPolicy(s, search_ranking(world, rules, torch.arange(31.0), 0, users=8, rounds=1)),
        OraclePolicy,
    )
    for make in makers:
        simulator = Simulator(world, rules, num_users=6, seed=0)
        policy = make(simulator)
        for _ in range(12):
            slate = policy.act(simulator.observation).slate
            assert simulator.live is not None and simulator.live[slate].all()
            simulator.step(slate)


def test_the_oracle_is_best_and_random_worst(small_world: MakeWorld):
    world = small_world()
    makers = (
        lambda s: RandomPolicy(s, torch.Generator().manual_seed(0)),
        lambda s: RankingPolicy(s, search_ranking(world, RULES, torch.zeros(31), 0, users=64, rounds=2)),
        OraclePolicy,
    )
    random, ranking, oracle = (evaluate(world, RULES, make, 512, seed=1).return_mean for make in makers)

    assert random < ranking < oracle


def test_popularity_counts_the_likes_of_training_users():
    planted = SyntheticSettings(users=30, items=25, sessions_per_user=4)
    dataset = prepare("synthetic", None, PrepareSettings(slate_size=4, synthetic=planted))
    expected = np.zeros(26)
    for user, items, feedback in zip(
        dataset.session_user, dataset.session_items, dataset.session_feedback, strict=True
    ):
        for item, liked in zip(items, feedback, strict=True):
            expected[item] += liked and dataset.user_split[user] == Split.TRAIN

    assert popularity(dataset).tolist() == expected.tolist()


def test_the_search_finds_a_better_ranking_than_its_start(small_world: MakeWorld):
    # Items 1 … 30 with P rising in the index, and a start that ranks them the wrong way round.
    world = small_world(logits=[-3.0 + 0.2 * item for item in range(30)])
    worst = -torch.arange(31.0)

    def reached(scores: torch.Tensor) -> float:
        return evaluate(world, RULES, lambda s: RankingPolicy(s, scores), 128, seed=9).return_mean

    found = search_ranking(world, RULES, worst, seed=0, users=64, rounds=2, population=4)
    again = search_ranking(world, RULES, worst, seed=0, users=64, rounds=2, population=4)
    other = search_ranking(world, RULES, worst, seed=1, users=64, rounds=2, population=4)

    assert reached(found) > reached(worst) + 1.0
    assert reached(found) > 0.9 * reached(torch.arange(31.0))
    assert torch.equal(found, again) and not torch.equal(found, other)
    assert worst.tolist() == (-torch.arange(31.0)).tolist(), "the start is left as it was"


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_the_search_never_returns_less_than_its_start(small_world: MakeWorld, seed: int):
    # The start is the best order there is: on the search's own users nothing may come out below it.
    world = small_world(logits=[-3.0 + 0.2 * item for item in range(30)])
    best = torch.arange(31.0)
    found = search_ranking(world, RULES, best, seed, users=16, rounds=1, population=8)

    def reached(scores: torch.Tensor) -> float:
        return evaluate(world, RULES, lambda s: RankingPolicy(s, scores), 16, seed).return_mean

    assert reached(found) >= reached(best)


def test_the_search_reports_its_rounds(small_world: MakeWorld):
    reports: list[tuple[int, int]] = []
    search_ranking(
        small_world(), RULES, torch.zeros(31), 0, users=8, rounds=2, population=3,
        progress=lambda done, total, message="": reports.append((done, total)),
    )  # fmt: skip

    assert reports == [(1, 2), (2, 2)]
