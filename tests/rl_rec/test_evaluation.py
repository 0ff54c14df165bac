"""Evaluation: one episode per user, paired between policies, with an interval over users."""

from collections.abc import Callable
from dataclasses import replace
from math import isnan

import pytest
import torch

from envs.catalogue import CatalogueSettings
from envs.ensemble import Ensemble
from envs.simulator import Simulator
from envs.transition import Observation
from envs.world import World
from envs.world_settings import WorldSettings
from rl_rec.evaluation import Evaluation, evaluate, normalised
from rl_rec.policy import Decision, Policy
from rl_rec.reference import OraclePolicy, RandomPolicy, RankingPolicy

MakeWorld = Callable[..., World]
RULES = WorldSettings(history_length=8)


class Fixed:
    """The same slate for everybody; remembers the users it saw at each step."""

    def __init__(self, simulator: Simulator, slate: list[int], seen: list[Observation] | None = None) -> None:
        self._slate = torch.tensor(slate).expand(simulator.num_users, -1)
        self._seen = [] if seen is None else seen

    def act(self, observation: Observation) -> Decision:
        self._seen.append(observation)
        return Decision(self._slate, {})


def random_policy(simulator: Simulator) -> Policy:
    return RandomPolicy(simulator, torch.Generator().manual_seed(0))


def evaluation(returns: list[float], users: list[int]) -> Evaluation:
    return Evaluation(
        returns=torch.tensor(returns, dtype=torch.float64),
        users=torch.tensor(users),
        depth=torch.ones(len(users), dtype=torch.int64),
        clicks=torch.zeros(len(users), dtype=torch.int64),
        click_rate=0.5,
        distinct_items=3,
        coverage=0.3,
        intra_list_diversity=0.1,
        new_item_share=float("nan"),
    )


def test_every_user_has_exactly_one_episode(small_world: MakeWorld):
    # Some leave after four steps, some stay for twenty: each counts once, none is replaced by another.
    world = small_world(users=16)
    seen: list[Observation] = []
    result = evaluate(world, RULES, lambda simulator: Fixed(simulator, [1, 2, 3, 4], seen), 16, seed=0)

    assert sorted(result.users.tolist()) == list(range(16))
    assert result.returns.shape == result.depth.shape == (16,)
    assert result.depth.min() < result.depth.max() <= 20
    assert all(torch.equal(observation.user, result.users) for observation in seen)


def test_the_share_of_new_items_by_hand(small_world: MakeWorld):
    # Items 16 to 30 are new. Nobody clicks: everybody is there for four steps, and every slot counts.
    world = small_world(logits=[-40.0] * 30)
    old = CatalogueSettings(withheld=0.5, rule="newest")
    for changes, slate, share in (
        ({}, [1, 15, 16, 30], 0.5),  # asked for in vain, but shown
        ({"show": "all"}, [1, 17, 18, 19], 0.75),
        ({"show": "withheld"}, [27, 28, 29, 30], 1.0),
        ({"churn": 0.1}, [1, 2, 3, 4], 0.0),  # retired by then, and never new
    ):
        rules = WorldSettings(history_length=4, catalogue=old.model_copy(update=changes))
        result = evaluate(world, rules, lambda s, slate=slate: Fixed(s, slate), 20, seed=0)
        assert result.new_item_share == share
        assert result.summary()["new_item_share"] == share
    nothing_new = evaluate(world, RULES, lambda s: Fixed(s, [1, 2, 3, 4]), 20, seed=0)
    assert isnan(nothing_new.new_item_share) and nothing_new.summary()["new_item_share"] is None


def test_slots_of_users_who_left_are_no_new_items(small_world: MakeWorld):
    # Odd items are liked. Users of even slots see them and stay; the others leave after four steps.
    world = small_world(logits=[40.0 if item % 2 else -40.0 for item in range(1, 31)])
    old = CatalogueSettings(withheld=0.5, rule="newest", show="all")
    rules = WorldSettings(history_length=4, repeats="allow", start_history="empty", max_steps=8, catalogue=old)

    class Halves:
        def act(self, observation: Observation) -> Decision:
            slates = torch.tensor([[1, 3, 5, 7], [16, 18, 20, 22]])
            return Decision(slates[torch.arange(len(observation.user)) % 2], {})

    result = evaluate(world, rules, lambda _: Halves(), 16, seed=0)
    assert result.depth.tolist() == [8, 4] * 8
    assert result.new_item_share == pytest.approx(4 / 12)


