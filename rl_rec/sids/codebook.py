"""Codebooks of residual k-means: from item vectors to tokens and back.

r_0 = (x − mean) / scale; z_l = argmin_v ‖r_{l−1} − C_l[v]‖; r_l = r_{l−1} − C_l[z_l].

Glossary: N items, F dimensions, L levels, V_l tokens of level l, B beam.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from typing_extensions import Self

from envs.errors import UserError
from envs.progress import Progress, silent
from envs.settings import Settings
from rl_rec.sids.balance import balanced_assignment
from rl_rec.sids.kmeans import Floats, Tokens, blocks, fit_centres, means_of, nearest

_LARGEST = 1e18
"""Of a vector's values: its square still has room in float32."""


class SidSettings(Settings):
    """How items become semantic IDs."""

    levels: int = Field(3, ge=1, le=16)
    """Tokens of an ID (L). Each level describes what the ones before left over."""
    codebook_size: int = Field(64, ge=1, le=65_536)
    """Tokens per level (V); a level of fewer distinct residuals takes as many as there are. Raising it lowers
    the error and the collisions, and widens every choice of the policy."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of k-means, its samples and the factors."""
    vectors: Literal["features", "factors", "joined"] = "features"
    """What describes an item: the dataset's features (for MovieLens these hold factors of the training users'
    likes already), factors learned here, or both; ``joined`` replaces the factors among the features."""
    factors: int = Field(32, ge=1, le=4096)
    """Factors of the training users' likes, for ``factors`` and ``joined``."""
    balanced: bool = False
    """Whether no token may take more than ceil(N / V_l) items of the catalogue; costs error where the items are
    not evenly spread. Items that come later get their nearest centres all the same."""
    unique: bool = False
    """Whether a last level is added whose token is the item's rank among those that share the others, so that
    no two items share an ID."""
    beam: int = Field(1, ge=1, le=64)
    """Partial IDs kept while encoding; 1 takes the nearest centre at every level. Raising it lowers the error
    by a few percent and takes as many times longer; ``balanced`` needs 1."""
    iterations: int = Field(25, ge=1, le=10_000)
    """Most iterations of k-means per level."""
    sample_above: int = Field(200_000, ge=1)
    """Rows above which k-means runs on a sample, then ``refinements`` times over all rows."""
    sample_per_token: int = Field(256, ge=1)
    """Rows of the sample per token of a level."""
    refinements: int = Field(4, ge=0, le=10_000)
    """Iterations over all rows after the sample's; more lower the error a little."""
    balance_iterations: int = Field(10, ge=1, le=10_000)
    """Balanced assignments that move the centres of a level, where ``balanced``."""

    @model_validator(mode="after")
    def _check_beam(self) -> Self:
        if self.balanced and self.beam > 1:
            raise ValueError(f"beam is {self.beam}, and balanced assignment knows only 1: set one of them back")
        return self


@dataclass(frozen=True, eq=False)
class Codebook:
    """The centres that turn any vector into tokens. It never changes after it was fitted.

    Attributes:
        mean, scale: float32 (F,), of the standardisation; ``scale`` is 1 where a column was constant.
        centres: per level float32 (V_l, F), standardised.
        beam: partial IDs kept while encoding.
    """

    mean: Floats
    scale: Floats
    centres: tuple[Floats, ...]
    beam: int = 1

    @property
    def sizes(self) -> tuple[int, ...]:
        """V_l of each level."""
        return tuple(len(centres) for centres in self.centres)

    def standardise(self, vectors: NDArray[np.floating]) -> Floats:
        """The vectors (n, F) in the space of the centres, a copy.

        Raises:
            UserError: another number of columns, or a value that is not finite.
        """
        vectors = np.asarray(vectors)
        if vectors.ndim != 2 or vectors.shape[1] != len(self.mean):
            raise UserError(
                f"item vectors of shape {vectors.shape}, expected (items, {len(self.mean)}): "
                f"the codebook was fitted on other columns"
            )
        _check_finite(vectors)
        standard = np.subtract(vectors, self.mean, dtype=np.float32, casting="same_kind")
        standard /= self.scale
        return standard

    def encode(self, vectors: NDArray[np.floating], threads: int = 1) -> Tokens:
        """The tokens of the vectors (n, F): int32 (n, L).

        Memory beside the result does not grow with n.

        Raises:
            UserError: another number of columns, or a value that is not finite.
        """
        from threadpoolctl import threadpool_limits  # here: agents that meet no new item do without

        tokens = np.empty((len(vectors), len(self.centres)), np.int32)
        with threadpool_limits(limits=threads):
            for rows in blocks(len(vectors), self.beam * max(self.sizes, default=1)):
                tokens[rows] = self._encode(self.standardise(vectors[rows]))
        return tokens

    def reconstruct(self, tokens: NDArray[np.integer], levels: int | None = None) -> Floats:
        """The vectors (n, F) that the first ``levels`` tokens stand for, by default all."""
        total = np.zeros((len(tokens), len(self.mean)), np.float32)
        for level, centres in enumerate(self.centres[:levels]):
            total += centres[tokens[:, level]]
        return total * self.scale + self.mean

    def _encode(self, residual: Floats) -> Tokens:
        """Beam search over the levels; with a beam of 1 the nearest centres."""
        rows, width = residual.shape
        residual = residual[:, None]  # (n, B, F)
        paths = np.zeros((rows, 1, 0), np.int32)
        own = np.arange(rows)[:, None]
        for level, centres in enumerate(self.centres):
            kept = residual.shape[1]
            score = residual.reshape(-1, width) @ centres.T  # (n·B, V)
            score -= 0.5 * np.square(centres).sum(axis=1)
            if kept > 1:  # errors of different prefixes are compared: their own lengths count
                score -= 0.5 * np.square(residual.reshape(-1, width)).sum(axis=1, keepdims=True)
            score = score.reshape(rows, -1)
            last = level == len(self.centres) - 1
            best = _largest(score, 1 if last else min(self.beam, score.shape[1]))  # (n, B')
            prefix, token = np.divmod(best, len(centres))
            paths = np.concatenate([paths[own, prefix], token[..., None].astype(np.int32)], axis=2)
            if not last:
                residual = residual[own, prefix] - centres[token]
        return paths[:, 0]


