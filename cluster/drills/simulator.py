"""A simulator folder in a moment; its response model was never fitted, and is as good as any to learn in."""

from pathlib import Path

import numpy as np
import torch

from envs import world_folder
from envs.calibration import Quality, Reliability
from envs.data import dataset as datasets
from envs.data.prepare import PrepareSettings, prepare
from envs.data.synthetic import SyntheticSettings
from envs.fit import FitReport, FitSettings
from envs.response import ResponseModel, ResponseSettings


def make_simulator(root: Path) -> Path:
    """Write ``data`` and ``simulator`` into the folder ``root``: 60 users, 30 items, slates of 4.

    Returns:
        The simulator's folder.
    """
    planted = SyntheticSettings(users=60, items=30, sessions_per_user=4, clusters=3, taste_dim=3)
    dataset = prepare("synthetic", None, PrepareSettings(slate_size=4, synthetic=planted))
    datasets.save(dataset, root / "data")
    fit = FitSettings(model=ResponseSettings(dim=8, hidden=8))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ResponseModel(dataset.user_features.shape[1], dataset.item_features.shape[1], fit.model)
    bins = Reliability(np.array([0.2, 0.6]), np.array([0.3, 0.5]), np.array([4, 4]))
    report = FitReport({"model": Quality(0.7, 0.5, 0.01)}, bins, [0.7], [0.6], 8)
    world_folder.save(root / "simulator", root / "data", dataset, model, fit, report, {})
    return root / "simulator"
