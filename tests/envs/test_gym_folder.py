"""Environments opened from a simulator folder: its users, its titles."""

import numpy as np
import pytest

from envs import world_folder
from envs.data.dataset import Split
from envs.data.prepare import PrepareSettings, prepare
from envs.data.synthetic import SyntheticSettings
from envs.fit import FitSettings
from envs.response import ResponseModel
from envs.slate_env import SlateEnv, SlateVectorEnv

RULES = {"history_length": 5}


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """A folder whose loading is replaced: that it is read correctly is tested where it is written."""
    dataset = prepare(
        "synthetic", None, PrepareSettings(slate_size=3, synthetic=SyntheticSettings(users=40, items=40))
    )
    settings = FitSettings()
    model = ResponseModel(dataset.user_features.shape[1], dataset.item_features.shape[1], settings.model)
    opened = {tmp_path: world_folder.FittedWorld(dataset, model, settings)}
    monkeypatch.setattr(world_folder, "load", opened.__getitem__)
    return tmp_path, dataset


@pytest.mark.parametrize("splits", [("train",), ("validation", "test")])
def test_the_users_of_the_splits_asked_for_arrive(folder, splits):
    path, dataset = folder
    env = SlateVectorEnv(200, simulator=str(path), splits=splits, settings=RULES)
    _, infos = env.reset(seed=0)
    seen = {Split(s).name.lower() for s in dataset.user_split[infos["user"]]}
    assert seen == set(splits)
    assert env.single_action_space.nvec.tolist() == [40] * 3


def test_training_users_arrive_unless_told_otherwise(folder):
    path, dataset = folder
    _, infos = SlateVectorEnv(200, simulator=path, settings=RULES).reset(seed=0)
    assert np.unique(dataset.user_split[infos["user"]]).tolist() == [Split.TRAIN]


def test_the_text_names_titles(folder):
    path, dataset = folder
    env = SlateEnv("ansi", simulator=path, settings=RULES)
    env.reset(seed=0)
    env.step([0, 7, 39])
    assert [line[4:] for line in env.render().splitlines()[1:]] == dataset.item_titles[[1, 8, 40]].tolist()
