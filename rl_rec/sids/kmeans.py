"""The centres of one level: k-means through scikit-learn on all rows or a sample, refined over all rows."""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

_GRID = 1e-4
"""Rows closer than this (in deviations) count as equal: residuals of equal rows differ by rounding."""
_BLOCK = 1 << 19
"""Scores computed at once: they stay in the cache of a core."""

Floats = NDArray[np.float32]
Tokens = NDArray[np.int32]


def fit_centres(
    rows: Floats,
    size: int,
    *,
    rng: np.random.Generator,
    iterations: int,
    sample_above: int,
    sample_per_token: int,
    refinements: int,
) -> Floats:
    """Centres (V, F) of the rows (N, F); V is ``size``, or the number of distinct rows where that is less."""
    if len(_distinct(rows[: 4 * size])) < size:  # the first rows settle it nearly always
        distinct = _distinct(rows)
        if len(distinct) <= size:
            return rows[distinct]
    if len(rows) <= sample_above:
        return _kmeans(rows, size, iterations, rng)
    wanted = min(len(rows), size * sample_per_token)
    chosen = np.sort(rng.choice(len(rows), wanted, replace=False))
    if len(_distinct(rows[chosen])) < size:  # nearly all rows are copies of a few: draw among the distinct
        chosen = np.sort(rng.permutation(_distinct(rows))[:wanted])
    centres = _kmeans(rows[chosen], size, iterations, rng)
    for _ in range(refinements):
        centres = _means(rows, nearest(rows, centres), centres)
    return centres


def nearest(rows: Floats, centres: Floats) -> Iterator[tuple[slice, Tokens]]:
    """Block by block the rows (N, F) and their nearest centres of (V, F)."""
    half_norms = 0.5 * np.square(centres).sum(axis=1)
    for block in blocks(len(rows), len(centres)):
        score = rows[block] @ centres.T  # (n, V): ½‖r‖² − ½‖r − c‖², so the largest is the nearest
        score -= half_norms
        yield block, score.argmax(axis=1).astype(np.int32)


def means_of(rows: Floats, tokens: Tokens, centres: Floats) -> Floats:
    """The mean (V, F) of each token's rows; the old centre of a token without rows."""
    parts = ((block, tokens[block]) for block in blocks(len(rows), len(centres)))
    return _means(rows, parts, centres)


def blocks(rows: int, width: int) -> Iterator[slice]:
    """Cut ``rows`` so that ``width`` numbers for each of a block's rows fit into the cache."""
    step = max(64, _BLOCK // max(width, 1))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def _means(rows: Floats, parts: Iterable[tuple[slice, Tokens]], centres: Floats) -> Floats:
    from scipy.sparse import csc_matrix  # here: agents that only serve do without

    sums, counts = np.zeros(centres.shape), np.zeros(len(centres))
    for block, tokens in parts:
        ones, offsets = np.ones(len(tokens), np.float32), np.arange(len(tokens) + 1)
        sums += csc_matrix((ones, tokens, offsets), (len(centres), len(tokens))) @ rows[block]
        counts += np.bincount(tokens, minlength=len(centres))
    means = (sums / np.maximum(counts, 1.0)[:, None]).astype(np.float32)
    return np.where(counts[:, None] > 0, means, centres)


def _kmeans(rows: Floats, size: int, iterations: int, rng: np.random.Generator) -> Floats:
    from sklearn.cluster import KMeans

    seed = int(rng.integers(2**31))
    fitted = KMeans(size, n_init=1, max_iter=iterations, random_state=seed).fit(rows)
    return fitted.cluster_centers_.astype(np.float32)


def _distinct(rows: Floats) -> NDArray[np.intp]:
    """One index of every distinct row, ascending."""
    # A random projection in double precision: equal rows agree exactly, others with probability 0.
    direction = np.random.default_rng(0).standard_normal(rows.shape[1])
    key = np.empty(len(rows))
    for block in blocks(len(rows), rows.shape[1]):
        key[block] = (np.round(rows[block] / _GRID) * direction).sum(axis=1)
    return np.sort(np.unique(key, return_index=True)[1])
