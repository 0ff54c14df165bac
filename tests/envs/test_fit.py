"""The fit: what it learns, when it stops, whom it may look at."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from envs import fit as fitting
from envs.data.behaviours import Behaviour
from envs.data.dataset import Dataset, Split
from envs.errors import UserError
from envs.fit import FitReport, FitSettings, Slates, fit, platt_scaling
from envs.response import ResponseModel, ResponseSettings

SMALL = FitSettings(
    model=ResponseSettings(dim=16, hidden=32), history_length=20, lr=1e-2, batch_size=128, epochs=12
)
ONE_EPOCH = SMALL.model_copy(update={"epochs": 1})


@pytest.fixture(scope="module")
def fitted(dataset: Dataset) -> tuple[ResponseModel, FitReport]:
    return fit(dataset, SMALL)


@pytest.fixture
def without_references(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of the model alone: the references take as long as a small fit."""
    monkeypatch.setattr(fitting, "_references", lambda *_: {})


def flip(dataset: Dataset, split: Split) -> Dataset:
    """The same logs with the responses of one split's users turned around."""
    feedback = dataset.session_feedback.copy()
    rows = dataset.sessions_in(split)
    feedback[rows] = (1 - feedback[rows]) * (dataset.session_items[rows] > 0)
    return replace(dataset, session_feedback=feedback)