def test_every_batch_of_users_finds_the_world_at_its_beginning(
    small_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("rl_rec.evaluation._USERS_AT_ONCE", 8)
    rules = RULES.model_copy(update={"catalogue": CatalogueSettings(withheld=0.5, churn=0.1)})
    clocks = []
    evaluate(small_world(), rules, lambda s: clocks.append(s.clock) or random_policy(s), 24, seed=0)
    assert clocks == [0, 0, 0]


def test_returns_and_depths_by_hand(small_world: MakeWorld):
    # Nothing is clicked: four misses cost 5.4 of patience, gone after the fourth step with −0.1 each.
    result = evaluate(
        small_world(logits=[-40.0] * 30), RULES, lambda s: Fixed(s, [1, 2, 3, 4]), episodes=5, seed=0
    )

    assert result.depth.tolist() == [4] * 5
    assert result.returns.tolist() == pytest.approx([-0.4] * 5)
    assert result.click_rate == 0.0
    assert (result.distinct_items, result.coverage) == (4, 4 / 30)


def test_what_is_shown_after_a_user_left_does_not_count(small_world: MakeWorld):
    class Changing:
        step = 0

        def act(self, observation: Observation) -> Decision:
            self.step += 1
            first = 1 if self.step <= 4 else 11
            return Decision(torch.arange(first, first + 4).expand(len(observation.user), -1), {})

    logits = [-40.0] * 10 + [40.0] * 20  # what comes after the fourth step would be clicked
    result = evaluate(small_world(logits=logits), RULES, lambda _: Changing(), episodes=3, seed=0)

    assert (result.distinct_items, result.click_rate) == (4, 0.0)
    assert result.depth.tolist() == [4] * 3


@pytest.mark.parametrize("episodes", [10, 16, 37])
def test_users_come_equally_often(small_world: MakeWorld, episodes: int):
    result = evaluate(small_world(users=16), RULES, random_policy, episodes, seed=0)
    count = torch.bincount(result.users, minlength=16)

    assert len(result.users) == episodes
    assert count.max() - count.min() <= 1


def test_only_users_of_the_world_are_served(small_world: MakeWorld):
    world = small_world(users=16)
    some = replace(world, population=replace(world.population, users=torch.tensor([3, 8, 11])))
    result = evaluate(some, RULES, random_policy, 7, seed=0)

    assert set(result.users.tolist()) == {3, 8, 11}


def test_policies_meet_the_same_users_histories_and_chances(small_world: MakeWorld):
    world, seen = small_world(users=16), []
    for slate in ([1, 2, 3, 4], [5, 6, 7, 8]):
        observations: list[Observation] = []
        evaluate(world, RULES, lambda s, a=slate, b=observations: Fixed(s, a, b), 16, seed=3)
        seen.append(observations[0])
    assert torch.equal(seen[0].user, seen[1].user)
    assert torch.equal(seen[0].history, seen[1].history)

    # With equal logits for all items, the draws alone decide: equal whatever is shown.
    alike = small_world(users=16, logits=[0.0] * 30)
    rules = WorldSettings(repeats="allow", history_length=8)
    one, other = (
        evaluate(alike, rules, lambda s, a=slate: Fixed(s, a), 16, seed=3).returns
        for slate in ([1, 2, 3, 4], [5, 6, 7, 8])
    )
    assert torch.equal(one, other) and one.std() > 0


def test_the_seed_decides_the_result(small_world: MakeWorld):
    returns = [evaluate(small_world(), RULES, random_policy, 16, seed).returns for seed in (1, 1, 2)]

    assert torch.equal(returns[0], returns[1]) and not torch.equal(returns[0], returns[2])


def test_users_are_served_in_parts_without_a_trace(small_world: MakeWorld, monkeypatch: pytest.MonkeyPatch):
    # Responses are certain, so that only users and their histories can differ between one part and several.
    world = small_world(logits=[40.0 if item % 3 else -40.0 for item in range(1, 31)])
    reports: list[tuple[int, int]] = []

    def run() -> Evaluation:
        def progress(done: int, total: int, message: str = "") -> None:
            reports.append((done, total))

        def rank(simulator: Simulator) -> Policy:
            return RankingPolicy(simulator, torch.arange(31.0))

        return evaluate(world, RULES, rank, 23, seed=0, progress=progress)

    whole = run()
    monkeypatch.setattr("rl_rec.evaluation._USERS_AT_ONCE", 10)
    parts = run()

    assert reports == [(23, 23), (10, 23), (20, 23), (23, 23)]
    for name in ("returns", "users", "depth"):
        assert torch.equal(getattr(whole, name), getattr(parts, name)), name
    assert whole.distinct_items == parts.distinct_items
    assert whole.click_rate == pytest.approx(parts.click_rate)
    assert whole.intra_list_diversity == pytest.approx(parts.intra_list_diversity)


def test_every_part_has_chances_of_its_own(small_world: MakeWorld, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("rl_rec.evaluation._USERS_AT_ONCE", 16)
    rules = WorldSettings(repeats="allow", history_length=8)
    world = small_world(users=16, logits=[0.0] * 30)
    returns = evaluate(world, rules, lambda s: Fixed(s, [1, 2, 3, 4]), 32, seed=0).returns

    assert not torch.equal(returns[:16], returns[16:])


def test_diversity_by_hand(small_world: MakeWorld):
    # Features of items 1 … 4: two equal, one opposite, one at a right angle. Cosine distances of the six pairs:
    # 0, 2, 2, 1, 1, 1.
    world = small_world(item_features=2, logits=[-40.0] * 30)
    world.item_features[1:5] = torch.tensor([[1.0, 0.0], [3.0, 0.0], [-2.0, 0.0], [0.0, 5.0]])
    result = evaluate(world, RULES, lambda s: Fixed(s, [1, 2, 3, 4]), 4, seed=0)

    assert result.intra_list_diversity == pytest.approx(7 / 6, abs=1e-6)


def test_the_interval_by_hand():
    # Means of 3 around a mean of 3: user 0 came twice (−2 − 1), user 1 once (0), user 2 once (+3).
    result = evaluation([1.0, 2.0, 3.0, 6.0], [0, 0, 1, 2])
    half = 1.96 * ((3 / 2) * (9 + 0 + 9)) ** 0.5 / 4

    assert result.return_mean == 3.0
    assert result.return_ci95 == pytest.approx((3.0 - half, 3.0 + half))


def test_repeated_visits_of_alike_users_widen_the_interval():
    visits = evaluation([1.0, 1.0, 1.0, 5.0, 5.0, 5.0], [0, 0, 0, 1, 1, 1]).return_ci95
    users = evaluation([1.0, 1.0, 1.0, 5.0, 5.0, 5.0], [0, 1, 2, 3, 4, 5]).return_ci95

    assert visits[1] - visits[0] > 1.5 * (users[1] - users[0])


def test_with_one_visit_each_the_interval_is_the_usual_one():
    returns = torch.randn(50, generator=torch.Generator().manual_seed(0)).tolist()
    low, high = evaluation(returns, list(range(50))).return_ci95

    assert (high - low) / 2 == pytest.approx(1.96 * torch.tensor(returns).std().item() / 50**0.5, rel=1e-5)


def test_one_user_has_no_interval():
    assert all(map(isnan, evaluation([1.0, 2.0], [4, 4]).return_ci95))


def test_the_place_between_random_and_oracle():
    assert [normalised(value, random=1.0, oracle=5.0) for value in (1.0, 4.0, 5.0, 6.0)] == [0, 0.75, 1, 1.25]
    assert isnan(normalised(1.0, random=2.0, oracle=2.0))


def test_clicks_of_every_visit_add_up(small_world):
    world = small_world(items=30, users=16)
    rules = WorldSettings(history_length=6, max_steps=5)
    result = evaluate(world, rules, OraclePolicy, 40, seed=0)
    assert result.clicks.shape == (40,)
    assert int(result.clicks.sum()) == pytest.approx(result.click_rate * int(result.depth.sum()) * 4)
    # With mean_with_cost an episode's return is Σ (1.1·clicks/K − 0.1).
    torch.testing.assert_close(
        result.returns, 1.1 * result.clicks.double() / 4 - 0.1 * result.depth, atol=1e-5, rtol=0
    )


def test_support_by_hand(small_world: MakeWorld):
    # Members disagree about item 1 (0.3) and item 2 (0.1), and about nothing else.
    def give(*p: float) -> World:
        return small_world(logits=[*torch.tensor(p).logit().tolist(), *[-40.0] * 28])

    worlds = [give(0.2, 0.4), give(0.5, 0.5), give(0.8, 0.6)]
    further = [world.response for world in worlds[1:]]
    world = replace(worlds[0], ensemble=Ensemble(worlds[0].response, lambda: further, threshold=0.2))
    rules = RULES.model_copy(update={"repeats": "allow"})
    result = evaluate(world, rules, lambda s: Fixed(s, [1, 2, 3, 4]), 20, seed=0)

    assert result.uncertainty is not None and len(result.uncertainty) == 4 * int(result.depth.sum())
    figures = result.summary()
    assert figures["uncertainty_mean"] == pytest.approx(0.1, abs=1e-6)
    assert figures["unsupported_share"] == 0.25

    without = evaluate(replace(world, ensemble=None), rules, lambda s: Fixed(s, [1, 2, 3, 4]), 20, seed=0)
    assert isnan(without.unsupported_share)
    assert without.summary() == {k: v for k, v in figures.items() if "un" not in k[:2]}
    quick = evaluate(world, rules, lambda s: Fixed(s, [1, 2, 3, 4]), 20, seed=0, returns_only=True)
    assert quick.summary() == without.summary()
