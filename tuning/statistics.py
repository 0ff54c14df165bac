"""Statistics of few runs: robust means, bootstrap intervals, probability of improvement, performance profiles.

After Agarwal et al., *Deep Reinforcement Learning at the Edge of the Statistical Precipice* (NeurIPS 2021,
arXiv 2108.13264). Scores are (runs, tasks): seeds down, worlds or serving conditions across; one task is the
usual case. Glossary: R runs, M tasks.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Scores = NDArray[np.float64]

_REPETITIONS = 10_000


def interval95(values: Sequence[float]) -> tuple[float, float]:
    """95% t-interval of the mean of independent ``values``; NaN for fewer than two."""
    if len(values) < 2:
        return (float("nan"), float("nan"))
    middle, half = np.mean(values), stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)
    return (float(middle - half), float(middle + half))


def interquartile_mean(scores: ArrayLike) -> Scores:
    """Mean of the middle half of all R·M scores: 25% are cut off at either end (section 4.3 there).

    Args:
        scores: (..., R, M).

    Returns:
        (...).
    """
    table = np.asarray(scores, np.float64)
    return np.asarray(stats.trim_mean(table.reshape(*table.shape[:-2], -1), 0.25, axis=-1))


def mean(scores: ArrayLike) -> Scores:
    """Mean of all R·M scores: (..., R, M) → (...)."""
    return np.asarray(np.mean(np.asarray(scores, np.float64), axis=(-2, -1)))


def bootstrap95(
    scores: ArrayLike, statistic: Callable[[Scores], Scores] = interquartile_mean, seed: int = 0
) -> tuple[float, float]:
    """95% percentile interval of a statistic, by stratified bootstrap: runs are drawn anew within each task.

    Args:
        scores: (R,) or (R, M).
        statistic: (..., R, M) → (...).
        seed: of the draws.

    Returns:
        NaN for a single run.
    """
    table = _table(scores)
    if len(table) < 2:
        return (float("nan"), float("nan"))
    return _interval(statistic(_resample(table, np.random.default_rng(seed))))


def probability_of_improvement(scores: ArrayLike, others: ArrayLike) -> float:
    """P(X > Y) for a random run of each, mean over tasks; ties count half (Mann and Whitney's U over R·R').

    Args:
        scores: (R,) or (R, M).
        others: (R',) or (R', M).

    Raises:
        ValueError: different numbers of tasks.
    """
    ours, theirs = _table(scores), _table(others)
    if ours.shape[1] != theirs.shape[1]:
        raise ValueError(f"{ours.shape[1]} tasks cannot be compared with {theirs.shape[1]}")
    return float(_improvement(ours, theirs))


def improvement95(scores: ArrayLike, others: ArrayLike, seed: int = 0) -> tuple[float, float]:
    """95% percentile interval of ``probability_of_improvement``, both sides drawn anew; NaN for single runs."""
    ours, theirs = _table(scores), _table(others)
    if min(len(ours), len(theirs)) < 2:
        return (float("nan"), float("nan"))
    generator = np.random.default_rng(seed)
    return _interval(_improvement(_resample(ours, generator), _resample(theirs, generator)))


def performance_profile(scores: ArrayLike, thresholds: ArrayLike) -> Scores:
    """Share of all R·M runs whose score is above each of T thresholds: (T,), never rising."""
    flat = np.asarray(scores, np.float64).ravel()
    return np.asarray((flat[:, None] > np.asarray(thresholds, np.float64)[None, :]).mean(axis=0))


def _table(scores: ArrayLike) -> Scores:
    """(R, M)."""
    table = np.asarray(scores, np.float64)
    return table[:, None] if table.ndim == 1 else table


def _resample(table: Scores, generator: np.random.Generator) -> Scores:
    """(repetitions, R, M)."""
    rows = generator.integers(len(table), size=(_REPETITIONS, *table.shape))
    return np.take_along_axis(table[None], rows, axis=1)


def _improvement(ours: Scores, theirs: Scores) -> Scores:
    """(..., R, M), (..., R', M) → (...)."""
    better = np.zeros(ours.shape[:-2])
    for run in range(theirs.shape[-2]):  # one at a time: (repetitions, R, R', M) may not fit
        gap = ours - theirs[..., run : run + 1, :]
        better = better + ((gap > 0) + 0.5 * (gap == 0)).mean(axis=(-2, -1))
    return np.asarray(better / theirs.shape[-2])


def _interval(drawn: Scores) -> tuple[float, float]:
    low, high = np.percentile(drawn, [2.5, 97.5])
    return (float(low), float(high))
