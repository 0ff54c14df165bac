"""Dynamic programming against the simulator and by hand."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from scipy.special import expit

from envs.dynamics import DynamicsSettings, item_trait
from envs.world import World
from envs.world_settings import WorldSettings
from rl_rec.evaluation import evaluate
from rl_rec.planning import worth_of_planning
from rl_rec.reference import OraclePolicy, PenalisedOracle

LOGITS = [0.0, 0.4, -0.3, 0.2, -0.1, 0.6]
TRUST = DynamicsSettings(allure=0.5, trust=3.0)


@pytest.fixture
def world(small_world: Callable[..., World]) -> World:
    """Six items with traits ±1 whose logits nobody's history changes."""
    world = small_world(items=6, slate=2, item_features=2, logits=LOGITS)
    features = torch.zeros(7, 2)
    features[1:, 0] = torch.tensor([1.0, -1.0, 1.0, -1.0, -1.0, 1.0])
    return replace(world, item_features=features, item_feature_names=("lure", "none"))


def rules(dynamics: DynamicsSettings) -> WorldSettings:
    named = dynamics.model_copy(update={"traits": ("+lure",)})
    return WorldSettings(repeats="allow", history_length=3, dynamics=named)


def test_two_steps_by_hand():
    # One item: c = 1, logit 0.2; a click in the first step costs 0.5 of trust, which is worth 2 logits.
    effect = DynamicsSettings(trust=2.0, trust_decay=0.5)
    first = expit(0.2)
    second = first * expit(0.2 - 1.0) + (1 - first) * expit(0.2)
    expected = sum(1.1 * p - 0.1 for p in (first, second))

    worth = worth_of_planning([0.2], [1.0], 1, effect, max_steps=2)
    assert worth.best == worth.myopic == pytest.approx(expected, abs=1e-6)


def test_episodes_in_the_simulator_earn_what_was_computed(world: World):
    trait = item_trait(world, ("+lure",))[1:].tolist()
    worth = worth_of_planning(LOGITS, trait, 2, TRUST, penalties=(0.0, 1.0))
    served = [
        evaluate(world, rules(TRUST), make, 20_000, seed=0).return_mean
        for make in (OraclePolicy, lambda simulator: PenalisedOracle(simulator, 1.0))
    ]

    assert served == pytest.approx([worth.myopic, worth.penalised[1.0]], abs=0.06)
    assert worth.penalised[0.0] <= worth.best + 1e-9


def test_planning_pays_where_trust_matters_and_nowhere_else(world: World):
    trait = item_trait(world, ("+lure",))[1:].tolist()
    worth = worth_of_planning(LOGITS, trait, 2, TRUST, penalties=(0.5, 1.0, 2.0))
    nothing = worth_of_planning(LOGITS, trait, 2, DynamicsSettings(allure=0.5))

    assert worth.best > 2 * worth.myopic
    assert max(worth.penalised.values()) > 0.95 * worth.best
    assert nothing.best == pytest.approx(nothing.myopic, abs=1e-9)
