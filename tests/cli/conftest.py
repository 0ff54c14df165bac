"""A small fitted simulator, and run folders as training leaves them, with networks that never learned."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from envs import world_folder
from envs.randomness import seeded_weights
from rl_rec.agents import find_agent
from rl_rec.checkpoint import seal
from rl_rec.cli.main import main
from rl_rec.hac.networks import HACNetworks

HISTORY = 6


@pytest.fixture(scope="package")
def fitted_simulator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 users, 40 items, slates of 4, fitted for a moment."""
    root = tmp_path_factory.mktemp("world")
    small = ["--set", "synthetic.users=60", "--set", "synthetic.items=40", "--set", "slate_size=4"]
    assert main(["data", "prepare", "synthetic", "--out", str(root / "data"), *small]) == 0
    quick = ["--set", "epochs=2", "--set", "model.dim=8", "--set", "model.hidden=8"]
    quick += ["--set", f"history_length={HISTORY}"]
    assert main(["simulator", "fit", "--data", str(root / "data"), "--out", str(root / "sim"), *quick]) == 0
    return root / "sim"


@pytest.fixture(scope="package")
def make_run(fitted_simulator: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A maker of runs: the seed decides the weights."""

    def make(seed: int = 0, history: int = HISTORY) -> Path:
        path = tmp_path_factory.mktemp("runs") / "hac"
        settings = (
            find_agent("hac")
            .train_settings()
            .with_overrides([f"world.history_length={history}", "world.max_steps=6", "agent.encoder.dim=8"])
        )
        dataset = world_folder.load(fitted_simulator).dataset
        sizes = dataset.user_features.shape[1], dataset.item_features.shape[1]
        with seeded_weights(seed):
            networks = HACNetworks(*sizes, history, settings.agent)
        module = path / "trial/checkpoint_000000/learner_group/learner/rl_module/default_policy"
        module.mkdir(parents=True)
        weights = {f"networks.{name}": value.numpy() for name, value in networks.state_dict().items()}
        (module / "module_state.pkl").write_bytes(pickle.dumps(weights))
        seal(path / "trial/checkpoint_000000")
        config = {
            "algorithm": "hac",
            "simulator": str(fitted_simulator),
            "settings": settings.model_dump(mode="json"),
        }
        (path / "run.json").write_text(json.dumps({"config": config}))
        return path

    return make
