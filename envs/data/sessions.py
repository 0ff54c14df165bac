"""Exposures to slates: the one place where every source's rows become sessions."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Sessions(NamedTuple):
    """S slates of K exposures, sorted by user, then time.

    ``user`` int32 (S,); ``time`` int64 (S,), seconds of the first exposure;
    ``items`` int32 (S, K); ``feedback`` int8 (S, K).
    """

    user: NDArray[np.int32]
    time: NDArray[np.int64]
    items: NDArray[np.int32]
    feedback: NDArray[np.int8]


def build_sessions(
    user: ArrayLike, item: ArrayLike, feedback: ArrayLike, timestamp: ArrayLike, slate_size: int
) -> Sessions:
    """Cut each user's exposures, in time order, into slates of ``slate_size``.

    Exposures of the same second keep the order of the source. A user's last slate is padded with
    item 0 and feedback 0.

    Args:
        user: int (R,), 0 or above.
        item: int (R,), 1 or above.
        feedback: int (R,), 0 or 1.
        timestamp: int (R,), seconds.
        slate_size: K, the exposures of one slate.
    """
    user, timestamp = np.asarray(user), np.asarray(timestamp)
    order = np.lexsort((timestamp, user))  # (R,), stable
    user, timestamp = user[order], timestamp[order]

    exposures = np.bincount(user)  # (U,)
    slates = -(-exposures // slate_size)
    first_exposure = np.cumsum(exposures) - exposures
    first_slate = np.cumsum(slates) - slates
    position = np.arange(len(user)) - first_exposure[user]  # (R,) within the user
    row, column = first_slate[user] + position // slate_size, position % slate_size

    total = int(slates.sum())
    items = np.zeros((total, slate_size), np.int32)
    answers = np.zeros((total, slate_size), np.int8)
    items[row, column] = np.asarray(item)[order]
    answers[row, column] = np.asarray(feedback)[order]
    opening = column == 0
    return Sessions(user[opening].astype(np.int32), timestamp[opening].astype(np.int64), items, answers)