def predict(model: ResponseModel, dataset: Dataset, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and responses of what the users of ``split`` were shown."""
    slates = Slates.of_split(dataset, split, SMALL.history_length, torch.device("cpu"))
    profiles, features = map(torch.from_numpy, (dataset.user_features, dataset.item_features))
    with torch.no_grad():
        logits = model(profiles[slates.user], slates.history, slates.items, features)
    shown = slates.items > 0
    return logits[shown].sigmoid().double().numpy(), slates.feedback[shown].numpy()


def test_planted_tastes_are_recovered(fitted: tuple[ResponseModel, FitReport]):
    quality = fitted[1].quality

    assert quality["model"].auc > quality["popularity"].auc + 0.1
    assert quality["model"].log_loss < quality["popularity"].log_loss - 0.02
    assert quality["base_rate"].auc == 0.5
    assert quality["gradient_boosting"].auc > quality["popularity"].auc


def test_the_report_is_of_the_test_users(dataset: Dataset, fitted: tuple[ResponseModel, FitReport]):
    model, report = fitted
    probability, response = predict(model, dataset, Split.TEST)

    assert report.rows == len(response)
    expected = -np.log(np.where(response == 1, probability, 1 - probability)).mean()
    assert report.quality["model"].log_loss == pytest.approx(expected, abs=1e-6)
    train = dataset.session_items[dataset.sessions_in(Split.TRAIN)] > 0
    base = dataset.session_feedback[dataset.sessions_in(Split.TRAIN)][train].mean()
    assert report.quality["base_rate"].ece == pytest.approx(abs(base - response.mean()))


def test_early_stopping_keeps_the_best_epoch(
    dataset: Dataset, without_references: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fitting, "_calibrate", lambda *_: None)
    overfit = SMALL.model_copy(update={"lr": 0.05, "epochs": 40, "patience": 3})
    model, report = fit(dataset, overfit)
    curve = report.validation_log_loss
    probability, response = predict(model, dataset, Split.VALIDATION)

    assert report.best_epoch == 1 + int(np.argmin(curve))
    assert len(curve) == report.best_epoch + 3 < 40
    assert max(curve) > min(curve) + 0.01, "otherwise every epoch is as good"
    reached = -np.log(np.where(response == 1, probability, 1 - probability)).mean()
    assert reached == pytest.approx(min(curve), abs=1e-6)


def test_the_seed_decides_the_weights(dataset: Dataset, without_references: None):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    states = []
    for seed in (3, 3, 4):
        model, _ = fit(dataset, ONE_EPOCH.model_copy(update={"seed": seed}))
        states.append(model.state_dict())

    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["fuse.weight"], states[2]["fuse.weight"])
    assert torch.equal(torch.get_rng_state(), before), "the global generator is left as it was"
    assert not model.training


@pytest.mark.parametrize("split", list(Split))
def test_each_split_has_its_use(dataset: Dataset, without_references: None, split: Split):
    # Training users give the weights of the one epoch, validation users the calibration, test users the report.
    (one, report), (other, again) = fit(dataset, ONE_EPOCH), fit(flip(dataset, split), ONE_EPOCH)
    weights_differ = not torch.equal(one.fuse.weight, other.fuse.weight)
    calibration_differs = not torch.equal(one.scale, other.scale)

    assert weights_differ == (split == Split.TRAIN)
    assert calibration_differs == (split != Split.TEST)
    assert report.quality["model"] != again.quality["model"]


def test_calibrated_predictions_agree_with_the_validation_users(
    dataset: Dataset, fitted: tuple[ResponseModel, FitReport]
):
    # Platt scaling makes the mean prediction equal the observed rate where it is fitted, and only there.
    probability, response = predict(fitted[0], dataset, Split.VALIDATION)

    assert probability.mean() == pytest.approx(response.mean(), abs=1e-4)


def test_training_slates_hold_what_was_liked_before(dataset: Dataset):
    slates = Slates.of_split(dataset, Split.TRAIN, 6, torch.device("cpu"))
    rows = dataset.sessions_in(Split.TRAIN)

    assert slates.history.tolist() == dataset.history(rows, 6).tolist()
    assert slates.items.tolist() == dataset.session_items[rows].tolist()
    assert set(slates.user.tolist()) <= set(dataset.users_in(Split.TRAIN).tolist())


@pytest.mark.parametrize("split", list(Split))
def test_a_split_without_users_is_refused(dataset: Dataset, split: Split):
    elsewhere = Split.TEST if split == Split.TRAIN else Split.TRAIN
    users = np.where(dataset.user_split == split, elsewhere, dataset.user_split).astype(np.int8)

    with pytest.raises(UserError, match=f"the {split.name.lower()} users of synthetic"):
        fit(replace(dataset, user_split=users), ONE_EPOCH)


def test_responses_of_one_kind_are_refused(dataset: Dataset):
    nobody_likes = replace(dataset, session_feedback=np.zeros_like(dataset.session_feedback))

    with pytest.raises(UserError, match="needs both positive and negative"):
        fit(nobody_likes, ONE_EPOCH)


def test_a_fit_that_diverges_is_one_line(dataset: Dataset, without_references: None):
    with pytest.raises(UserError, match=r"diverged in epoch .*: lower lr, now 1e\+30"):
        fit(dataset, SMALL.model_copy(update={"lr": 1e30}))


def test_progress_tells_of_every_epoch_and_reaches_its_end(dataset: Dataset, without_references: None):
    reports: list[tuple[int, int]] = []
    settings = ONE_EPOCH.model_copy(update={"epochs": 3})
    fit(dataset, settings, progress=lambda done, total, message="": reports.append((done, total)))

    assert reports == [(1, 3), (2, 3), (3, 3), (3, 3)]


def test_a_handful_of_responses_sets_the_level_and_no_slope():
    logits = np.linspace(-3, 3, 2000)
    rare = np.zeros(2000)
    rare[[5, 1990]] = 1.0
    scale, shift = platt_scaling(rare, logits)

    assert scale == 1.0
    assert (1 / (1 + np.exp(-(logits + shift)))).mean() == pytest.approx(0.001, rel=1e-4)


def test_no_ranking_is_turned_around():
    logits = np.linspace(-3, 3, 2000)
    turned = (logits < 0).astype(float)

    assert platt_scaling(turned, logits) == (1.0, pytest.approx(0.0, abs=1e-9))


def test_platt_scaling_finds_the_planted_slope():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=40_000)
    labels = (rng.random(40_000) < 1 / (1 + np.exp(-(1.7 * logits - 0.4)))).astype(float)

    assert platt_scaling(labels, logits) == (pytest.approx(1.7, abs=0.06), pytest.approx(-0.4, abs=0.04))


@pytest.fixture
def two(dataset: Dataset) -> Dataset:
    """With a second behaviour that follows half of the likes."""
    feedback = dataset.session_feedback.copy()
    also = (feedback == 1) & (np.random.default_rng(0).random(feedback.shape) < 0.5)
    return replace(
        dataset,
        session_feedback=(feedback | also << 1).astype(np.int8),
        behaviours=(Behaviour("like"), Behaviour("share", after="like")),
        item_money=np.repeat(dataset.item_money, 2, axis=1),
    )


def test_every_behaviour_is_calibrated(two: Dataset, without_references: None):
    model, report = fit(two, SMALL)

    assert model.scale.shape == (2,) and (model.shift != 0).all()
    assert report.behaviours["share"].ece < 0.2
    assert report.behaviours["share"].auc == pytest.approx(0.5, abs=0.12), "it is a coin, once liked"


def test_a_behaviour_that_was_not_learned_is_told(two: Dataset, without_references: None):
    _, report = fit(two, SMALL)
    (warning,) = report.warnings

    assert warning.startswith("share: the model ") and "base rate 0.69" in warning and "--set lr=" in warning
    assert report.to_json()["warnings"] == [warning]


def test_a_fit_that_learned_nothing_is_told(dataset: Dataset, fitted: tuple[ResponseModel, FitReport]):
    assert fitted[1].warnings == []
    _, report = fit(dataset, ONE_EPOCH.model_copy(update={"lr": 1e-9}))
    (warning,) = report.warnings

    assert warning.startswith("like: the model ") and "gradient boosting" in warning


def test_base_rates_are_those_of_the_training_users(dataset: Dataset, fitted: tuple[ResponseModel, FitReport]):
    report = fitted[1]
    assert report.base_rates == {"like": report.quality["base_rate"]}


def test_progress_names_the_sum_over_behaviours(dataset: Dataset, two: Dataset, without_references: None):
    for log, expected in (
        (dataset, "validation log-loss 0."),
        (two, "validation log-loss, sum of all behaviours, "),
    ):
        messages: list[str] = []
        fit(log, ONE_EPOCH, progress=lambda done, total, message="", told=messages: told.append(message))
        assert messages[0].startswith(expected)
