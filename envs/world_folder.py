"""A fitted simulator on disk: the dataset it was fitted on and the response model, whole or not at all."""

import hashlib
import io
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from envs.data import dataset as datasets
from envs.data.dataset import Dataset, Split
from envs.ensemble import Ensemble
from envs.errors import UserError
from envs.files import new_directory, read_json, write_json
from envs.fit import FitReport, FitSettings
from envs.fit_ensemble import FittedEnsemble
from envs.response import FrozenResponse, ResponseModel
from envs.storage.location import Location, location
from envs.storage.snapshots import fetch
from envs.world import Population, World

_DESCRIPTION = "simulator.json"
_WEIGHTS = "response.pt"
_ENSEMBLE = "ensemble.pt"
_DATASET = "dataset"
RELIABILITY_PLOT = "reliability.png"
_VERSION = 2


def save(
    path: Path,
    data: Path,
    dataset: Dataset,
    model: ResponseModel,
    settings: FitSettings,
    report: FitReport,
    provenance: dict[str, Any],
    overwrite: bool = False,
    ensemble: FittedEnsemble | None = None,
) -> None:
    """Write the simulator folder ``path``; ``data`` is the folder ``dataset`` was loaded from.

    Raises:
        UserError: ``path`` exists and ``overwrite`` is off, or it cannot be written.
    """
    from envs.plots import draw_reliability

    with new_directory(path, overwrite=overwrite) as draft:
        (draft / _DATASET).mkdir()
        for file in datasets.FILES:  # by name: the folder may hold more, such as this draft
            shutil.copyfile(data / file, draft / _DATASET / file)
        described: dict[str, Any] = {
            "version": _VERSION,
            "dataset": dataset.name,
            "fingerprint": dataset.fingerprint,
            "weights_sha256": _write_weights(draft / _WEIGHTS, _state(model)),
            "fit": settings.model_dump(mode="json"),
        }
        if ensemble is not None:
            states = [_state(further) for further in ensemble.models]
            described["ensemble"] = {
                "models": len(states),
                "weights_sha256": _write_weights(draft / _ENSEMBLE, states),
                "threshold": ensemble.threshold,
            }
        write_json(draft / "report.json", report.to_json())
        draw_reliability(report, draft / RELIABILITY_PLOT)
        write_json(draft / "run.json", provenance)
        write_json(draft / _DESCRIPTION, described)


class FittedWorld:
    """A loaded simulator folder: builds worlds for any split and device.

    Attributes:
        dataset: the logs it was fitted on.
        model: the response model, in ``eval()`` mode, on the CPU.
        settings: how it was fitted.
        ensemble: further models, where it was fitted with any.
    """

    def __init__(
        self,
        dataset: Dataset,
        model: ResponseModel,
        settings: FitSettings,
        ensemble: FittedEnsemble | None = None,
    ) -> None:
        self.dataset, self.model, self.settings = dataset, model.eval(), settings
        self.ensemble = ensemble

    def world(self, splits: Collection[Split], device: torch.device | str = "cpu") -> World:
        """The frozen world in which the users of ``splits`` arrive.

        Raises:
            UserError: no user of these splits has a logged session.
        """
        dataset = self.dataset
        profiles = torch.from_numpy(dataset.user_features).to(device)
        item_features = torch.from_numpy(dataset.item_features).to(device)

        def frozen(model: ResponseModel) -> FrozenResponse:
            tabulated = FrozenResponse(model.to(device), profiles, item_features)
            model.cpu()
            return tabulated

        response, fitted = frozen(self.model), self.ensemble
        ensemble = None
        if fitted is not None:
            ensemble = Ensemble(response, lambda: [frozen(model) for model in fitted.models], fitted.threshold)

        shown = dataset.shown_sessions
        session_offsets = np.searchsorted(dataset.session_user[shown], np.arange(dataset.users + 1))
        active = (np.diff(session_offsets) > 0) & np.isin(dataset.user_split, [int(s) for s in splits])
        if not active.any():
            names = " or ".join(s.name.lower() for s in splits)
            raise UserError(f"{dataset.name} has no {names} users with sessions")
        arrays = (
            np.flatnonzero(active),
            dataset.likes.astype(np.int64) if len(dataset.likes) else np.zeros(1, np.int64),
            dataset.like_offsets,
            session_offsets.astype(np.int64),
            dataset.session_likes_before[shown],
        )
        population = Population(*(torch.from_numpy(array).to(device) for array in arrays))
        item_age = torch.from_numpy(dataset.item_age).to(device)
        return World(
            response,
            population,
            profiles,
            item_features,
            dataset.slate_size,
            item_age,
            dataset.behaviours,
            dataset.item_feature_names,
            ensemble,
            torch.from_numpy(dataset.item_money).to(device),
        )


def load(place: Location | str) -> FittedWorld:
    """Read a folder that ``save`` wrote; one behind a URL is fetched once per node.

    Raises:
        UserError: not a simulator, or one that is damaged.
    """
    path = fetch(location(place))
    description = read_json(path / _DESCRIPTION, "a simulator (make one with: rl-rec simulator fit)")
    if not isinstance(description, dict) or description.get("version") != _VERSION:
        raise UserError(f"{path / _DESCRIPTION} does not describe a simulator of this release: fit it again")
    dataset = datasets.load(path / _DATASET)
    if dataset.fingerprint != description.get("fingerprint"):
        raise UserError(f"{path} holds another dataset than it was fitted on: fit it again")
    fit = description.get("fit")
    if not isinstance(fit, dict):
        raise UserError(f"{path / _DESCRIPTION} does not say how the simulator was fitted: fit it again")
    settings = FitSettings.from_mapping(fit, where="fit", file=path / _DESCRIPTION)
    model = _read_weights(path / _WEIGHTS, description.get("weights_sha256"), dataset, settings)[0]
    ensemble, stored = None, description.get("ensemble")
    if isinstance(stored, dict):
        sha256 = stored.get("weights_sha256")
        ensemble = FittedEnsemble(
            lambda: _read_weights(path / _ENSEMBLE, sha256, dataset, settings), float(stored["threshold"])
        )
    return FittedWorld(dataset, model, settings, ensemble)


def _state(model: ResponseModel) -> dict[str, Tensor]:
    """The weights on the CPU: a simulator fitted on a GPU is served anywhere."""
    return {name: value.cpu() for name, value in model.state_dict().items()}


def _write_weights(path: Path, states: dict[str, Tensor] | Sequence[dict[str, Tensor]]) -> str:
    """Write one model's weights or several; returns the file's sha256."""
    buffer = io.BytesIO()
    torch.save(states, buffer)
    path.write_bytes(buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def _read_weights(
    path: Path, sha256: str | None, dataset: Dataset, settings: FitSettings
) -> list[ResponseModel]:
    """The models of a file that ``_write_weights`` wrote.

    Raises:
        UserError: the file is missing or damaged.
    """
    shape = (dataset.user_features.shape[1], dataset.item_features.shape[1])
    models = []
    try:
        weights = path.read_bytes()
        # torch reads changed numbers without complaint, and meets other damage with a dozen exceptions.
        if hashlib.sha256(weights).hexdigest() != sha256:
            raise ValueError
        states = torch.load(io.BytesIO(weights), weights_only=True)
        for state in states if isinstance(states, list) else [states]:
            models.append(ResponseModel(*shape, settings.model, len(dataset.behaviours)))
            models[-1].load_state_dict(state)
    except (OSError, ValueError, RuntimeError):
        raise UserError(f"{path} is missing or damaged: fit the simulator again") from None
    return models
