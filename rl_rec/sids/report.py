"""What a set of semantic IDs is like: how much it keeps, how it uses its tokens, who shares an ID."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.data.dataset import Dataset
from rl_rec.sids.codebook import Codebook, Floats, SidSettings, fit_codebook
from rl_rec.sids.table import SidTable

_ROWS = 1 << 14
_NAMED = 64
"""Clusters whose items are named, the largest first."""
_EXAMPLES = 4


def describe_sids(
    codebook: Codebook,
    table: SidTable,
    vectors: NDArray[np.floating],
    settings: SidSettings,
    titles: NDArray[np.object_] | None = None,
) -> dict[str, Any]:
    """Plain data for ``report.json``.

    Args:
        codebook: the centres.
        table: of the catalogue's items 1..N.
        vectors: (N, F) of the same items.
        settings: what both were made with.
        titles: (N + 1,), empty where unknown.

    Returns:
        ``variance`` (mean squared norm of the standardised vectors), per level ``error`` (mean squared norm of
        what is left after it), ``error_share`` of the variance, ``tokens``, ``used``, ``usage``, ``largest``
        and ``perplexity``; then ``collision_share``, buckets, and ``examples`` of first-level clusters. With
        ``balanced`` also ``error_to_plain``: each level's error relative to k-means without the limit.
    """
    tokens = table.tokens[1:]
    errors = residual_errors(codebook, tokens, vectors)
    levels = [_level(tokens[:, level], size) for level, size in enumerate(table.sizes)]
    for level, error in zip(levels, errors[1:], strict=False):  # the level of ranks, the last, has no error
        level["error"] = error
        level["error_share"] = error / errors[0] if errors[0] > 0 else 0.0
    if settings.balanced:
        plain, plain_tokens = fit_codebook(vectors, settings.model_copy(update={"balanced": False}))
        for level, error in zip(levels, residual_errors(plain, plain_tokens, vectors)[1:], strict=False):
            level["error_to_plain"] = level["error"] / error if error > 0 else None
    sizes, counts = np.unique(table.bucket_sizes, return_counts=True)
    return {
        "items": table.item_count,
        "dimensions": len(codebook.mean),
        "variance": errors[0],
        "levels": levels,
        "collisions": table.collisions,
        "collision_share": table.collisions / table.item_count,
        "buckets": len(table.codes),
        "largest_bucket": int(sizes[-1]),
        "buckets_of_size": {str(size): int(count) for size, count in zip(sizes, counts, strict=True)},
        "examples": _examples(codebook, tokens, vectors, titles),
    }


def residual_errors(
    codebook: Codebook, tokens: NDArray[np.integer], vectors: NDArray[np.floating]
) -> list[float]:
    """Mean squared norm of the standardised vectors (N, F), then of what each level leaves of them."""
    totals = np.zeros(len(codebook.centres) + 1)
    for rows in _chunks(len(vectors)):
        residual = codebook.standardise(vectors[rows])
        totals[0] += np.square(residual, dtype=np.float64).sum()
        for level, centres in enumerate(codebook.centres):
            residual -= centres[tokens[rows, level]]
            totals[level + 1] += np.square(residual, dtype=np.float64).sum()
    return (totals / max(len(vectors), 1)).tolist()


def titles_of(dataset: Dataset) -> NDArray[np.object_] | None:
    """The titles (N + 1,), or None where the source has none."""
    return dataset.item_titles if any(dataset.item_titles) else None


def _level(tokens: NDArray[np.int32], size: int) -> dict[str, Any]:
    counts = np.bincount(tokens, minlength=size)
    share = counts[counts > 0] / len(tokens)
    used = int((counts > 0).sum())
    return {
        "tokens": size,
        "used": used,
        "usage": used / size,
        "largest": int(counts.max()),
        "perplexity": float(np.exp(-(share * np.log(share)).sum())),
        "items_per_token": np.sort(counts)[::-1].tolist() if size <= 1024 else None,
    }


def _examples(
    codebook: Codebook,
    tokens: NDArray[np.int32],
    vectors: NDArray[np.floating],
    titles: NDArray[np.object_] | None,
) -> list[dict[str, Any]]:
    """The titles nearest to the largest first-level centres."""
    if titles is None:
        return []
    first = tokens[:, 0]
    distance = _distances(codebook.centres[0], first, codebook, vectors)
    order = np.lexsort((distance, first))
    counts = np.bincount(first, minlength=codebook.sizes[0])
    starts = np.cumsum(counts) - counts
    largest = [token for token in np.argsort(-counts, kind="stable")[:_NAMED] if counts[token]]
    return [
        {
            "token": int(token),
            "items": int(counts[token]),
            "nearest": [
                str(titles[item + 1])
                for item in order[starts[token] : starts[token] + min(_EXAMPLES, counts[token])]
            ],
        }
        for token in largest
    ]


def _distances(
    centres: Floats, tokens: NDArray[np.int32], codebook: Codebook, vectors: NDArray[np.floating]
) -> Floats:
    found = np.empty(len(tokens), np.float32)
    for rows in _chunks(len(tokens)):
        found[rows] = np.square(codebook.standardise(vectors[rows]) - centres[tokens[rows]]).sum(axis=1)
    return found


def _chunks(rows: int) -> Iterator[slice]:
    for start in range(0, rows, _ROWS):
        yield slice(start, start + _ROWS)
