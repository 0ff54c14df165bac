"""The bijection item <-> (z_1 … z_L, rank): items of the same tokens form a bucket and carry a rank in it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envs.errors import UserError


@dataclass(frozen=True, eq=False)
class SidTable:
    """Semantic IDs of the items 1..N, in flat arrays. Item 0 is padding.

    Attributes:
        sizes: tokens V_l of each level.
        tokens: int32 (N + 1, L); −1 at 0.
        rank: int32 (N + 1,), position in the bucket, in the order of the items; 0 at 0.
        codes: int64 (B,), the tokens of each bucket as one number, ascending.
        offsets: int64 (B + 1,): bucket b holds ``items[offsets[b]:offsets[b + 1]]``.
        items: int32 (N,), by bucket, then rank.
    """

    sizes: tuple[int, ...]
    tokens: NDArray[np.int32]
    rank: NDArray[np.int32]
    codes: NDArray[np.int64]
    offsets: NDArray[np.int64]
    items: NDArray[np.int32]

    @classmethod
    def from_tokens(cls, tokens: NDArray[np.integer], sizes: Sequence[int]) -> "SidTable":
        """The table of the items 1..N, given their tokens (N, L) and how many tokens each level has.

        Raises:
            UserError: tokens out of range, or more possible IDs than an int64 can number.
        """
        sizes = tuple(int(size) for size in sizes)
        if math.prod(sizes) > np.iinfo(np.int64).max:
            raise UserError(
                f"levels of {', '.join(map(str, sizes))} tokens make more IDs than 64 bits can number: "
                f"lower levels or codebook_size"
            )
        tokens = np.asarray(tokens)
        if tokens.ndim != 2 or tokens.shape[1] != len(sizes):
            raise UserError(f"tokens of shape {tokens.shape}, expected (items, {len(sizes)})")
        if not _in_range(tokens, sizes).all():
            item = int(_in_range(tokens, sizes).argmin())
            raise UserError(
                f"item {item + 1} has the tokens {tokens[item].tolist()}, expected 0 to below {sizes}"
            )
        code = _pack(tokens, sizes)
        order = _stable_order(code)  # within a bucket the order of the items
        ordered = code[order]
        starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(ordered)])
        offsets = np.append(starts, len(ordered))
        rank = np.zeros(len(tokens) + 1, np.int32)
        rank[order + 1] = np.arange(len(order)) - np.repeat(starts, np.diff(offsets))
        padded = np.empty((len(tokens) + 1, len(sizes)), np.int32)
        padded[0], padded[1:] = -1, tokens
        return cls(sizes, padded, rank, ordered[starts], offsets, (order + 1).astype(np.int32))

    @property
    def item_count(self) -> int:
        """N."""
        return len(self.items)

    @property
    def bucket_sizes(self) -> NDArray[np.int64]:
        """Items of each bucket (B,)."""
        return np.diff(self.offsets)

    @property
    def collisions(self) -> int:
        """How many items share their tokens with another item."""
        sizes = self.bucket_sizes
        return int(sizes[sizes > 1].sum())

    def items_of(self, tokens: NDArray[np.integer], rank: NDArray[np.integer]) -> NDArray[np.int32]:
        """The items int32 (n,) with the tokens (n, L) and ranks (n,); 0 where there is none."""
        tokens, rank = np.asarray(tokens), np.asarray(rank)
        found = np.zeros(len(tokens), np.int32)
        if not len(self.codes):
            return found
        code = _pack(tokens, self.sizes)
        order = np.argsort(code)  # a sorted search meets the cache: ten times faster on millions
        bucket = np.empty(len(code), np.int64)
        bucket[order] = np.searchsorted(self.codes, code[order])
        bucket = np.minimum(bucket, len(self.codes) - 1)
        exists = _in_range(tokens, self.sizes) & (self.codes[bucket] == code)
        exists &= (rank >= 0) & (rank < self.bucket_sizes[bucket])
        found[exists] = self.items[self.offsets[bucket[exists]] + rank[exists]]
        return found

    def add(self, tokens: NDArray[np.integer]) -> "SidTable":
        """The table with new items N + 1, …, given their tokens (m, L): what the older ones have stays.

        Raises:
            UserError: tokens out of range.
        """
        # The stable sort puts new items behind the older ones of their bucket.
        return SidTable.from_tokens(np.concatenate([self.tokens[1:], np.asarray(tokens)]), self.sizes)


def add_ranks(table: SidTable) -> SidTable:
    """The table with one more level, the rank: every item has an ID of its own.

    Raises:
        UserError: more possible IDs than an int64 can number.
    """
    size = int(table.bucket_sizes.max(initial=1))
    return SidTable.from_tokens(np.column_stack([table.tokens, table.rank])[1:], (*table.sizes, size))


def next_ranks(table: SidTable, tokens: NDArray[np.integer]) -> NDArray[np.int32]:
    """Tokens (m, L) of new items for a table that ``add_ranks`` made, given those without the rank (m, L − 1).

    Where a rank would exceed the level, the last token is shared: the level never grows.
    """
    old = table.tokens[1:, :-1]
    plain = SidTable.from_tokens(np.concatenate([old, np.asarray(tokens)]), table.sizes[:-1])
    rank = np.minimum(plain.rank[1 + len(old) :], table.sizes[-1] - 1)
    return np.column_stack([tokens, rank]).astype(np.int32)


def _in_range(tokens: NDArray[np.integer], sizes: tuple[int, ...]) -> NDArray[np.bool_]:
    inside = np.ones(len(tokens), bool)
    for level, size in enumerate(sizes):
        inside &= (tokens[:, level] >= 0) & (tokens[:, level] < size)
    return inside


def _pack(tokens: NDArray[np.integer], sizes: tuple[int, ...]) -> NDArray[np.int64]:
    """The tokens (n, L) as digits of one number of mixed base, the first level the highest."""
    code = np.zeros(len(tokens), np.int64)
    for level, size in enumerate(sizes):
        code = code * size + tokens[:, level]
    return code


def _stable_order(code: NDArray[np.int64]) -> NDArray[np.int64]:
    """What a stable argsort gives, several times faster where code and position fit into one number."""
    bits = len(code).bit_length()
    if not len(code) or int(code.max()).bit_length() + bits > 63:
        return np.argsort(code, kind="stable")
    both = (code << bits) | np.arange(len(code))
    both.sort()
    return both & ((1 << bits) - 1)
