"""How well predicted probabilities agree with observed responses."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import log_loss, roc_auc_score

FloatArray = NDArray[np.floating]


@dataclass(frozen=True)
class Quality:
    """Held-out quality of predicted probabilities."""

    auc: float
    """Area under the ROC curve; 0.5 when all predictions are equal."""
    log_loss: float
    """Mean negative log-likelihood, nats."""
    ece: float
    """Expected calibration error over equally populated bins."""


@dataclass(frozen=True)
class Reliability:
    """Predicted against observed response rate in equally populated bins."""

    predicted: FloatArray
    """(bins,) mean prediction."""
    observed: FloatArray
    """(bins,) share of positive responses."""
    count: NDArray[np.integer]
    """(bins,) number of predictions."""


def reliability(labels: FloatArray, predicted: FloatArray, bins: int = 15) -> Reliability:
    """Group ``predicted`` (n,) into at most ``bins`` equally populated bins, ties kept together."""
    edges = np.unique(np.quantile(predicted, np.linspace(0, 1, bins + 1)[1:-1]))
    group = np.searchsorted(edges, predicted, side="right")
    count = np.bincount(group, minlength=len(edges) + 1)
    kept = count > 0
    total = np.maximum(count, 1)
    return Reliability(
        predicted=(np.bincount(group, predicted, len(count)) / total)[kept],
        observed=(np.bincount(group, labels, len(count)) / total)[kept],
        count=count[kept],
    )


def quality(labels: FloatArray, predicted: FloatArray) -> Quality:
    """Evaluate ``predicted`` (n,) probabilities against 0/1 ``labels`` (n,)."""
    bins = reliability(labels, predicted)
    ece = np.average(np.abs(bins.predicted - bins.observed), weights=bins.count)
    return Quality(
        auc=float(roc_auc_score(labels, predicted)),
        log_loss=float(log_loss(labels, predicted, labels=[0, 1])),
        ece=float(ece),
    )
