"""What anybody who serves users can observe of the running episode, as numbers.

For decays δ, averages m ← δ·m + (1 − δ)·x of the click rate, of the mean features of what was shown, and of
what was clicked, all 0 when the user arrives. Nothing here knows the world's dynamics.

Glossary: B users, K slate size, F item features, M signals.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

DECAYS = (0.0, 0.5, 0.75, 0.9)
"""0 is the last step alone."""


class Signals:
    """The running averages of B users.

    Attributes:
        values: (B, M) float32: the depth as a share of ``max_steps``, then for each decay the click rate (1),
            the features shown (F) and those clicked (F).
    """

    def __init__(self, item_features: Tensor, max_steps: int, num_users: int) -> None:
        """``item_features``: (N + 1, F), row 0 zeros."""
        self._features, self._per_step = item_features, 1.0 / max_steps
        self._decay = torch.tensor(DECAYS, device=item_features.device)[:, None]  # (decays, 1)
        self.values = torch.zeros(num_users, width(item_features.shape[1]), device=item_features.device)

    def advance(self, slate: Tensor, click: Tensor, hold: Tensor | None) -> None:
        """See one step; empty slots (item 0) count for nothing.

        Args:
            slate: (B, K) int64.
            click: (B, K) bool.
            hold: (B,) bool, users who are left alone.
        """
        filled = (slate > 0).sum(dim=1).clamp(min=1)  # (B,)
        shown = F.embedding(slate, self._features)  # (B, K, F)
        chosen = torch.stack([torch.ones_like(click), click], dim=1).float()  # (B, 2, K)
        weights = chosen / filled[:, None, None]
        means = torch.bmm(weights, shown).flatten(1)  # (B, 2F)
        rate = (click.sum(dim=1) / filled)[:, None]  # (B, 1)
        seen = torch.cat([rate, means], dim=1)[:, None]  # (B, 1, 1 + 2F)
        averages = self.values[:, 1:].unflatten(1, (len(DECAYS), -1))
        averages = self._decay * averages + (1 - self._decay) * seen
        values = torch.cat([self.values[:, :1] + self._per_step, averages.flatten(1)], dim=1)
        self.values = values if hold is None else torch.where(hold[:, None], self.values, values)

    def arrive(self, where: Tensor) -> None:
        """New users at ``where`` (B,) bring none."""
        self.values = self.values.masked_fill(where[:, None], 0.0)


def width(num_features: int) -> int:
    """M, for F item features."""
    return 1 + len(DECAYS) * (1 + 2 * num_features)
