"""Wolpertinger's networks: a proto-actor, item embeddings and a critic of single items, plain torch.

Glossary: B users, M items each, D width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rl_rec.scoring.networks import Critic, ScoringNetworks
from rl_rec.wolpertinger.config import WolpertingerSettings


class WolpertingerNetworks(ScoringNetworks):
    """All weights of one Wolpertinger agent (its targets are a second instance)."""

    def __init__(
        self,
        num_user_features: int,
        num_item_features: int,
        history_length: int,
        settings: WolpertingerSettings,
    ) -> None:
        super().__init__(num_user_features, num_item_features, history_length, settings)
        dim = settings.encoder.dim
        self.hyper_actor = nn.Sequential(self.hyper_actor, nn.Tanh())  # bounded, as in ``rl_rec.ddpg``
        self.critic = Critic(2 * dim, settings.critic_hidden)

    def item_values(self, state: Tensor, phi: Tensor) -> Tensor:
        """Q(s, i) of M items for each of B users, ``phi`` (B, M, D): (B, M)."""
        values: Tensor = self.critic(state[:, None].expand(-1, phi.shape[1], -1), phi)
        return values

    def best_neighbours(
        self, state: Tensor, scores: Tensor, phi: Tensor, neighbours: int
    ) -> tuple[Tensor, Tensor]:
        """The items nearest to the proto-action, and their values.

        Args:
            state: (B, D).
            scores: (B, N + 1) nearness to the proto-action, −inf where an item may not be shown.
            phi: (N + 1, D) item embeddings.
            neighbours: M; a smaller catalogue gives all it has.

        Returns:
            Items (B, M) int64, and Q(s, i) (B, M), −inf where an item may not be shown.
        """
        near, items = scores.topk(min(neighbours, scores.shape[1] - 1), dim=1)
        values = self.item_values(state, F.embedding(items, phi))
        return items, values.masked_fill(near.isinf(), float("-inf"))


def nearness(z: Tensor, phi: Tensor) -> Tensor:
    """−‖Z − φ(x_i)‖² but for ‖Z‖², which changes no order: (B, D), (N + 1, D) → (B, N + 1), one matmul."""
    return torch.addmm(-phi.square().sum(dim=1), z, phi.T, alpha=2.0)
