"""A simulated A/B test: pairing, intervals by hand, and a p-value that may be looked at every day."""

import math

import numpy as np
import pytest
from scipy import stats

from envs.world_settings import WorldSettings
from rl_rec.ab_test import (
    Arms,
    Traffic,
    always_valid_p,
    analyse,
    confidence_sequence,
    lift,
    serve_both,
    user_segments,
    visits_needed,
)
from rl_rec.reference import OraclePolicy, RankingPolicy

RULES = WorldSettings(history_length=6, max_steps=5)


def reversed_order(simulator) -> RankingPolicy:
    import torch

    return RankingPolicy(simulator, -torch.arange(31.0))


@pytest.fixture(scope="module")
def arms(small_world) -> Arms:
    world = small_world(items=30, users=16)
    return serve_both(world, RULES, reversed_order, OraclePolicy, Traffic(3, 200, 0.25), seed=1)


def test_every_visit_is_served_by_both_arms(arms):
    assert len(arms.user) == 600 and arms.day.tolist() == [0] * 200 + [1] * 200 + [2] * 200
    for arm in (arms.a, arms.b):
        assert set(arm) == {"return", "click_rate", "depth"} and all(len(v) == 600 for v in arm.values())
        assert arm["depth"].min() >= 1 and arm["depth"].max() <= 5
        assert (arm["click_rate"] >= 0).all() and (arm["click_rate"] <= 1).all()
        # With mean_with_cost an episode's return is Σ (1.1·clicks/K − 0.1).
        expected = arm["depth"] * (1.1 * arm["click_rate"] - 0.1)
        np.testing.assert_allclose(arm["return"], expected, atol=1e-5)
    assert arms.b["return"].mean() > arms.a["return"].mean()
    assert abs(arms.treated.mean() - 0.25) < 0.06
    assert set(arms.user.tolist()) == set(range(16))


def test_progress_counts_days(small_world):
    told: list[tuple[int, int, str]] = []

    def progress(done: int, total: int, message: str = "") -> None:
        told.append((done, total, message))

    world = small_world(items=30, users=16)
    serve_both(world, RULES, OraclePolicy, OraclePolicy, Traffic(2, 20, 0.5), seed=0, progress=progress)
    assert told == [(1, 2, "days, each with both arms"), (2, 2, "days, each with both arms")]


def test_the_same_policy_twice_differs_nowhere(small_world):
    world = small_world(items=30, users=16)
    same = serve_both(world, RULES, reversed_order, reversed_order, Traffic(2, 50, 0.5), seed=0)
    assert all((same.a[metric] == same.b[metric]).all() for metric in same.a)
    result = analyse(same, {})
    assert result["metrics"]["return"]["difference"] == 0.0 and result["metrics"]["return"]["anytime_p"] == 1.0


def test_days_bring_other_visits_and_seeds_too(small_world, arms):
    assert not np.array_equal(arms.user[:200], arms.user[200:400])
    world = small_world(items=30, users=16)
    again = serve_both(world, RULES, reversed_order, OraclePolicy, Traffic(3, 200, 0.25), seed=1)
    other = serve_both(world, RULES, reversed_order, OraclePolicy, Traffic(3, 200, 0.25), seed=2)
    assert np.array_equal(again.b["return"], arms.b["return"]) and np.array_equal(again.treated, arms.treated)
    assert not np.array_equal(other.b["return"], arms.b["return"])


def test_lift_is_paired():
    a = np.array([1.0, 2.0, 3.0, 4.0])
    b = a + np.array([0.5, 1.5, 0.5, 1.5])
    found = lift(a, b)
    assert (found["a"], found["b"], found["difference"], found["relative"]) == (2.5, 3.5, 1.0, 0.4)
    half = 1.96 * math.sqrt(1 / 3) / 2  # the differences' deviation is sqrt(1/3)
    assert found["interval95"] == pytest.approx([1 - half, 1 + half])
    assert found["relative95"] == pytest.approx([(1 - half) / 2.5, (1 + half) / 2.5])


