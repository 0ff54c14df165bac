"""A small synthetic dataset, prepared once."""

import pytest

from envs.data.dataset import Dataset
from envs.data.prepare import PrepareSettings, prepare
from envs.data.synthetic import SyntheticSettings


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    """120 users with planted tastes, 40 items, slates of 5; K does not divide H or N."""
    planted = SyntheticSettings(users=120, items=40, sessions_per_user=8, clusters=4, taste_dim=4)
    return prepare("synthetic", None, PrepareSettings(slate_size=5, synthetic=planted))
