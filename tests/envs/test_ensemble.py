"""The ensemble: what it is fitted to, how far its members disagree, and what that costs."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from envs import world_folder
from envs.calibration import Quality, Reliability
from envs.data import dataset as datasets
from envs.data.dataset import Dataset, Split
from envs.ensemble import Ensemble
from envs.errors import UserError
from envs.examples import Slates
from envs.fit import FitReport, FitSettings, asked_responses, predict
from envs.fit_ensemble import FittedEnsemble, bootstrap_users, fit_ensemble, slate_uncertainty
from envs.response import FrozenResponse, ResponseModel, ResponseSettings
from envs.simulator import Simulator
from envs.world import World
from envs.world_settings import WorldSettings

MakeWorld = Callable[..., World]
SETTINGS = FitSettings(
    model=ResponseSettings(dim=8, hidden=8), history_length=6, lr=1e-2, batch_size=128, epochs=2, ensemble=2
)
RULES = WorldSettings(history_length=4, repeats="allow")


def logit(p: float) -> float:
    return float(np.log(p / (1 - p)))


def disagreeing(make: MakeWorld) -> World:
    """Three members give item 1 the probabilities 0.2, 0.5 and 0.8, item 2 0.9, 0.9 and 0.6, others 0.5."""
    worlds = [
        make(items=12, slate=2, logits=[logit(one), logit(two), *[0.0] * 10])
        for one, two in ((0.2, 0.9), (0.5, 0.9), (0.8, 0.6))
    ]
    main, *further = (world.response for world in worlds)
    return replace(worlds[0], ensemble=Ensemble(main, lambda: further, threshold=0.2))


def untrained(dataset: Dataset, seed: int) -> ResponseModel:
    shape = (dataset.user_features.shape[1], dataset.item_features.shape[1])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ResponseModel(*shape, SETTINGS.model).eval()


def test_uncertainty_by_hand(small_world: MakeWorld):
    world = disagreeing(small_world)
    assert world.ensemble is not None
    user, history = torch.tensor([0, 3]), torch.zeros(2, 4, dtype=torch.int64)
    items = torch.tensor([[1, 2], [3, 1]])
    # 0.2, 0.5, 0.8: deviations −0.3, 0, 0.3, over M − 1 = 2. 0.9, 0.9, 0.6: 0.1, 0.1, −0.2.
    expected = torch.tensor([[0.3, 0.03**0.5], [0.0, 0.3]])
    torch.testing.assert_close(world.ensemble.uncertainty(user, history, items), expected)
    of_all = world.ensemble.uncertainty_of_all(user, history)
    torch.testing.assert_close(of_all.gather(1, items), expected, atol=1e-6, rtol=0)


def test_members_see_the_user(small_world: MakeWorld):
    worlds = [small_world(seed=seed) for seed in range(3)]
    ensemble = Ensemble(worlds[0].response, lambda: [world.response for world in worlds[1:]], 0.0)
    user = torch.arange(16)
    history = torch.randint(0, 31, (16, 5), generator=torch.Generator().manual_seed(0))
    of_all = ensemble.uncertainty_of_all(user, history)

    assert of_all.std(dim=0).max() > 1e-4, "users differ"
    items = torch.arange(31).expand(16, -1)
    torch.testing.assert_close(ensemble.uncertainty(user, history, items), of_all, atol=1e-6, rtol=1e-4)


def test_the_whole_catalogue_takes_no_more_than_its_probabilities(
    small_world: MakeWorld, largest_tensor: Callable[[Callable[[], object]], int]
):
    worlds = [small_world(items=500, seed=seed) for seed in range(4)]
    ensemble = Ensemble(worlds[0].response, lambda: [world.response for world in worlds[1:]], 0.0)
    user, history = torch.arange(16), torch.ones(16, 5, dtype=torch.int64)
    largest = largest_tensor(lambda: ensemble.uncertainty_of_all(user, history))
    assert largest <= 16 * 501


def test_a_bootstrap_draws_users_with_all_their_slates(dataset: Dataset):
    slates = Slates.of_split(dataset, Split.TRAIN, 6)
    drawn, again, other = (bootstrap_users(slates, seed) for seed in (1, 1, 2))
    own, times = slates.user.bincount(), drawn.user.bincount(minlength=int(slates.user.max()) + 1)
    copies = times[own > 0] / own[own > 0]

    assert (copies == copies.round()).all(), "whole users"
    assert copies.sum() == len(slates.user.unique())
    assert 0.5 < (copies > 0).float().mean() < 0.75  # 1 − 1/e of them
    assert torch.equal(drawn.items, again.items)
    assert len(other) != len(drawn) or not torch.equal(other.user, drawn.user)


def test_each_member_is_fitted_to_its_own_bootstrap(dataset: Dataset, monkeypatch: pytest.MonkeyPatch):
    fitted: list[tuple[Slates, Slates, int]] = []

    def remember(train: Slates, validation: Slates, _profiles, _features, settings: FitSettings):
        fitted.append((train, validation, settings.seed))
        return untrained(dataset, len(fitted)), [], []

    monkeypatch.setattr("envs.fit_ensemble.fit_model", remember)
    fit_ensemble(dataset, untrained(dataset, 0), SETTINGS)
    whole = Slates.of_split(dataset, Split.TRAIN, SETTINGS.history_length)
    users = [train.user.unique().tolist() for train, _, _ in fitted]

    assert len(fitted) == 2 and fitted[0][2] != fitted[1][2]
    assert users[0] != users[1] and all(set(own) < set(whole.user.tolist()) for own in users)
    for _, validation, _ in fitted:
        assert set(validation.user.tolist()) == set(dataset.users_in(Split.VALIDATION).tolist())


@pytest.fixture(scope="module")
def ensemble(dataset: Dataset) -> FittedEnsemble:
    return fit_ensemble(dataset, untrained(dataset, 0), SETTINGS)


def test_members_differ_and_are_calibrated_each(dataset: Dataset, ensemble: FittedEnsemble):
    one, two = ensemble.models
    validation = Slates.of_split(dataset, Split.VALIDATION, SETTINGS.history_length)
    profiles, features = map(torch.from_numpy, (dataset.user_features, dataset.item_features))

    assert not torch.equal(one.fuse.weight, two.fuse.weight)
    assert not one.training
    for model in (one, two):
        labels, predicted = asked_responses(validation, predict(model, validation, profiles, features), 0)
        assert predicted.mean() == pytest.approx(labels.mean(), abs=1e-3)


def test_the_threshold_leaves_a_twentieth_of_the_logged_exposures_above(
    dataset: Dataset, ensemble: FittedEnsemble
):
    profiles, features = map(torch.from_numpy, (dataset.user_features, dataset.item_features))
    main, *further = (
        FrozenResponse(model, profiles, features) for model in (untrained(dataset, 0), *ensemble.models)
    )
    validation = Slates.of_split(dataset, Split.VALIDATION, SETTINGS.history_length)
    uncertainty = slate_uncertainty(Ensemble(main, lambda: further, 0.0), validation)

    assert len(uncertainty) == int((validation.items > 0).sum())
    above = int((uncertainty > ensemble.threshold).sum())
    assert abs(above - 0.05 * (len(uncertainty) - 1)) <= 0.5, "of the validation users, to the exposure"
    assert ensemble.threshold in uncertainty.tolist()


@pytest.fixture(scope="module")
def saved(dataset: Dataset, ensemble: FittedEnsemble, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ensemble")
    datasets.save(dataset, root / "data")
    bins = Reliability(np.array([0.2]), np.array([0.3]), np.array([4]))
    report = FitReport({"model": Quality(0.7, 0.5, 0.01)}, bins, [0.7], [0.6], 8)
    world_folder.save(
        root / "sim", root / "data", dataset, untrained(dataset, 0), SETTINGS, report, {}, ensemble=ensemble
    )
    return root / "sim"


def test_what_was_saved_is_loaded(saved: Path, ensemble: FittedEnsemble):
    fitted = world_folder.load(saved)
    assert fitted.ensemble is not None and fitted.ensemble.threshold == ensemble.threshold
    for model, loaded in zip(ensemble.models, fitted.ensemble.models, strict=True):
        assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    world = fitted.world([Split.TEST])
    assert world.ensemble is not None and len(world.ensemble.members) == 3
    assert world.ensemble.members[0] is world.response


def test_damaged_members_are_refused_when_they_are_needed(saved: Path, tmp_path: Path):
    folder = Path(shutil.copytree(saved, tmp_path / "sim"))
    weights = (folder / "ensemble.pt").read_bytes()
    (folder / "ensemble.pt").write_bytes(weights[:-9] + b"\0" * 9)
    world = world_folder.load(folder).world([Split.TEST])
    assert world.ensemble is not None
    with pytest.raises(UserError, match=r"ensemble.pt is missing or damaged"):
        world.ensemble.uncertainty(*torch.zeros(3, 1, 1, dtype=torch.int64))
    described = json.loads((folder / "simulator.json").read_text())
    del described["ensemble"]
    (folder / "simulator.json").write_text(json.dumps(described))
    assert world_folder.load(folder).world([Split.TEST]).ensemble is None


def test_the_penalty_by_hand(small_world: MakeWorld):
    world = disagreeing(small_world)
    plain, priced = (
        Simulator(world, RULES.model_copy(update={"uncertainty_penalty": price}), num_users=40, seed=0)
        for price in (0.0, 0.5)
    )
    slate = torch.tensor([[1, 2]]).expand(40, -1)
    free, paid = plain.advance(slate), priced.advance(slate)

    assert torch.equal(free.response, paid.response), "responses are what they were"
    cost = torch.tensor([0.15, 0.087])  # 0.5·0.3 and 0.5·0.1732, in whole thousandths
    torch.testing.assert_close(free.value - paid.value, cost.expand(40, -1), atol=1e-6, rtol=0)
    torch.testing.assert_close(free.reward - paid.reward, cost.mean().expand(40), atol=1e-6, rtol=0)
    assert (plain.patience - priced.patience).tolist() == [237] * 40
    assert plain.only_clicks_count and not priced.only_clicks_count


def test_the_oracle_knows_the_penalty(small_world: MakeWorld):
    # Item 2 has probability 0.9 in the world, item 3 0.5: at 3 per unit of uncertainty item 3 is worth more.
    world = disagreeing(small_world)
    values = [
        Simulator(world, RULES.model_copy(update={"uncertainty_penalty": price}), 1, seed=0).expected_values()[
            0
        ]
        for price in (0.0, 3.0)
    ]
    assert values[0][2] > values[0][3] and values[1][2] < values[1][3]
    torch.testing.assert_close(values[0][1] - values[1][1], torch.tensor(0.9), atol=1e-5, rtol=0)


def test_a_penalty_without_an_ensemble_is_refused(small_world: MakeWorld):
    with pytest.raises(UserError, match=r"world.uncertainty_penalty=0.5 needs a simulator with an ensemble"):
        Simulator(small_world(), RULES.model_copy(update={"uncertainty_penalty": 0.5}), 2, seed=0)


def test_an_ensemble_changes_nothing_by_itself(small_world: MakeWorld):
    world = disagreeing(small_world)
    slate = torch.tensor([[1, 2]]).expand(8, -1)
    one, other = (Simulator(w, RULES, 8, seed=0) for w in (world, replace(world, ensemble=None)))
    for _ in range(5):
        a, b = one.step(slate), other.step(slate)
        assert torch.equal(a.value, b.value) and torch.equal(a.reward, b.reward)
