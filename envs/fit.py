"""Fitting the user response model to logged sessions, and measuring it on held-out users.

Glossary: S slates, K slate size, H history length, A behaviours, N items.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from scipy.optimize import brentq
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from envs.calibration import Quality, Reliability, quality, reliability, shortfall
from envs.data.dataset import Dataset, Split
from envs.errors import UserError
from envs.examples import Slates
from envs.predictors import simple_predictors
from envs.progress import Progress, silent
from envs.randomness import seeded_weights, stream_seed
from envs.response import ResponseModel, ResponseSettings
from envs.settings import Settings

_FEWEST_FOR_A_SLOPE = 30
"""Responses of the rarer kind."""
REMEDY = (
    "What may help: more logs; features of items and users; a smaller model and another step size "
    "(--set model.dim=16 --set lr=0.003); a longer fit (--set epochs=200 --set patience=20)"
)
"""For a model that learned too little."""


class FitSettings(Settings):
    """How the response model is fitted."""

    model: ResponseSettings = ResponseSettings()
    """The model's shape."""
    history_length: int = Field(50, ge=1)
    """History window H of the fitted model."""
    lr: float = Field(1e-3, gt=0)
    """Adam's step size."""
    weight_decay: float = Field(1e-4, ge=0)
    """Decoupled weight decay."""
    batch_size: int = Field(256, ge=1)
    """Slates per step."""
    epochs: int = Field(60, ge=1)
    """At most this many passes over the training users' slates."""
    patience: int = Field(5, ge=1)
    """Stop after this many epochs without a better validation log-loss."""
    seed: int = Field(0, ge=0)
    """Seed of initial weights, batches and dropout."""
    ensemble: int = Field(0, ge=0)
    """Further models, each fitted to its own bootstrap of the training users: where they disagree, the
    simulator should not be trusted. Each takes as long as the fit itself; see ``envs.ensemble``."""


@dataclass
class FitReport:
    """What the fit reached, beside its references, all on the held-out test users."""

    quality: dict[str, Quality]
    """Of the positive response, by predictor: ``model``, ``base_rate``, ``popularity``,
    ``gradient_boosting``."""
    reliability: Reliability
    """Of the model."""
    train_log_loss: list[float] = field(default_factory=list)
    """Per epoch, the sum over all behaviours."""
    validation_log_loss: list[float] = field(default_factory=list)
    """Per epoch, the sum over all behaviours; the weights of the best one are kept."""
    rows: int = 0
    """Number of held-out responses."""
    behaviours: dict[str, Quality] = field(default_factory=dict)
    """Of the model, by behaviour; where one needs another, over the responses in which that happened."""
    base_rates: dict[str, Quality] = field(default_factory=dict)
    """Of the training users' rate, by behaviour, over the same responses."""

    @property
    def warnings(self) -> list[str]:
        """What is wrong and what may help, for each behaviour of which the model learned too little."""
        said = []
        for place, (name, model) in enumerate(self.behaviours.items()):
            compared = {
                "model": model,
                "base_rate": self.base_rates[name],
                **(self.quality if place == 0 else {}),
            }
            if wrong := shortfall(compared):
                said.append(f"{name}: {wrong}. {REMEDY}.")
        return said

    @property
    def best_epoch(self) -> int:
        """The epoch whose weights were kept, from 1."""
        return int(np.argmin(self.validation_log_loss)) + 1

    def to_json(self) -> dict[str, object]:
        """Plain data."""
        return {
            "quality": {name: asdict(value) for name, value in self.quality.items()},
            "behaviours": {name: asdict(value) for name, value in self.behaviours.items()},
            "base_rates": {name: asdict(value) for name, value in self.base_rates.items()},
            "warnings": self.warnings,
            "reliability": {name: value.tolist() for name, value in asdict(self.reliability).items()},
            "train_log_loss": self.train_log_loss,
            "validation_log_loss": self.validation_log_loss,
            "held_out_responses": self.rows,
        }


