"""Reliability and the figures of quality, by hand."""

from math import log

import numpy as np
import pytest

from envs.calibration import Quality, bias, quality, reliability, shortfall


def test_bins_are_equally_populated():
    bins = reliability(np.array([0.0, 0, 1, 1]), np.array([0.1, 0.2, 0.3, 0.4]), bins=2)

    assert bins.predicted.tolist() == pytest.approx([0.15, 0.35])
    assert bins.observed.tolist() == [0.0, 1.0]
    assert bins.count.tolist() == [2, 2]


def test_the_order_of_rows_does_not_matter():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 2, 500).astype(float), rng.random(500)
    order = rng.permutation(500)
    one, other = reliability(labels, predicted), reliability(labels[order], predicted[order])

    assert one.count.tolist() == other.count.tolist() and len(one.count) == 15
    assert one.count.max() - one.count.min() <= 1
    assert one.observed.tolist() == pytest.approx(other.observed.tolist())


def test_equal_predictions_share_a_bin():
    # A predictor with one value for everybody has one bin, whatever the number asked for.
    bins = reliability(np.array([1.0, 0, 0, 1, 0]), np.full(5, 0.5))

    assert (bins.predicted.tolist(), bins.observed.tolist(), bins.count.tolist()) == ([0.5], [0.4], [5])


def test_quality_by_hand():
    labels, predicted = np.array([0.0, 0, 1, 1]), np.array([0.1, 0.6, 0.4, 0.8])
    figures = quality(labels, predicted)

    assert figures.auc == pytest.approx(3 / 4)  # of four pairs, 0.6 above 0.4 is wrong
    assert figures.log_loss == pytest.approx(-(log(0.9) + log(0.4) + log(0.4) + log(0.8)) / 4)
    assert figures.ece == pytest.approx((0.1 + 0.6 + 0.6 + 0.2) / 4)  # each row a bin of its own


def test_calibration_error_weighs_bins_by_their_rows():
    # 30 rows at 0.2 with 9 responses (0.1 off), 10 rows at 0.8 with 8 (exact).
    predicted = np.r_[np.full(30, 0.2), np.full(10, 0.8)]
    labels = np.r_[np.ones(9), np.zeros(21), np.ones(8), np.zeros(2)]

    assert quality(labels, predicted).ece == pytest.approx(0.1 * 30 / 40)


def test_a_constant_prediction_ranks_nothing():
    figures = quality(np.array([1.0, 0, 0, 0]), np.full(4, 0.25))

    assert (figures.auc, figures.ece) == (0.5, 0.0)
    assert figures.log_loss == pytest.approx(-(log(0.25) + 3 * log(0.75)) / 4)


def test_the_bias_of_a_group_by_hand():
    # Gaps −0.5, 0.5, −0.25, −0.25 with mean −0.125; users 7 and 7 sum to 0.25, user 2 to −0.25.
    labels, predicted = np.array([1.0, 0, 1, 1]), np.array([0.5, 0.5, 0.75, 0.75])
    found = bias(labels, predicted, np.array([7, 7, 2, 2]))
    error = (2 / 1 * (0.25**2 + 0.25**2)) ** 0.5 / 4

    assert (found.responses, found.users) == (4, 2)
    assert (found.predicted, found.observed, found.gap) == (0.625, 0.75, -0.125)
    assert found.error == pytest.approx(error)
    assert found.interval() == pytest.approx((-0.125 - 1.959964 * error, -0.125 + 1.959964 * error))
    assert found.interval(0.99)[0] == pytest.approx(-0.125 - 2.575829 * error)
    # Two bins of two: |0.5 − 0.5| and |0.75 − 1|.
    assert found.ece == pytest.approx(0.125)
    chance = (2 / np.pi) ** 0.5 * ((2 * 0.25) ** 0.5 + (2 * 0.1875) ** 0.5) / 4
    assert found.chance_ece == pytest.approx(chance)


def test_chance_brings_the_calibration_error_of_a_perfect_model():
    rng = np.random.default_rng(0)
    predicted = rng.random(3000)
    drawn = [bias((rng.random(3000) < predicted).astype(float), predicted, np.arange(3000)) for _ in range(200)]
    assert np.mean([found.ece for found in drawn]) == pytest.approx(drawn[0].chance_ece, rel=0.1)
    inside = [found.interval()[0] <= 0 <= found.interval()[1] for found in drawn]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.04)


def test_one_user_has_no_interval():
    found = bias(np.array([1.0, 0.0]), np.array([0.5, 0.6]), np.array([3, 3]))
    assert np.isnan(found.error) and all(np.isnan(end) for end in found.interval())


def compared(**log_losses: float) -> dict[str, Quality]:
    return {name: Quality(0.6, log_loss, 0.01) for name, log_loss in log_losses.items()}


@pytest.mark.parametrize(
    ("log_losses", "said"),
    [
        ({"model": 0.495, "base_rate": 0.5}, None),  # 1% below
        ({"model": 0.496, "base_rate": 0.5}, "the model learned next to nothing"),
        ({"model": 0.504, "base_rate": 0.5}, "the model learned next to nothing"),
        ({"model": 0.506, "base_rate": 0.5}, "the model predicts worse than the base rate"),
        ({"model": 0.404, "base_rate": 0.5, "popularity": 0.4}, None),  # 1% above
        ({"model": 0.405, "base_rate": 0.5, "popularity": 0.4}, "the model predicts worse than popularity"),
        (
            {"model": 0.405, "base_rate": 0.5, "popularity": 0.4, "gradient_boosting": 0.3},
            "the model predicts worse than popularity and gradient boosting",
        ),
    ],
)
def test_a_model_that_falls_short_is_told(log_losses: dict[str, float], said: str | None):
    found = shortfall(compared(**log_losses))
    if said is None:
        assert found is None
    else:
        assert found is not None and found.startswith(f"{said}: ")


def test_a_shortfall_gives_the_figures():
    assert shortfall(compared(model=0.5944, base_rate=0.5947, gradient_boosting=0.5812)) == (
        "the model learned next to nothing: held-out log-loss 0.5944 (AUC 0.600), of base rate 0.5947, "
        "of gradient boosting 0.5812"
    )


def test_logs_that_may_hold_nothing_are_told_as_such():
    hint = "the logs may hold no more"
    assert hint in (shortfall(compared(model=0.5, base_rate=0.5, popularity=0.5)) or "")
    assert hint not in (shortfall(compared(model=0.5, base_rate=0.5, popularity=0.49)) or "")
    assert hint not in (shortfall(compared(model=0.5, base_rate=0.5)) or ""), "nothing else was tried"
