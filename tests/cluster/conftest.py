"""A small simulator folder, and a command line that trains in it for a moment."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from envs import world_folder
from envs.calibration import Quality, Reliability
from envs.data import dataset as datasets
from envs.data.prepare import PrepareSettings, prepare
from envs.data.synthetic import SyntheticSettings
from envs.fit import FitReport, FitSettings
from envs.response import ResponseModel, ResponseSettings

SMALL = {
    "report_every": 100,
    "checkpoint_every": 100,
    "world.history_length": 4,
    "world.max_steps": 5,
    "rollout.users": 10,
    "rollout.fragment": 5,
    "replay.learning_starts": 50,
    "replay.batch_size": 16,
    "replay.capacity": 250,
    "evaluation.every": 200,
    "evaluation.episodes": 16,
    "agent.encoder.dim": 8,
    "agent.encoder.heads": 2,
    "agent.encoder.feedforward": 8,
    "agent.item_hidden": 4,
}


@pytest.fixture(scope="session")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulator folder with a response model that was never fitted: as good as any to learn in."""
    root = tmp_path_factory.mktemp("simulator")
    planted = SyntheticSettings(users=60, items=30, sessions_per_user=4, clusters=3, taste_dim=3)
    dataset = prepare("synthetic", None, PrepareSettings(slate_size=4, synthetic=planted))
    datasets.save(dataset, root / "data")
    fit = FitSettings(model=ResponseSettings(dim=8, hidden=8))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ResponseModel(dataset.user_features.shape[1], dataset.item_features.shape[1], fit.model)
    bins = Reliability(np.array([0.2, 0.6]), np.array([0.3, 0.5]), np.array([4, 4]))
    report = FitReport({"model": Quality(0.7, 0.5, 0.01)}, bins, [0.7], [0.6], 8)
    world_folder.save(root / "sim", root / "data", dataset, model, fit, report, {})
    return root / "sim"


@pytest.fixture(scope="session")
def command(simulator: Path) -> Callable[..., list[str]]:
    """``command(out, steps, "agent.gamma=0.5", ...)``: arguments of a small ``rl-rec train hac``."""

    def make(out: Path, steps: int, *more: str) -> list[str]:
        settings = [*(f"{name}={value}" for name, value in SMALL.items()), *more]
        assignments = [argument for setting in settings for argument in ("--set", setting)]
        base = ["train", "hac", "--simulator", str(simulator), "--out", str(out), "--seed", "3"]
        return [*base, "--steps", str(steps), *assignments]

    return make
