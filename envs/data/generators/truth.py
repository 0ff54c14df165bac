"""The planted truth of generated files: what it is, what it reaches on them, and how to ask it later.

P(behaviour a | user u, item i) = sigmoid(strength_a · <taste_u, style_i> + appeal_i + offset_a), and at most
that of the behaviour that it comes after.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from envs.data.schema import read_columns, write_columns
from envs.errors import UserError
from envs.files import read_json

DESCRIPTION = "truth.json"
_USERS, _ITEMS = "truth_users.parquet", "truth_items.parquet"
_BINS = 1 << 17
_HIGHEST_LOGIT = 64.0


@dataclass(frozen=True)
class Behaviour:
    """One kind of response.

    Attributes:
        name: as the column of the file, or what it says about one.
        strength: weight of the taste in the logit; negative for what users do to items they dislike.
        offset: in the logit.
        after: the name of an earlier one without which it does not happen.
    """

    name: str
    strength: float
    offset: float
    after: str | None = None


def parents(behaviours: Sequence[Behaviour]) -> list[int | None]:
    """Of each behaviour, the position of the one that it comes after."""
    names = [behaviour.name for behaviour in behaviours]
    return [None if behaviour.after is None else names.index(behaviour.after) for behaviour in behaviours]


@dataclass(frozen=True, eq=False)
class Truth:
    """What decides every response in the files.

    Attributes:
        user_ids: int64 or string objects (U,), as in the files; of sessions where the format has no user id.
        taste: float32 (U, D), unit vectors.
        item_ids: int64 or string objects (N,), as in the files.
        style: float32 (N, D), unit vectors.
        appeal: float32 (N,), in the logit.
        behaviours: the A behaviours.
    """

    user_ids: NDArray[Any]
    taste: NDArray[np.float32]
    item_ids: NDArray[Any]
    style: NDArray[np.float32]
    appeal: NDArray[np.float32]
    behaviours: tuple[Behaviour, ...]

    def logits(self, user: NDArray[np.int64], item: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32 (n, A) of the rows ``user`` (n,) of taste and ``item`` (n,) of style."""
        affinity = np.einsum("nd,nd->n", self.taste[user], self.style[item])
        strength = np.array([behaviour.strength for behaviour in self.behaviours], np.float32)
        offset = np.array([behaviour.offset for behaviour in self.behaviours], np.float32)
        logits = affinity[:, None] * strength + self.appeal[item, None] + offset  # (n, A)
        for number, parent in enumerate(parents(self.behaviours)):
            if parent is not None:
                np.minimum(logits[:, number], logits[:, parent], out=logits[:, number])
        return logits

    def probability(self, user_ids: ArrayLike, item_ids: ArrayLike) -> NDArray[np.float32]:
        """P of every behaviour, float32 (n, A), of the pairs of ``user_ids`` (n,) and ``item_ids`` (n,).

        Raises:
            UserError: an id that is not in the files.
        """
        user = _rows(user_ids, self.user_ids, "user")
        item = _rows(item_ids, self.item_ids, "item")
        return expit(self.logits(user, item))

    def save(self, folder: Path) -> None:
        """Write the two tables of ``folder``; ``describe`` has the rest."""
        write_columns(folder / _USERS, {"user_id": self.user_ids, "taste": self.taste})
        write_columns(folder / _ITEMS, {"item_id": self.item_ids, "style": self.style, "appeal": self.appeal})

    def describe(self) -> dict[str, Any]:
        """The entries of ``truth.json`` that ``load_truth`` needs."""
        return {
            "user_id": _type_of(self.user_ids),
            "item_id": _type_of(self.item_ids),
            "behaviours": [asdict(behaviour) for behaviour in self.behaviours],
        }


def load_truth(folder: Path) -> Truth:
    """Read the truth of a folder that ``rl-rec data generate`` wrote.

    Raises:
        UserError: the folder holds no truth, or a damaged one.
    """
    folder = Path(folder)
    description = read_json(folder / DESCRIPTION, "a folder of rl-rec data generate")
    try:
        id_types = {kind: description[f"{kind}_id"] for kind in ("user", "item")}
        behaviours = tuple(Behaviour(**entry) for entry in description["behaviours"])
    except (KeyError, TypeError) as error:
        raise UserError(f"{folder / DESCRIPTION} describes no truth ({error})") from None
    users = read_columns(folder / _USERS, {"user_id": id_types["user"], "taste": "float[]"})
    items = read_columns(folder / _ITEMS, {"item_id": id_types["item"], "style": "float[]", "appeal": "float"})
    return Truth(
        user_ids=users["user_id"],
        taste=users["taste"],
        item_ids=items["item_id"],
        style=items["style"],
        appeal=items["appeal"],
        behaviours=behaviours,
    )


