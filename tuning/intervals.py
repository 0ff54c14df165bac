"""Uncertainty of means over seeds."""

from collections.abc import Sequence

import numpy as np
from scipy import stats


def interval95(values: Sequence[float]) -> tuple[float, float]:
    """95% t-interval of the mean of independent ``values``; NaN for fewer than two."""
    if len(values) < 2:
        return (float("nan"), float("nan"))
    mean, half = np.mean(values), stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)
    return (float(mean - half), float(mean + half))