def fit(
    dataset: Dataset,
    settings: FitSettings,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> tuple[ResponseModel, FitReport]:
    """Fit on training users, stop and calibrate on validation users, report on test users.

    Raises:
        UserError: a split has no users, or only one kind of response; the fit diverged.
    """
    device = torch.device(device)
    splits = {s: Slates.of_split(dataset, s, settings.history_length, device) for s in Split}
    for split, slates in splits.items():
        for place, behaviour in enumerate(dataset.behaviours):
            seen = slates.feedback[..., place][slates.asked[..., place] > 0]
            if len(seen) == 0 or bool((seen == seen[0]).all()):
                raise UserError(
                    f"the {split.name.lower()} users of {dataset.name} have {len(seen)} responses of one kind "
                    f"({behaviour.name}, random exposures aside); the fit needs both positive and negative "
                    f"ones: prepare more users, or leave this behaviour out"
                )
    profiles = torch.from_numpy(dataset.user_features).to(device)
    item_features = torch.from_numpy(dataset.item_features).to(device)

    model, train_curve, validation_curve = fit_model(
        splits[Split.TRAIN], splits[Split.VALIDATION], profiles, item_features, settings, progress
    )
    progress(len(train_curve), len(train_curve), "measuring on held-out users, beside the references")

    test = splits[Split.TEST]
    probabilities = predict(model, test, profiles, item_features)  # (S, K, A)
    labels, predicted = asked_responses(test, probabilities, 0)
    report = FitReport(
        quality={"model": quality(labels, predicted), **_references(dataset, splits)},
        behaviours={
            behaviour.name: quality(*asked_responses(test, probabilities, place))
            for place, behaviour in enumerate(dataset.behaviours)
        },
        base_rates={
            behaviour.name: _base_rate(splits[Split.TRAIN], test, place)
            for place, behaviour in enumerate(dataset.behaviours)
        },
        reliability=reliability(labels, predicted),
        train_log_loss=train_curve,
        validation_log_loss=validation_curve,
        rows=len(labels),
    )
    return model, report


def fit_model(
    train: Slates,
    validation: Slates,
    profiles: Tensor,
    item_features: Tensor,
    settings: FitSettings,
    progress: Progress = silent,
) -> tuple[ResponseModel, list[float], list[float]]:
    """One model, stopped and calibrated on ``validation``, with its learning curves there and on ``train``.

    Raises:
        UserError: the fit diverged.
    """
    with seeded_weights(stream_seed(settings.seed, 0)):
        shape = (profiles.shape[1], item_features.shape[1])
        model = ResponseModel(*shape, settings.model, train.feedback.shape[2]).to(item_features.device)
        curves = _optimise(model, train, validation, profiles, item_features, settings, progress)
    _calibrate(model, validation, profiles, item_features)
    return model, *curves


def response_loss(logits: Tensor, feedback: Tensor, asked: Tensor) -> Tensor:
    """Binary cross-entropy on logits (the sigmoid is applied once, here), mean over shown items.

    With several behaviours the sum of their cross-entropies: each behaviour where it could have happened.

    Args:
        logits: (B, K, A) float.
        feedback: (B, K, A) 0/1 float.
        asked: (B, K, A) 0/1 float; behaviour 0 could have happened wherever something was shown.
    """
    loss = F.binary_cross_entropy_with_logits(logits, feedback, weight=asked, reduction="sum")
    return loss / asked[..., 0].sum()


def _optimise(
    model: ResponseModel,
    train: Slates,
    validation: Slates,
    profiles: Tensor,
    item_features: Tensor,
    settings: FitSettings,
    progress: Progress,
) -> tuple[list[float], list[float]]:
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True
    )
    order = torch.Generator().manual_seed(stream_seed(settings.seed, 1))
    train_curve: list[float] = []
    curve: list[float] = []
    best: dict[str, Tensor] = {}
    # Figures of one behaviour alone are compared elsewhere: this sum is not to be taken for one of them.
    loss_name = "validation log-loss" + (", sum of all behaviours," if model.behaviours > 1 else "")
    for epoch in range(settings.epochs):
        model.train()
        total = torch.zeros((), device=item_features.device)
        batches = 0
        for index in _batches(len(train), settings.batch_size, order):
            batch = train[index.to(train.user.device)]
            logits = model(profiles[batch.user], batch.history, batch.items, item_features)
            loss = response_loss(logits, batch.feedback, batch.asked)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach()
            batches += 1
        train_curve.append(float(total) / batches)
        curve.append(_log_loss(model, validation, profiles, item_features))
        if not np.isfinite(curve[-1]):
            raise UserError(f"the fit diverged in epoch {epoch + 1}: lower lr, now {settings.lr:g}")
        since_best = len(curve) - 1 - int(np.argmin(curve))
        if since_best == 0:
            best = {name: value.clone() for name, value in model.state_dict().items()}
        progress(epoch + 1, settings.epochs, f"{loss_name} {curve[-1]:.4f} (best {min(curve):.4f})")
        if since_best >= settings.patience:
            break
    model.load_state_dict(best)
    model.eval()
    return train_curve, curve


