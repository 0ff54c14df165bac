"""What every loader returns: raw exposures with the profiles and metadata they refer to."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Logs:
    """U users, N items and R exposures in the order of the source, before slates and splits.

    A user may see the same item more than once: each exposure is kept as it came.

    Attributes:
        user_ids: str (U,), the ids of the source.
        user_features: float32 (U, P), with ``user_feature_names`` of length P.
        item_ids, item_titles: str (N,); row r describes item index r + 1 (0 is padding).
        item_features: float32 (N, F), with ``item_feature_names`` of length F.
        user: int32 (R,), 0..U-1.
        item: int32 (R,), 1..N.
        feedback: int8 (R,), 1 if the user responded positively.
        timestamp: int64 (R,), seconds.
    """

    user_ids: NDArray[np.object_]
    user_features: NDArray[np.float32]
    user_feature_names: tuple[str, ...]
    item_ids: NDArray[np.object_]
    item_titles: NDArray[np.object_]
    item_features: NDArray[np.float32]
    item_feature_names: tuple[str, ...]
    user: NDArray[np.int32]
    item: NDArray[np.int32]
    feedback: NDArray[np.int8]
    timestamp: NDArray[np.int64]
