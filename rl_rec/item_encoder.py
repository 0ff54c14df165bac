"""The item encoder φ that every agent shares.

Glossary: N items, F item features, D width.
"""

import torch.nn.functional as F
from torch import Tensor, nn


class ItemEncoder(nn.Module):
    """φ(x): a linear map of the features plus a one-hidden-layer correction."""

    def __init__(self, num_item_features: int, dim: int, hidden: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_item_features, dim)
        self.correction = (
            nn.Sequential(nn.Linear(num_item_features, hidden), nn.ReLU(), nn.Linear(hidden, dim))
            if hidden
            else None
        )

    def embed(self, features: Tensor) -> Tensor:
        """φ of any rows: (..., F) → (..., D)."""
        phi = self.linear(features)
        return phi if self.correction is None else phi + self.correction(features)

    def forward(self, item_features: Tensor) -> Tensor:
        """The catalogue's table: (N + 1, F) → (N + 1, D); the padding row becomes zeros."""
        return F.pad(self.embed(item_features)[1:], (0, 0, 1, 0))
