"""A small simulator folder, and settings that train in it for a moment."""

from pathlib import Path

import pytest

from envs import world_folder
from envs.data import dataset as datasets
from envs.data.prepare import PrepareSettings, prepare
from envs.data.synthetic import SyntheticSettings
from envs.fit import FitSettings, fit
from envs.response import ResponseSettings


@pytest.fixture(scope="session")
def simulator_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulator fitted for one epoch."""
    root = tmp_path_factory.mktemp("simulator")
    planted = SyntheticSettings(users=60, items=30, sessions_per_user=4, clusters=3, taste_dim=3)
    dataset = prepare("synthetic", None, PrepareSettings(slate_size=4, synthetic=planted))
    datasets.save(dataset, root / "data")
    settings = FitSettings(model=ResponseSettings(dim=8, hidden=8), epochs=1)
    model, report = fit(dataset, settings)
    world_folder.save(root / "sim", root / "data", dataset, model, settings, report, {})
    return root / "sim"


@pytest.fixture(scope="session")
def small_run() -> list[str]:
    """Assignments of a run that takes a moment."""
    return [
        "report_every=100",
        "world.history_length=4",
        "world.max_steps=5",
        "rollout.users=10",
        "rollout.fragment=5",
        "replay.learning_starts=50",
        "replay.batch_size=16",
        "replay.capacity=250",
        "evaluation.every=0",
        "agent.encoder.dim=8",
        "agent.encoder.heads=2",
        "agent.encoder.feedforward=8",
        "agent.item_hidden=4",
    ]
