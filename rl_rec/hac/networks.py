"""HAC's networks: hyper-actor, item encoder, scorer and critic, plain torch.

Glossary: B users, K slate size, N items, D width, T tokens.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rl_rec.encoder import StateEncoder
from rl_rec.hac.config import HACSettings
from rl_rec.item_encoder import ItemEncoder


class CatalogueTables(NamedTuple):
    """What one set of weights makes of the whole catalogue: computed once per update, then gathered."""

    tokens: Tensor
    """(N + 1, D) history tokens W·features."""
    phi: Tensor
    """(N + 1, D) item embeddings φ(x_i), row 0 zeros."""


class HyperNetworkScorer(nn.Module):
    """f_Z(i) = w₂(Z)·relu(W₁(Z)·φ(x_i) + b₁(Z)) + Z·φ(x_i): Z read as the weights of a small MLP."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.Linear(dim, hidden * dim)
        self.bias = nn.Linear(dim, hidden)
        self.second = nn.Linear(dim, hidden)

    def catalogue(self, z: Tensor, phi: Tensor) -> Tensor:
        """Scores (B, N + 1) of ``phi`` (N + 1, D); one hidden unit at a time, so nothing exceeds (B, N)."""
        scores = z @ phi.T
        weights = self.first(z).unflatten(1, (-1, z.shape[1]))  # (B, hidden, D)
        bias, second = self.bias(z), self.second(z)  # (B, hidden)
        for unit in range(weights.shape[1]):
            hidden = F.relu(torch.addmm(bias[:, unit, None], weights[:, unit], phi.T))  # (B, N+1)
            scores = scores + second[:, unit, None] * hidden
        return scores

    def slots(self, z: Tensor, phi: Tensor) -> Tensor:
        """Scores (B, K) of gathered embeddings ``phi`` (B, K, D)."""
        weights = self.first(z).unflatten(1, (-1, z.shape[1]))  # (B, hidden, D)
        hidden = F.relu(torch.bmm(phi, weights.transpose(1, 2)) + self.bias(z)[:, None])  # (B, K, hidden)
        return torch.bmm(hidden, self.second(z)[:, :, None]).squeeze(-1) + torch.bmm(phi, z[:, :, None])[..., 0]


class Critic(nn.Module):
    """Q(s, Z): an MLP on the state and an action in the hyper-action space."""

    def __init__(self, dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        sizes = (2 * dim, *hidden, 1)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, state: Tensor, action: Tensor, *, frozen: bool = False) -> Tensor:
        """Values (B,) of ``action`` (B, D) in ``state`` (B, D).

        ``frozen`` keeps gradients out of the critic's weights: the policy loss passes through, not into it.
        """
        x = torch.cat([state, action], dim=-1)
        for depth, layer in enumerate(self.layers):
            assert isinstance(layer, nn.Linear)
            weight, bias = layer.weight, layer.bias
            x = F.linear(x, weight.detach() if frozen else weight, bias.detach() if frozen else bias)
            if depth < len(self.layers) - 1:
                x = F.relu(x)
        return x.squeeze(-1)


class HACNetworks(nn.Module):
    """All weights of one HAC agent (its targets are a second instance)."""

    def __init__(
        self, num_user_features: int, num_item_features: int, history_length: int, settings: HACSettings
    ) -> None:
        super().__init__()
        dim = settings.encoder.dim
        self.encoder = StateEncoder(
            num_user_features,
            num_item_features,
            history_length=history_length,
            **settings.encoder.model_dump(),
        )
        self.hyper_actor = nn.Linear(dim, dim)
        self.item_encoder = ItemEncoder(num_item_features, dim, settings.item_hidden)
        self.scorer = (
            HyperNetworkScorer(dim, settings.scorer_hidden) if settings.scorer == "hyper_network" else None
        )
        # Level of the response probability, in the supervised loss only: it cannot change a ranking.
        self.response_bias = nn.Parameter(torch.zeros(1))
        self.critic = Critic(dim, settings.critic_hidden)

    def tables(self, item_features: Tensor) -> CatalogueTables:
        """Catalogue tables of the current weights; ``item_features`` (N + 1, F)."""
        return CatalogueTables(self.encoder.item_tokens(item_features), self.item_encoder(item_features))

    def state(
        self, tables: CatalogueTables, profile: Tensor, history: Tensor, noise: torch.Generator | None = None
    ) -> Tensor:
        """State s (B, D); see ``StateEncoder.forward``."""
        return self.encoder(tables.tokens, profile, history, noise)

    def scores(self, z: Tensor, tables: CatalogueTables) -> Tensor:
        """f_Z(i) of every item: (B, N + 1), one matmul."""
        return self.scorer.catalogue(z, tables.phi) if self.scorer else z @ tables.phi.T

    def slot_scores(self, z: Tensor, slate_phi: Tensor) -> Tensor:
        """f_Z(a_k) of shown items, ``slate_phi`` (B, K, D): (B, K)."""
        return self.scorer.slots(z, slate_phi) if self.scorer else torch.bmm(slate_phi, z[:, :, None])[..., 0]

    def policy_parameters(self) -> list[nn.Parameter]:
        """What the actor's optimizer moves: everything but the critic."""
        return [p for name, p in self.named_parameters() if not name.startswith("critic.")]


def inverse(slate_phi: Tensor) -> Tensor:
    """Inverse Ẑ(a) = mean_k φ(x_{a_k}) of a slate (HAC, section 3.3): (B, K, D) → (B, D)."""
    return slate_phi.mean(dim=1)
