"""What a simulator predicts of held-out users beside what they did: of logged and of randomly drawn slates.

Glossary: S slates, K slate size, A behaviours, n responses.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from envs.calibration import Bias, Quality, Reliability, bias, quality, reliability
from envs.data.dataset import Split
from envs.data.sessions import Origin
from envs.examples import Slates
from envs.fit import asked_responses, predict
from envs.fit_ensemble import slate_uncertainty
from envs.predictors import Predictor, simple_predictors
from envs.world import World
from envs.world_folder import FittedWorld
from rl_rec.simulator_report.groups import groups


@dataclass(frozen=True)
class GroupFound:
    """One group of responses."""

    kind: str
    label: str
    about: str
    bias: Bias


@dataclass(frozen=True)
class LogFound:
    """What held-out users did with slates of one origin, and what was predicted."""

    origin: Origin
    quality: dict[str, dict[str, Quality]]
    """By behaviour, then predictor, ``model`` first; behaviours of one kind of response are left out."""
    overall: Bias
    """Of the positive response, like all that follows."""
    reliability: Reliability
    groups: list[GroupFound]
    uncertainty: NDArray[np.floating] | None
    """(n,), where the simulator has an ensemble."""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "quality": {
                behaviour: {name: asdict(figures) for name, figures in of_behaviour.items()}
                for behaviour, of_behaviour in self.quality.items()
            },
            "overall": describe(self.overall),
            "reliability": {name: value.tolist() for name, value in asdict(self.reliability).items()},
            "groups": [
                {"kind": group.kind, "label": group.label, **describe(group.bias)} for group in self.groups
            ],
        }


def describe(measured: Bias) -> dict[str, Any]:
    """Plain data."""
    return {**asdict(measured), "gap": measured.gap, "gap95": list(measured.interval())}


def measure(fitted: FittedWorld, world: World) -> dict[Origin, LogFound]:
    """Measure a simulator on its test users; a world of theirs gives the device and the ensemble.

    The fit saw neither these users nor any randomly drawn slate; the predictors beside it are fitted to the
    training users' logged slates.

    Returns:
        By origin: logged, and random where the test users have such slates with both kinds of response.
    """
    dataset, length = fitted.dataset, fitted.settings.history_length
    train = Slates.of_split(dataset, Split.TRAIN, length, world.device)
    predictors = [simple_predictors(dataset, train, place) for place in range(len(dataset.behaviours))]
    found = {}
    for origin in (Origin.LOGGED, Origin.RANDOM):
        slates = Slates.of_split(dataset, Split.TEST, length, world.device, origin)
        if len(slates) and len(np.unique(slates.labels(0))) == 2:
            found[origin] = _of_slates(fitted, world, slates, origin, predictors)
    return found


def _of_slates(
    fitted: FittedWorld,
    world: World,
    slates: Slates,
    origin: Origin,
    predictors: list[dict[str, Predictor]],
) -> LogFound:
    dataset = fitted.dataset
    with torch.no_grad():
        p = predict(fitted.model.to(world.device), slates, world.profiles, world.item_features)  # (S, K, A)
    fitted.model.cpu()
    compared = {}
    for place, behaviour in enumerate(dataset.behaviours):
        labels, predicted = asked_responses(slates, p, place)
        if len(np.unique(labels)) == 2:
            compared[behaviour.name] = {
                "model": quality(labels, predicted),
                **{name: quality(labels, other(slates)) for name, other in predictors[place].items()},
            }
    labels, predicted = asked_responses(slates, p, 0)
    shown = slates.asked_rows[0]
    user = np.repeat(slates.user.cpu().numpy()[:, None], shown.shape[1], axis=1)[shown]
    item = slates.items.cpu().numpy()[shown]
    # Slates come by user and time: those of one user alternate between the halves.
    half = np.repeat(np.arange(len(slates))[:, None] % 2, shown.shape[1], axis=1)[shown]
    uncertainty = None if world.ensemble is None else slate_uncertainty(world.ensemble, slates).cpu().numpy()
    return LogFound(
        origin=origin,
        quality=compared,
        overall=bias(labels, predicted, user),
        reliability=reliability(labels, predicted),
        groups=[
            GroupFound(
                group.kind,
                group.label,
                group.about,
                bias(labels[group.inside], predicted[group.inside], user[group.inside]),
            )
            for group in groups(dataset, user, item, labels, half, uncertainty)
        ],
        uncertainty=uncertainty,
    )
