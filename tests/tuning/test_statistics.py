"""Statistics of few runs, against numbers worked out by hand and against known distributions."""

import math

import numpy as np
import pytest
from scipy import stats

from tuning.statistics import (
    bootstrap95,
    improvement95,
    interquartile_mean,
    interval95,
    mean,
    performance_profile,
    probability_of_improvement,
)


def test_interval_is_students_over_seeds():
    # mean 2, standard error 1/sqrt(3), t(0.975, 2 degrees of freedom) = 4.302653
    low, high = interval95([1.0, 2.0, 3.0])
    assert (low, high) == (pytest.approx(2 - 4.302653 / 3**0.5), pytest.approx(2 + 4.302653 / 3**0.5))


def test_intervals_of_one_seed_are_unknown():
    for bounds in (interval95([1.0]), bootstrap95([1.0]), improvement95([1.0], [2.0, 3.0])):
        assert all(math.isnan(bound) for bound in bounds)


def test_interquartile_mean_leaves_a_quarter_out_at_either_end():
    assert interquartile_mean([[1.0], [100.0], [2.0], [4.0]]) == 3.0
    # Two tasks: the middle four of 1, 2, 3, 4, 10, 20, 30, 40.
    table = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0], [4.0, 40.0]])
    assert interquartile_mean(table) == (3 + 4 + 10 + 20) / 4
    both = interquartile_mean(np.stack([table, 2 * table]))
    assert both.tolist() == [9.25, 18.5]


def test_bootstrap_of_the_mean_is_the_known_interval():
    """Of many normal runs: mean ± 1.96 standard errors."""
    runs = np.random.default_rng(0).normal(3.0, 2.0, size=400)
    low, high = bootstrap95(runs, mean)
    half = 1.96 * runs.std() / 20
    assert low == pytest.approx(runs.mean() - half, abs=0.02)
    assert high == pytest.approx(runs.mean() + half, abs=0.02)


def test_bootstrap_draws_within_tasks():
    """Two tasks far apart, each with equal runs: whatever is drawn, the mean is the same."""
    low, high = bootstrap95([[0.0, 100.0]] * 5, mean)
    assert low == high == 50.0


def test_bootstrap_covers_as_often_as_it_says():
    """IQM of ten normal runs: about 95% of the intervals hold zero (a percentile interval is a bit short)."""
    generator = np.random.default_rng(1)
    inside = 0
    for repetition in range(200):
        low, high = bootstrap95(generator.normal(size=10), seed=repetition)
        inside += low <= 0 <= high
    assert 0.85 <= inside / 200 <= 0.99


def test_the_seed_decides_the_draws():
    runs = np.random.default_rng(0).normal(size=30)
    assert bootstrap95(runs, seed=1) == bootstrap95(runs, seed=1)
    assert bootstrap95(runs, mean, seed=1) != bootstrap95(runs, mean, seed=2)


def test_probability_of_improvement_counts_pairs():
    # 3 > 1, 3 > 2, 2 > 1, and 2 = 2 counts half.
    assert probability_of_improvement([3.0, 2.0], [1.0, 2.0]) == 3.5 / 4
    two_tasks = probability_of_improvement([[3.0, 0.0], [2.0, 0.0]], [[1.0, 1.0], [2.0, 1.0]])
    assert two_tasks == (3.5 / 4 + 0) / 2
    generator = np.random.default_rng(0)
    x, y = generator.normal(1, 1, 30), generator.normal(0, 1, 20)
    u = stats.mannwhitneyu(x, y).statistic
    assert probability_of_improvement(x, y) == pytest.approx(u / 600)


def test_improvement_has_an_interval():
    assert improvement95([5.0, 6.0, 7.0], [1.0, 2.0]) == (1.0, 1.0)
    low, high = improvement95([1.0, 2.0, 3.0, 4.0], [1.5, 2.5, 3.5, 4.5])
    assert 0.0 <= low < 0.375 < high <= 1.0


def test_different_numbers_of_tasks_are_refused():
    with pytest.raises(ValueError, match="2 tasks cannot be compared with 1"):
        probability_of_improvement([[1.0, 2.0]], [1.0])


def test_performance_profile_falls():
    scores = [[0.1, 0.9], [0.5, 0.5]]
    assert performance_profile(scores, [0.0, 0.1, 0.5, 0.8, 1.0]).tolist() == [1.0, 0.75, 0.25, 0.25, 0.0]
