"""Reliability and the figures of quality, by hand."""

from math import log

import numpy as np
import pytest

from envs.calibration import quality, reliability


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