def _batches(rows: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    return iter(torch.randperm(rows, generator=generator).split(size))


@torch.no_grad()
def _logits(model: ResponseModel, slates: Slates, profiles: Tensor, item_features: Tensor) -> Tensor:
    model.eval()
    parts = [
        model(profiles[part.user], part.history, part.items, item_features)
        for part in (slates[i] for i in torch.arange(len(slates), device=slates.user.device).split(4096))
    ]
    return torch.cat(parts)  # (S, K)


def _log_loss(model: ResponseModel, slates: Slates, profiles: Tensor, item_features: Tensor) -> float:
    logits = _logits(model, slates, profiles, item_features)
    return float(response_loss(logits, slates.feedback, slates.asked))


def predict(
    model: ResponseModel, slates: Slates, profiles: Tensor, item_features: Tensor
) -> NDArray[np.float64]:
    """Predicted probabilities (S, K, A), each given that what it needs happened."""
    return _logits(model, slates, profiles, item_features).sigmoid().double().cpu().numpy()


def asked_responses(
    slates: Slates, probabilities: NDArray[np.float64], behaviour: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Labels and predictions (n,) of one behaviour, where it could have happened."""
    return slates.labels(behaviour), probabilities[..., behaviour][slates.asked_rows[behaviour]]


def _calibrate(model: ResponseModel, slates: Slates, profiles: Tensor, item_features: Tensor) -> None:
    """Platt scaling of each behaviour on validation users, folded into the model's logits."""
    logits = _logits(model, slates, profiles, item_features).double().cpu().numpy()
    for behaviour in range(model.behaviours):
        model.scale[behaviour], model.shift[behaviour] = platt_scaling(
            *asked_responses(slates, logits, behaviour)
        )


def platt_scaling(labels: NDArray[np.float64], logits: NDArray[np.float64]) -> tuple[float, float]:
    """Scale and shift of ``logits`` (n,) under which ``labels`` (n,) are likeliest.

    A handful of responses of one kind would make any slope: then, or where it would turn the ranking around,
    the mean is set right and the slope stays 1.
    """
    if min(labels.sum(), (1 - labels).sum()) >= _FEWEST_FOR_A_SLOPE:
        platt = LogisticRegression(C=np.inf).fit(logits[:, None], labels)
        if platt.coef_[0, 0] > 0:
            return float(platt.coef_[0, 0]), float(platt.intercept_[0])
    return 1.0, brentq(lambda shift: expit(logits + shift).mean() - labels.mean(), -100.0, 100.0)


def _references(dataset: Dataset, splits: dict[Split, Slates]) -> dict[str, Quality]:
    test = splits[Split.TEST]
    labels = test.labels(0)
    predictors = simple_predictors(dataset, splits[Split.TRAIN])
    return {name: quality(labels, predict_asked(test)) for name, predict_asked in predictors.items()}


def _base_rate(train: Slates, test: Slates, behaviour: int) -> Quality:
    labels = test.labels(behaviour)
    return quality(labels, np.full(len(labels), train.labels(behaviour).mean()))