def fit_codebook(
    vectors: NDArray[np.floating],
    settings: SidSettings | None = None,
    progress: Progress = silent,
    threads: int = 1,
) -> tuple[Codebook, Tokens]:
    """Fit residual k-means to the vectors (N, F) of a catalogue.

    Bit-equal for the same seed and number of threads.

    Args:
        vectors: finite numbers, a row per item.
        settings: defaults if None.
        progress: told after every level.
        threads: of the linear algebra.

    Returns:
        The codebook, and the tokens int32 (N, L) of the same items: what ``encode`` gives them, but for
        ``balanced``. The level that ``unique`` adds is the table's affair (``rl_rec.sids.table.add_ranks``).

    Raises:
        UserError: no items, no columns, or a value that is not finite.
    """
    from threadpoolctl import threadpool_limits

    settings = settings or SidSettings()
    vectors = np.asarray(vectors)
    if vectors.ndim != 2 or 0 in vectors.shape:
        raise UserError(f"item vectors of shape {vectors.shape}, expected (items, columns) with one of each")
    _check_finite(vectors)
    with threadpool_limits(limits=threads):
        codebook = Codebook(*_moments(vectors), (), settings.beam)
        residual = codebook.standardise(vectors)  # (N, F), reduced in place
        columns = []
        for level in range(settings.levels):
            progress(level, settings.levels, f"level {level + 1}")
            centres = fit_centres(
                residual,
                settings.codebook_size,
                rng=np.random.default_rng([settings.seed, level]),
                iterations=settings.iterations,
                sample_above=settings.sample_above,
                sample_per_token=settings.sample_per_token,
                refinements=settings.refinements,
            )
            if settings.balanced:
                centres, tokens = _balance(residual, centres, settings.balance_iterations)
                columns.append(tokens)
                residual -= centres[tokens]
            elif level < settings.levels - 1:
                for rows, tokens in nearest(residual, centres):
                    residual[rows] -= centres[tokens]
            codebook = replace(codebook, centres=(*codebook.centres, centres))
    del residual
    # One definition: the catalogue's tokens are those that the same vectors would get later.
    found = np.stack(columns, axis=1) if settings.balanced else codebook.encode(vectors, threads)
    progress(settings.levels, settings.levels)
    return codebook, found


def _balance(residual: Floats, centres: Floats, iterations: int) -> tuple[Floats, Tokens]:
    """Move the centres to the means of balanced assignments; the last assignment is to the returned centres."""
    capacity = -(-len(residual) // len(centres))
    prices = None
    for _ in range(iterations):
        tokens, prices = balanced_assignment(residual, centres, capacity, prices)
        centres = means_of(residual, tokens, centres)
    return centres, balanced_assignment(residual, centres, capacity, prices)[0]


def _moments(vectors: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """Mean and deviation of the columns; a deviation of 1 where a column is constant."""
    mean = vectors.mean(axis=0, dtype=np.float64)
    squares, largest = np.zeros_like(mean), np.zeros_like(mean)
    for rows in blocks(len(vectors), vectors.shape[1]):
        squares += np.square(vectors[rows] - mean).sum(axis=0)
        largest = np.maximum(largest, np.abs(vectors[rows]).max(axis=0))
    deviation = np.sqrt(squares / len(vectors))
    # A column is constant when its spread is only the rounding of its own values.
    deviation[deviation <= 1e-7 * largest] = 1.0
    deviation[deviation == 0.0] = 1.0
    return mean.astype(np.float32), deviation.astype(np.float32)


def _check_finite(vectors: NDArray[np.floating]) -> None:
    for rows in blocks(len(vectors), vectors.shape[1]):
        finite = (np.abs(vectors[rows]) <= _LARGEST).all(axis=1)  # NaN is not
        if not finite.all():
            item = rows.start + int(finite.argmin()) + 1
            raise UserError(
                f"the vector of item {item} holds NaN, infinity or a value beyond {_LARGEST:g}: "
                "mend the item features"
            )


def _largest(score: Floats, count: int) -> NDArray[np.intp]:
    """Columns of the ``count`` largest of each row of (n, m), the largest first; the score is destroyed."""
    rows = np.arange(len(score))
    best = np.empty((len(score), count), np.intp)
    for place in range(count):  # few passes of argmax are far cheaper than a partition of each row
        best[:, place] = score.argmax(axis=1)
        if place < count - 1:
            score[rows, best[:, place]] = -np.inf
    return best
