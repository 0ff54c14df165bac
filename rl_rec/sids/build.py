"""From a dataset to its semantic IDs."""

from pathlib import Path
from typing import Any

import numpy as np

from envs.data.dataset import Dataset
from envs.data.schema import write_columns
from envs.errors import UserError
from envs.files import new_file
from envs.progress import Progress, silent
from rl_rec.sids.codebook import SidSettings, Tokens, fit_codebook
from rl_rec.sids.folder import Sids
from rl_rec.sids.report import describe_sids, titles_of
from rl_rec.sids.table import SidTable, add_ranks
from rl_rec.sids.vectors import item_vectors


def build_sids(
    dataset: Dataset, settings: SidSettings | None = None, progress: Progress = silent
) -> tuple[Sids, dict[str, Any]]:
    """Fit a codebook to the items of ``dataset``, and report on it.

    Raises:
        UserError: vectors that cannot be made or are not finite, or IDs that 64 bits cannot number.
    """
    settings = settings or SidSettings()
    vectors, columns = item_vectors(dataset, settings)
    codebook, tokens = fit_codebook(vectors, settings, progress)
    table = SidTable.from_tokens(tokens, codebook.sizes)
    if settings.unique:
        table = add_ranks(table)
    report = describe_sids(codebook, table, vectors, settings, titles_of(dataset))
    name, ids = dataset.name, dataset.item_ids
    return Sids(codebook, table, settings, dataset.fingerprint, name, columns, ids), report


def encode_dataset(sids: Sids, dataset: Dataset) -> dict[str, Any]:
    """Tokens of the items of another dataset, by the centres that exist.

    Items are the same where their ids are. Columns must mean what they meant: factors of other likes do not.

    Returns:
        ``items``, ``known`` and ``new`` (by id), ``moved`` (known items whose vectors would get other tokens
        now; None for ``balanced``, where the nearest centres never decided) and ``tokens`` int32 (items, L):
        those of the table for known items, of the nearest centres for new ones.

    Raises:
        UserError: IDs made of other columns, or of factors that only their own dataset has.
    """
    if sids.settings.vectors != "features":
        raise UserError(
            f"these SIDs stand on factors of their own dataset's likes (vectors={sids.settings.vectors}): "
            f"only SIDs with vectors=features encode other items"
        )
    if dataset.item_feature_names != sids.columns:
        raise UserError(
            f"the items of {dataset.name} have other features than the SIDs were made of: "
            f"{len(dataset.item_feature_names)} columns, expected {len(sids.columns)} "
            f"({', '.join(sids.columns[:3])}, ...)"
        )
    place = {item_id: item for item, item_id in enumerate(sids.item_ids.tolist()) if item}
    known = np.array([place.get(item_id, 0) for item_id in dataset.item_ids[1:].tolist()], np.int64)
    vectors = dataset.item_features[1:]
    is_new = known == 0
    tokens = sids.table.tokens[known]
    tokens[is_new] = sids.encode(vectors[is_new])
    moved = None
    if not sids.settings.balanced:
        now = sids.codebook.encode(vectors[~is_new])
        moved = int((now != tokens[~is_new, : now.shape[1]]).any(axis=1).sum())
    return {
        "items": dataset.items,
        "known": int((~is_new).sum()),
        "new": int(is_new.sum()),
        "moved": moved,
        "tokens": tokens,
    }


def write_tokens(path: Path, dataset: Dataset, tokens: Tokens) -> None:
    """Write the items, their ids and tokens (items, L) to the Parquet file ``path``, whole or not at all.

    Raises:
        UserError: the file cannot be written, or another command is writing it.
    """
    columns = {
        "item": np.arange(1, dataset.items + 1, dtype=np.int32),
        "item_id": dataset.item_ids[1:],
        "tokens": tokens,
    }
    with new_file(path) as draft:
        write_columns(draft, columns)
