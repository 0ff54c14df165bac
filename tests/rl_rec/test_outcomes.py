"""Rates and money of behaviours, and lifts of ratios, by numbers worked out by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from envs.data.behaviours import LIKE, Behaviour
from envs.world_settings import WorldSettings
from rl_rec.ab_test import Traffic, analyse, serve_both
from rl_rec.cli.compare import render
from rl_rec.evaluation import evaluate
from rl_rec.outcomes import Outcomes
from rl_rec.ratios import ratio_lift
from rl_rec.reference import RankingPolicy

ADS = (Behaviour("click"), Behaviour("conversion", after="click"))


def outcomes(counts: list[list[int]], behaviours=ADS) -> Outcomes:
    happened = torch.tensor(counts)
    money = happened.double() * torch.tensor([0.5, 8.0], dtype=torch.float64)[: len(behaviours)]
    return Outcomes(behaviours, torch.tensor([10, 20]), happened, money)


def test_rates_and_money_by_hand():
    assert outcomes([[4, 1], [2, 0]]).summary() == {
        "click_rate": 6 / 30,
        "conversion_rate": 1 / 30,
        "conversion_per_click": 1 / 6,
        "click_money": 1.5,
        "conversion_money": 4.0,
    }
    assert outcomes([[0, 0], [0, 0]]).summary()["conversion_per_click"] is None
    assert outcomes([[4], [2]], LIKE).summary() == {}


def test_the_delta_method_by_hand():
    user = np.array([7, 7, 3])
    ones = np.ones(3)
    found = ratio_lift(user, (np.array([1.0, 2.0, 3.0]), ones), (np.array([2.0, 2.0, 5.0]), ones))
    assert (found["a"], found["b"], found["relative"]) == (2.0, 3.0, 0.5)
    # e_A = (−1, 0, 1)/3, e_B = (−1, −1, 2)/3; e_B/2 − 3/4·e_A = (1, −2, 1)/12; by user (−1, 1)/12.
    half = 1.96 * math.sqrt(2 * 2 / 144)
    assert found["relative95"] == pytest.approx([0.5 - half, 0.5 + half])


def test_nothing_to_divide_by_is_no_lift():
    ones, nothing = np.ones(2), np.zeros(2)
    for a, b in (
        ((ones, nothing), (ones, ones)),
        ((ones, ones), (ones, nothing)),
        ((nothing, ones), (ones, ones)),
    ):
        assert math.isnan(ratio_lift(np.arange(2), a, b)["relative"])
    alone = ratio_lift(np.zeros(2, int), (ones, ones), (2 * ones, ones))
    assert alone["relative"] == 1.0 and math.isnan(alone["relative95"][0])


def test_the_interval_covers_the_lift_of_clustered_visits():
    # Users differ in how often they convert; 200 experiments, the true lift is 0.2.
    rng, covered, lifts = np.random.default_rng(0), 0, []
    for _ in range(200):
        user = np.repeat(np.arange(100), 5)
        level = rng.gamma(4.0, 0.25, 100)[user]
        clicks = rng.poisson(4.0, (2, 500)).astype(float)
        a, b = (rng.poisson(0.3 * level * lift * clicks[arm]) for arm, lift in enumerate((1.0, 1.2)))
        found = ratio_lift(user, (a.astype(float), clicks[0]), (b.astype(float), clicks[1]))
        low, high = found["relative95"]
        covered += low < 0.2 < high
        lifts.append(found["relative"])
    assert np.mean(lifts) == pytest.approx(0.2, abs=0.02)
    assert 0.9 <= covered / 200 <= 0.99


def certain_ads(small_world):
    """Ads 1 to 4 are always clicked, of which 1 and 2 convert; ad i bids i, its conversion is worth 10."""
    world = small_world(items=8, slate=2, users=6)
    response = world.response
    response.behaviours = 2
    response.items.zero_()
    response.outputs = response.outputs.repeat(1, 1, 2)
    response.history_offset, response.user_offset = (
        response.history_offset.repeat(2),
        response.user_offset.repeat(1, 2),
    )
    ad = torch.arange(9)
    response.item_bias = torch.stack(
        [torch.where(ad <= 4, 40.0, -40.0), torch.where(ad <= 2, 40.0, -40.0)], dim=1
    )
    money = torch.stack([ad.float(), torch.full((9,), 10.0)], dim=1)
    return replace(world, behaviours=ADS, item_money=money)


RULES = WorldSettings(history_length=2, repeats="allow", max_steps=3, leaving="never", miss=0.0)


def ranked(*best: int):
    scores = torch.zeros(9)
    scores[list(best)] = torch.arange(len(best), 0, -1.0)
    return lambda simulator: RankingPolicy(simulator, scores)


def test_an_evaluation_counts_what_it_cost_and_brought(small_world):
    summary = evaluate(certain_ads(small_world), RULES, ranked(2, 4), 5, seed=0).summary()
    # Three steps of clicks on 2 and 4, conversions of 2.
    assert (summary["click_rate"], summary["conversion_rate"], summary["conversion_per_click"]) == (
        1.0,
        0.5,
        0.5,
    )
    assert (summary["click_money"], summary["conversion_money"]) == (18.0, 30.0)
    plain = evaluate(small_world(items=8, slate=2), RULES, ranked(2, 4), 5, seed=0).summary()
    assert "like_money" not in plain


def test_a_comparison_shows_the_lifts(small_world):
    world = certain_ads(small_world)
    arms = serve_both(world, RULES, ranked(2, 5), ranked(1, 3), Traffic(2, 30, 0.5), seed=0)
    result = analyse(arms, {})
    found = {name: (row["a"], row["b"], row["relative"]) for name, row in result["outcomes"].items()}
    assert found == {
        "click_rate": (0.5, 1.0, 1.0),
        "conversion_rate": (0.5, 0.5, 0.0),
        "conversion_per_click": (1.0, 0.5, -0.5),
        "click_money": (6.0, 12.0, 1.0),
        "conversion_money": (30.0, 30.0, 0.0),
    }
    names = {"arm_a": "a", "arm_b": "b", "split": "test"}
    titles = [getattr(part, "title", "") for part in render({**result, **names}).renderables]
    assert "Behaviours and the money they move, by user" in titles
    assert len(render({**result, **names, "outcomes": {}}).renderables) == len(titles) - 1
