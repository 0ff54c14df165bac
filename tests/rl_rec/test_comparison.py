"""Policies side by side: the same users and draws, and returns placed between random and oracle."""

import copy

import pytest
import torch

from envs.data.dataset import Split
from envs.data.prepare import PrepareSettings, prepare
from envs.data.synthetic import SyntheticSettings
from envs.dynamics import DynamicsSettings
from envs.errors import UserError
from envs.fit import FitSettings
from envs.response import ResponseModel, ResponseSettings
from envs.world_folder import FittedWorld
from envs.world_settings import WorldSettings
from rl_rec.comparison import REFERENCES, Comparison, reference_names
from rl_rec.reference import OraclePolicy

RULES = WorldSettings(history_length=4, max_steps=5)
TRUSTING = RULES.model_copy(update={"dynamics": DynamicsSettings(allure=0.5, trust=3.0), "max_steps": 20})


@pytest.fixture(scope="module")
def fitted() -> FittedWorld:
    planted = SyntheticSettings(users=60, items=30, sessions_per_user=4, clusters=3, taste_dim=3)
    dataset = prepare("synthetic", None, PrepareSettings(slate_size=4, synthetic=planted))
    settings = FitSettings(model=ResponseSettings(dim=8, hidden=8))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ResponseModel(dataset.user_features.shape[1], dataset.item_features.shape[1], settings.model)
        for parameter in model.parameters():  # tastes worth knowing
            torch.nn.init.normal_(parameter, std=0.7)
    return FittedWorld(dataset, model, settings)


def compare(fitted, split=Split.TEST, seed=1, rules=RULES) -> Comparison:
    return Comparison(fitted, split, rules, 64, seed, "cpu")


def test_random_is_zero_and_the_oracle_one(fitted):
    comparison = compare(fitted)
    random, oracle = (comparison.run_reference(name) for name in ("random", "oracle"))
    assert (random["normalised"], oracle["normalised"]) == (0.0, 1.0)
    assert oracle["return_mean"] > random["return_mean"]


def test_any_policy_is_placed_on_that_line(fitted):
    result = compare(fitted).run_reference("popular")
    span = result["oracle_return"] - result["random_return"]
    assert result["normalised"] == pytest.approx((result["return_mean"] - result["random_return"]) / span)


def test_comparisons_are_paired(fitted):
    # The oracle evaluated as anybody's policy meets the users and draws of the oracle evaluated as an anchor.
    comparison = compare(fitted)
    comparison.run_reference("popular")
    own, anchor = comparison.run(OraclePolicy), comparison.run_reference("oracle")
    assert own == anchor and own["normalised"] == 1.0


def test_the_seed_decides_and_is_told(fitted):
    first, again, other = (compare(fitted, seed=seed).run_reference("random") for seed in (1, 1, 2))
    assert first == again
    assert (first["seed"], other["seed"]) == (1, 2) and first["return_mean"] != other["return_mean"]


@pytest.mark.parametrize("name", REFERENCES)
def test_every_reference_describes_itself(fitted, name):
    result = compare(fitted, Split.VALIDATION, rules=TRUSTING).run_reference(name)
    assert result["split"] == "validation" and result["data_fingerprint"] == fitted.dataset.fingerprint
    assert result["world"] == TRUSTING.model_dump(mode="json")
    assert result["episodes"] == 64 and 0 < result["coverage"] <= 1


def test_a_planner_beats_the_myopic_oracle_where_trust_matters(fitted):
    model = copy.deepcopy(fitted.model)
    for parameter in model.parameters():  # users who do not care: what counts is the trust
        parameter.data *= 0.1
    comparison = compare(FittedWorld(fitted.dataset, model, fitted.settings), rules=TRUSTING)
    planner, oracle = (comparison.run_reference(name)["return_mean"] for name in ("planner", "oracle"))

    assert reference_names(TRUSTING) == (*reference_names(RULES), "planner")
    assert planner > 1.2 * oracle


def test_there_is_nothing_to_plan_without_trust(fitted):
    with pytest.raises(UserError, match=r"dynamics\.trust"):
        compare(fitted).run_reference("planner")
