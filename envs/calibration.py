"""How well predicted probabilities agree with observed responses."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import log_loss, roc_auc_score

FloatArray = NDArray[np.floating]
MARGIN = 0.01
"""Log-losses that differ by less, relative to the simpler predictor's, are as good as equal."""


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
    group, count = _bins(predicted, bins)
    kept = count > 0
    total = np.maximum(count, 1)
    return Reliability(
        predicted=(np.bincount(group, predicted, len(count)) / total)[kept],
        observed=(np.bincount(group, labels, len(count)) / total)[kept],
        count=count[kept],
    )


def quality(labels: FloatArray, predicted: FloatArray) -> Quality:
    """Evaluate ``predicted`` (n,) probabilities against 0/1 ``labels`` (n,)."""
    return Quality(
        auc=float(roc_auc_score(labels, predicted)),
        log_loss=float(log_loss(labels, predicted, labels=[0, 1])),
        ece=_ece(labels, predicted),
    )


def shortfall(compared: Mapping[str, Quality]) -> str | None:
    """What is wrong with a model hardly better than the base rate, or worse than another predictor.

    A constant at the base rate is well calibrated, so that calibration alone does not tell.

    Args:
        compared: by predictor, on the same responses: ``model``, ``base_rate`` and others where measured.

    Returns:
        A clause with the figures; ``None`` where nothing is wrong.
    """
    model, base = compared["model"], compared["base_rate"]
    others = {
        name.replace("_", " "): other.log_loss
        for name, other in compared.items()
        if name not in ("model", "base_rate")
    }
    better = [name for name, other in others.items() if model.log_loss > (1 + MARGIN) * other]
    if model.log_loss > (1 + MARGIN) * base.log_loss:
        wrong = "predicts worse than the base rate"
    elif model.log_loss > (1 - MARGIN) * base.log_loss:
        wrong = "learned next to nothing"
    elif better:
        wrong = f"predicts worse than {' and '.join(better)}"
    else:
        return None
    listed = "".join(
        f", of {name} {other:.4f}" for name, other in {"base rate": base.log_loss, **others}.items()
    )
    told = f"the model {wrong}: held-out log-loss {model.log_loss:.4f} (AUC {model.auc:.3f}){listed}"
    if others and min(others.values()) > (1 - MARGIN) * base.log_loss:
        told += "; no simpler predictor beats the base rate either, the logs may hold no more"
    return told


@dataclass(frozen=True)
class Bias:
    """How far the predictions for one group of responses stand from what was observed."""

    responses: int
    users: int
    predicted: float
    """Mean prediction."""
    observed: float
    """Share of positive responses."""
    error: float
    """Standard error of ``gap``; the responses of one user are one cluster. NaN for a single user."""
    ece: float
    chance_ece: float
    """What the ECE of a perfectly calibrated model would be in the mean, with as many independent responses."""

    @property
    def gap(self) -> float:
        """Predicted less observed: above 0 the predictions are too high."""
        return self.predicted - self.observed

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Of ``gap``."""
        half = NormalDist().inv_cdf((1 + confidence) / 2) * self.error
        return (self.gap - half, self.gap + half)


def bias(labels: FloatArray, predicted: FloatArray, user: NDArray[np.integer]) -> Bias:
    """Measure one group of n responses; all arguments (n,), n > 0."""
    gaps = predicted - labels
    _, cluster = np.unique(user, return_inverse=True)
    sums = np.bincount(cluster, gaps - gaps.mean())
    users = len(sums)
    error = np.sqrt(users / (users - 1) * np.square(sums).sum()) / len(gaps) if users > 1 else np.nan
    group, count = _bins(predicted, 15)
    # Σ (p − y) of a bin has variance Σ p(1 − p), and the mean of |normal| is σ·sqrt(2/π).
    spread = np.sqrt(np.bincount(group, predicted * (1 - predicted), len(count)))
    return Bias(
        responses=len(gaps),
        users=users,
        predicted=float(predicted.mean()),
        observed=float(labels.mean()),
        error=float(error),
        ece=_ece(labels, predicted),
        chance_ece=float(np.sqrt(2 / np.pi) * spread.sum() / len(gaps)),
    )


def _ece(labels: FloatArray, predicted: FloatArray) -> float:
    bins = reliability(labels, predicted)
    return float(np.average(np.abs(bins.predicted - bins.observed), weights=bins.count))


def _bins(predicted: FloatArray, bins: int) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Each prediction's bin (n,), and how many each bin has: equally populated, ties kept together."""
    edges = np.unique(np.quantile(predicted, np.linspace(0, 1, bins + 1)[1:-1]))
    group = np.searchsorted(edges, predicted, side="right")
    return group, np.bincount(group, minlength=len(edges) + 1)
