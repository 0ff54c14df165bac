"""The vectors of a dataset's items that semantic IDs are made of."""

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from envs.data import dataset as datasets
from envs.data.dataset import Dataset, Split
from envs.data.features import like_factors
from envs.errors import UserError
from rl_rec.sids.codebook import SidSettings

_FACTOR = re.compile(r"factor_\d+")


def item_vectors(dataset: Dataset, settings: SidSettings) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Vectors (N, F) of the items 1..N, and the names of the columns; only training users' likes are read.

    Raises:
        UserError: more factors than the likes can hold, or no features at all.
    """
    columns, names = dataset.item_features[1:], dataset.item_feature_names
    if settings.vectors == "joined":
        own = [index for index, name in enumerate(names) if not _FACTOR.fullmatch(name)]
        columns, names = columns[:, own], tuple(names[index] for index in own)
    if settings.vectors != "features":
        user = np.repeat(np.arange(dataset.users, dtype=np.int32), np.diff(dataset.like_offsets))
        is_train = dataset.user_split == Split.TRAIN
        learned = like_factors(user, dataset.likes, is_train, dataset.items, settings.factors, settings.seed)
        learned_names = tuple(f"factor_{index}" for index in range(settings.factors))
        if settings.vectors == "factors":
            return learned, learned_names
        columns, names = np.column_stack([columns, learned]), names + learned_names
    if not names:
        raise UserError(f"the items of {dataset.name} have no features: set vectors=factors")
    return columns, names


def dataset_folder(path: Path) -> Path:
    """The dataset at ``path``, or inside it where it is a simulator."""
    inside = path / "dataset"
    return inside if not (path / "dataset.json").exists() and inside.is_dir() else path


def load_dataset(path: Path) -> Dataset:
    """Read a dataset's folder, or the dataset of a simulator's folder.

    Raises:
        UserError: neither, or damaged.
    """
    return datasets.load(dataset_folder(path))
