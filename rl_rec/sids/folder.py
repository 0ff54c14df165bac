"""Semantic IDs on disk: the codebook, the catalogue's table and where they come from, whole or not at all."""

import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError
from envs.files import new_directory, read_json, write_json
from envs.storage.location import Location, location
from envs.storage.snapshots import fetch
from rl_rec.sids.codebook import Codebook, SidSettings, Tokens
from rl_rec.sids.table import SidTable, next_ranks

_DESCRIPTION = "sids.json"
_ARRAYS = "sids.npz"
PLOT = "sids.png"
_VERSION = 1


@dataclass(frozen=True, eq=False)
class Sids:
    """The semantic IDs of a catalogue.

    Attributes:
        codebook: turns vectors into tokens.
        table: item <-> ID, of the items 1..N.
        settings: how both were made.
        fingerprint: of the dataset they were made of.
        dataset: its name.
        columns: names of the vectors' columns.
        item_ids: str (N + 1,), ids of the source, empty at 0.
    """

    codebook: Codebook
    table: SidTable
    settings: SidSettings
    fingerprint: str
    dataset: str
    columns: tuple[str, ...]
    item_ids: NDArray[np.object_]

    def encode(self, vectors: NDArray[np.floating]) -> Tokens:
        """The tokens int32 (m, L) that items with these vectors (m, F) would get as new ones."""
        tokens = self.codebook.encode(vectors)
        return next_ranks(self.table, tokens) if self.settings.unique else tokens

    def add(self, vectors: NDArray[np.floating], item_ids: NDArray[np.object_]) -> "Sids":
        """With new items N + 1, … of these vectors (m, F) and ids (m,); nothing else changes."""
        table = self.table.add(self.encode(vectors))
        return replace(self, table=table, item_ids=np.concatenate([self.item_ids, item_ids]))


def save(
    path: Path,
    sids: Sids,
    report: Mapping[str, Any],
    provenance: Mapping[str, Any],
    overwrite: bool = False,
) -> None:
    """Write the folder ``path``: arrays, description, report, plot and provenance.

    Raises:
        UserError: ``path`` exists and ``overwrite`` is off, or it cannot be written.
    """
    from rl_rec.sids.plots import draw_sids

    with new_directory(path, overwrite=overwrite) as draft:
        arrays = _serialise(sids)
        (draft / _ARRAYS).write_bytes(arrays)
        write_json(draft / "report.json", report)
        draw_sids(report, draft / PLOT)
        write_json(draft / "run.json", provenance)
        write_json(
            draft / _DESCRIPTION,
            {
                "version": _VERSION,
                "dataset": sids.dataset,
                "fingerprint": sids.fingerprint,
                "items": sids.table.item_count,
                "sizes": list(sids.table.sizes),
                "columns": list(sids.columns),
                "arrays_sha256": hashlib.sha256(arrays).hexdigest(),
                "settings": sids.settings.model_dump(mode="json"),
            },
        )


def load(place: Location | str) -> Sids:
    """Read a folder that ``save`` wrote.

    Raises:
        UserError: not a folder of semantic IDs, or one that is damaged.
    """
    path = fetch(location(place))
    description = read_json(path / _DESCRIPTION, "a folder of semantic IDs (make one with: rl-rec sids build)")
    again = "build the SIDs again"
    if not isinstance(description, dict) or description.get("version") != _VERSION:
        raise UserError(f"{path / _DESCRIPTION} does not describe semantic IDs of this release: {again}")
    given = description.get("settings")
    if not isinstance(given, dict):
        raise UserError(f"{path / _DESCRIPTION} does not say how the SIDs were made: {again}")
    settings = SidSettings.from_mapping(given, where="settings", file=path / _DESCRIPTION)
    try:
        content = (path / _ARRAYS).read_bytes()
        if hashlib.sha256(content).hexdigest() != description.get("arrays_sha256"):
            raise ValueError
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = dict(file)
        centres = tuple(arrays[f"centres_{level}"] for level in range(settings.levels))
        codebook = Codebook(arrays["mean"], arrays["scale"], centres, settings.beam)
        item_ids = np.concatenate([[""], arrays["item_ids"]]).astype(object)
        tokens = arrays["tokens"]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        raise UserError(f"{path / _ARRAYS} is missing or damaged: {again}") from None
    try:
        return Sids(
            codebook=codebook,
            table=SidTable.from_tokens(tokens, description["sizes"]),
            settings=settings,
            fingerprint=description["fingerprint"],
            dataset=description["dataset"],
            columns=tuple(description["columns"]),
            item_ids=item_ids,
        )
    except KeyError as error:
        raise UserError(f"{path / _DESCRIPTION} has no {error.args[0]!r}: {again}") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"{path / _DESCRIPTION} does not fit its arrays ({error}): {again}") from None


def _serialise(sids: Sids) -> bytes:
    buffer = io.BytesIO()
    arrays: dict[str, NDArray[Any]] = {
        "mean": sids.codebook.mean,
        "scale": sids.codebook.scale,
        "tokens": sids.table.tokens[1:],
        "item_ids": sids.item_ids[1:].astype(str),
    }
    for level, centres in enumerate(sids.codebook.centres):
        arrays[f"centres_{level}"] = centres
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()