def true_probability(folder: Path, user_ids: ArrayLike, item_ids: ArrayLike) -> NDArray[np.float32]:
    """P of every behaviour as planted in ``folder``, in the order of ``truth.json``.

    Args:
        folder: written by ``rl-rec data generate``.
        user_ids: (n,), as in the files; session ids where the format has no user id (RL4RS).
        item_ids: (n,), as in the files.

    Returns:
        float32 (n, A).

    Raises:
        UserError: the folder holds no truth, or an id is not in its files.
    """
    return load_truth(folder).probability(user_ids, item_ids)


class Tally:
    """Counts the written responses by their true logit, from which come rates, AUC and log-loss.

    All that is kept are whole numbers per bin, so the figures do not depend on how the rows were chunked.
    Bins of 0.001 in the logit move them by some 1e-4 for a few hundred rows, and by less for more.
    """

    def __init__(self, behaviours: Sequence[Behaviour]) -> None:
        self._names = [behaviour.name for behaviour in behaviours]
        self._counts = np.zeros((len(behaviours), 2, _BINS), np.int64)

    def add(self, logits: NDArray[np.float32], responses: NDArray[np.bool_]) -> None:
        """Count rows: ``logits`` float32 (n, A) and ``responses`` bool (n, A)."""
        scaled = (logits.astype(np.float64) + _HIGHEST_LOGIT) * (_BINS / (2 * _HIGHEST_LOGIT))
        bins = np.clip(scaled, 0, _BINS - 1).astype(np.int64)
        for number, counts in enumerate(self._counts):
            code = bins[:, number] + _BINS * responses[:, number]
            counts += np.bincount(code, minlength=2 * _BINS).reshape(2, _BINS)

    def figures(self) -> dict[str, Any]:
        """Rows and, by behaviour, the rate and what the truth reaches; None where all responses are alike."""
        pairs = zip(self._names, self._counts, strict=True)
        return {
            "rows": int(self._counts[0].sum()),
            "behaviours": {name: _figures(counts) for name, counts in pairs},
        }


@dataclass(frozen=True, eq=False)
class Written:
    """The truth of the files, and what they hold.

    Attributes:
        truth: with the ids as they stand in the files.
        tallies: of the responses, by log.
        counts: of users, items, sessions and rows, which are pages of nine exposures in RL4RS.
    """

    truth: Truth
    tallies: Mapping[str, Tally]
    counts: Mapping[str, int]


def _figures(counts: NDArray[np.int64]) -> dict[str, float | None]:
    negative, positive = counts.astype(np.float64)  # (bins,)
    total = negative.sum() + positive.sum()
    if not (negative.any() and positive.any()):
        return {"rate": float(positive.sum() / total) if total else None, "auc": None, "log_loss": None}
    below = np.cumsum(negative) - negative
    auc = (positive * (below + negative / 2)).sum() / (negative.sum() * positive.sum())
    centre = (np.arange(_BINS) + 0.5) * (2 * _HIGHEST_LOGIT / _BINS) - _HIGHEST_LOGIT
    loss = positive * np.logaddexp(0, -centre) + negative * np.logaddexp(0, centre)
    return {
        "rate": float(positive.sum() / total),
        "auc": float(auc),
        "log_loss": float(loss.sum() / total),
    }


def _rows(ids: ArrayLike, known: NDArray[Any], what: str) -> NDArray[np.int64]:
    values = pa.array(np.asarray(ids).reshape(-1))
    listed = pa.array(known)
    try:
        found = pc.index_in(values.cast(listed.type), value_set=listed)
    except pa.ArrowInvalid:
        raise UserError(f"{what} ids here are of type {listed.type}, got {values.type}") from None
    if found.null_count:
        first = values[pc.index(pc.is_null(found), True).as_py()]
        raise UserError(f"{what} {first} is not in the generated files")
    return found.to_numpy().astype(np.int64)


def _type_of(ids: NDArray[Any]) -> str:
    return "string" if ids.dtype == object else ids.dtype.name
