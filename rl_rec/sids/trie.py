"""The prefix tree over semantic IDs, with the items as its leaves: flat arrays on one device.

Level 0 is the root, levels 1 … L are token prefixes, level L + 1 are the items. Nodes of a level are sorted by
prefix, so the children of a node are one contiguous run of the next level: its first child and their number
say everything. Nothing here is larger than the catalogue, and reading it never costs more than what is read.

Glossary: N items, L levels, M_l nodes of level l, F item features, C_l the most children of a node of level l.
"""

import copy
import math
import sys
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from envs.errors import UserError

_ONE = 2**18
"""Fixed-point 1 of the feature sums: fine enough for standardised features (4e-6), and millions of their
squares stay far from int64's end."""


class Children(NamedTuple):
    """Children of some nodes, padded to the widest."""

    node: Tensor
    """(..., C) int64 nodes of the next level; meaningless where ``valid`` is off."""
    valid: Tensor
    """(..., C) bool: there is such a child, and a live item below it."""


class Trie:
    """Which prefixes lead to live items, and what is below them.

    Attributes:
        levels: L.
        sizes: tokens V_l of each level 1 … L.
        token: for levels 1 … L (index 0 is unused), (M_l,) int64 token of each node.
        first, degree: for levels 0 … L, (M_l,) int64 first child in level l + 1 and number of children.
        widths: C_l for levels 0 … L.
        item: (M_{L+1},) int64 item of each leaf; leaves are sorted by bucket and rank.
        bucket: (M_{L+1},) int64 node of level L above each leaf.
        path: (N + 1, L + 1) int64 node of each item at levels 1 … L + 1; zeros for padding.
        live: (N + 1,) bool, which items can be reached.
        count: for levels 0 … L + 1, (M_l,) float32 number of live items below each node.
    """

    def __init__(
        self,
        tokens: NDArray[np.integer],
        sizes: tuple[int, ...],
        features: Tensor,
        *,
        fixed_width: bool = False,
    ) -> None:
        """Build the tree over a whole catalogue, with every item live.

        Args:
            tokens: (N + 1, L) semantic IDs, row 0 (padding) is ignored.
            sizes: V_l, tokens of each level.
            features: (N + 1, F) item features; their device is the tree's.
            fixed_width: pad children to V_l instead of the most children of any node, so that shapes and work
                do not depend on the catalogue.
        """
        device = features.device
        tokens = np.asarray(tokens)
        items, self.levels, self.sizes = len(tokens) - 1, tokens.shape[1], tuple(sizes)
        code = np.zeros(items, np.int64)
        codes = []  # of every prefix length
        for level, size in enumerate(self.sizes):
            code = code * size + tokens[1:, level]
            codes.append(code)
        order = np.argsort(codes[-1], kind="stable")  # ties by item: the rank in the bucket
        position = np.empty(items, np.int64)
        position[order] = np.arange(items)

        self.token: list[Tensor] = [torch.zeros(1, dtype=torch.int64, device=device)]
        self.first: list[Tensor] = []
        self.degree: list[Tensor] = []
        path = np.zeros((items + 1, self.levels + 1), np.int64)
        above = np.zeros(items, np.int64)  # node of each sorted item in the level above
        nodes_above = 1
        for level in range(self.levels + 1):
            if level < self.levels:
                ordered = codes[level][order]
                new = np.ones(items, np.bool_)
                new[1:] = ordered[1:] != ordered[:-1]
                node = np.cumsum(new) - 1  # of each sorted item
                starts = np.flatnonzero(new)
                token = tokens[1:, level][order][starts].astype(np.int64)
                self.token.append(torch.from_numpy(token).to(device))
            else:
                node, starts = np.arange(items), np.arange(items)
            degree = np.bincount(above[starts], minlength=nodes_above)
            first = np.concatenate([[0], np.cumsum(degree)[:-1]])
            self.first.append(torch.from_numpy(first).to(device))
            self.degree.append(torch.from_numpy(degree).to(device))
            path[1:, level] = node[position]
            above, nodes_above = node, len(starts)
        self.item = torch.from_numpy(order + 1).to(device)
        self.bucket = torch.from_numpy(path[order + 1, self.levels - 1]).to(device)
        self.path = torch.from_numpy(path).to(device)
        self.widths = [int(degree.max()) for degree in self.degree]
        if fixed_width:
            self.widths = [*(max(v, w) for v, w in zip(self.sizes, self.widths, strict=False)), self.widths[-1]]
        self._fixed_width = fixed_width
        self._offsets = [torch.arange(width, device=device) for width in self.widths]

        squares = float(features.square().sum(dim=0, dtype=torch.float64).max()) if features.numel() else 0.0
        if not squares * _ONE**2 < 2**62:  # rounded up, they may be a little more; and NaN is less than nothing
            largest = float(features.abs().max())
            raise UserError(
                f"item features reach {largest:g}: standardise them and mend what is no number, "
                "their squares are summed exactly"
            )
        self.features = features
        self.live = torch.zeros(items + 1, dtype=torch.bool, device=device)
        self.version = 0
        self.count = [torch.zeros(len(first), device=device) for first in self.first]
        self.count.append(torch.zeros(items, device=device))
        # Sums in fixed point: exact, whatever births and retirements led to a live set.
        self._sums = [
            torch.zeros(len(count), 2 * features.shape[1], dtype=torch.int64, device=device)
            for count in self.count[1:-1]
        ]
        everything = torch.ones_like(self.live)
        everything[0] = False
        self.set_live(everything)

    def fork(self, device: torch.device | str | None = None) -> "Trie":
        """The same tree with a live set of its own, on ``device``; what cannot change is shared if possible."""
        device = self.features.device if device is None else device
        other = copy.copy(self)
        for name in ("token", "first", "degree", "_offsets"):
            setattr(other, name, [array.to(device) for array in getattr(self, name)])
        for name in ("item", "bucket", "path", "features", "live"):
            setattr(other, name, getattr(self, name).to(device))
        other.count = [count.to(device, copy=True) for count in self.count]
        other._sums = [sums.to(device, copy=True) for sums in self._sums]
        return other

    @property
    def num_items(self) -> int:
        """N, live or not."""
        return self.live.shape[0] - 1

    def nodes(self, level: int) -> int:
        """M_l."""
        return self.count[level].shape[0]

    def most(self, level: int) -> int:
        """The nodes of ``level`` (1 … L + 1) that work must reckon with: M_l, or with ``fixed_width`` a number
        that does not depend on the catalogue."""
        if not self._fixed_width:
            return self.nodes(level)
        return math.prod(self.sizes[:level]) if level <= self.levels else sys.maxsize

    def set_live(self, live: Tensor) -> None:
        """Make exactly the items of ``live`` (N + 1,) reachable; work is in proportion to what changed."""
        live = live.clone()
        live[0] = False
        changed = (live != self.live).nonzero().squeeze(1)
        if not len(changed):
            return
        sign = torch.where(live[changed], 1.0, -1.0)
        rows = (self.features[changed].double() * _ONE).round().long()
        rows = torch.cat([rows, rows * rows], dim=1) * sign[:, None].long()
        self.count[0] += sign.sum()
        for level in range(1, self.levels + 2):
            node = self.path[changed, level - 1]
            self.count[level].index_add_(0, node, sign)
            if level <= self.levels:
                self._sums[level - 1].index_add_(0, node, rows)
        self.live = live
        self.version += 1

    def moments(self, level: int) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the features of the live items below each node, each (M_l, F) float32.

        ``level``: 1 … L. Zeros where no item is live.
        """
        total, squares = (self._sums[level - 1].double() / self.count[level].clamp(min=1)[:, None]).chunk(2, 1)
        deviation = (squares - total * total).clamp(min=0).sqrt()
        return (total / _ONE).float(), (deviation / _ONE).float()

    def children(self, level: int, node: Tensor) -> Children:
        """Children of nodes of ``level`` (0 … L), in their order: (...) → (..., C_l)."""
        offset = self._offsets[level]
        child = self.first[level][node][..., None] + offset
        inside = offset < self.degree[level][node][..., None]
        child = torch.where(inside, child, 0)
        return Children(child, inside & (self.count[level + 1][child] > 0))

    def nbytes(self) -> int:
        """Bytes of all arrays, without the features that were given."""
        arrays = [*self.token, *self.first, *self.degree, *self.count, *self._sums]
        return sum(array.nbytes for array in [*arrays, self.item, self.bucket, self.path, self.live])