def test_confidence_sequence_by_its_formula():
    values = np.array([0.0, 2.0] * 500)  # mean 1, variance 1000/999
    log = math.log(0.05)
    rho2 = (-2 * log + math.log(-2 * log + 1)) / 1000
    half = math.sqrt(1000 / 999) * math.sqrt(
        2 * (1000 * rho2 + 1) / (1000**2 * rho2) * math.log(math.sqrt(1000 * rho2 + 1) / 0.05)
    )
    assert confidence_sequence(values) == (pytest.approx(1 - half), pytest.approx(1 + half))


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.2])
def test_p_is_below_alpha_where_the_sequence_excludes_zero(shift):
    values = np.random.default_rng(0).normal(shift, 1.0, 3_000)
    seen = set()
    for n in range(50, 3_001, 50):
        low, high = confidence_sequence(values[:n])
        excluded = low > 0 or high < 0
        assert (always_valid_p(values[:n]) < 0.05) == excluded
        seen.add(excluded)
    assert seen == {False, True} if shift else seen == {False}


def test_looking_every_day_does_not_find_what_is_not_there():
    """A t-test looked at fifty times is wrong far more often than 5%; this one is not."""
    generator = np.random.default_rng(3)
    wrong = naive = 0
    for _ in range(300):
        values = generator.normal(0.0, 2.0, 2_500)
        looks = [values[:n] for n in range(50, 2_501, 50)]
        wrong += any(always_valid_p(look) < 0.05 for look in looks)
        naive += any(stats.ttest_1samp(look, 0.0).pvalue < 0.05 for look in looks)
    assert wrong / 300 <= 0.06
    assert naive / 300 > 0.2


def test_visits_needed_by_hand():
    # (1.959964 + 0.841621)² = 7.848880; variance 4, effect 0.1.
    assert visits_needed(4.0, 0.1) == math.ceil(7.848880 * 4 / 0.01)
    assert visits_needed(4.0, 0.0) is None


def test_visits_needed_are_enough_four_times_out_of_five():
    generator, variance, effect = np.random.default_rng(0), 4.0, 0.3
    n = visits_needed(variance, effect)
    noticed = 0
    for _ in range(1_000):
        values = generator.normal(effect, 2.0, n)
        noticed += stats.ttest_1samp(values, 0.0).pvalue < 0.05
    assert 0.76 < noticed / 1_000 < 0.84


def test_analysis_by_segment_and_day(arms):
    inside = arms.user < 8
    result = analyse(arms, {"low": inside, "high": ~inside, "nobody": np.zeros(600, bool)}, detect=0.02)
    assert set(result["segments"]) == {"low", "high"}
    low = result["segments"]["low"]
    gain = arms.b["return"] - arms.a["return"]
    assert low["visits"] == inside.sum() and low["difference"] == pytest.approx(gain[inside].mean())
    assert [day["visits"] for day in result["by_day"]] == [200, 400, 600]
    assert result["by_day"][1]["difference"] == pytest.approx(gain[:400].mean())
    live = result["live"]
    assert live["visits_b"] == arms.treated.sum() and live["visits_a"] == 600 - live["visits_b"]
    expected = arms.b["return"][arms.treated].mean() - arms.a["return"][~arms.treated].mean()
    assert live["difference"] == pytest.approx(expected)
    share = arms.treated.mean()
    variance = arms.a["return"].var(ddof=1) / (1 - share) + arms.b["return"].var(ddof=1) / share
    effect = 0.02 * arms.a["return"].mean()
    assert result["power"]["live_visits"] == visits_needed(variance, abs(effect))
    assert result["power"]["paired_visits"] == visits_needed(gain.var(ddof=1), abs(effect))


def test_segments_are_thirds_of_the_users_who_came(simulator):
    from envs import world_folder

    dataset = world_folder.load(simulator).dataset
    users = np.repeat(np.arange(dataset.users), 2)
    segments = user_segments(dataset, users)
    likes = [inside for name, inside in segments.items() if name.startswith("likes")]
    assert len(likes) == 3 and (sum(inside.astype(int) for inside in likes) == 1).all()
    share = dataset.session_feedback.astype(float)
    means = [share[np.isin(dataset.session_user, users[inside])].mean() for inside in likes]
    assert means == sorted(means)
