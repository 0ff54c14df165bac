"""HAC's networks: hyper-actor, item encoder, scorer and critic, plain torch.

Glossary: B users, K slate size, N items, D width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rl_rec.hac.config import HACSettings
from rl_rec.residual_actor import ResidualActor, view_of
from rl_rec.scoring.networks import CatalogueTables, Critic, ScoringNetworks


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


class HACNetworks(ScoringNetworks):
    """All weights of one HAC agent (its targets are a second instance)."""

    def __init__(
        self, num_user_features: int, num_item_features: int, history_length: int, settings: HACSettings
    ) -> None:
        super().__init__(num_user_features, num_item_features, history_length, settings)
        dim = settings.encoder.dim
        view = dim
        if settings.residual:
            view += num_user_features
            self.hyper_actor = ResidualActor(dim, view, settings.residual)
        self.scorer = (
            HyperNetworkScorer(dim, settings.scorer_hidden) if settings.scorer == "hyper_network" else None
        )
        # Level of the response probability, in the supervised loss only: it cannot change a ranking.
        self.response_bias = nn.Parameter(torch.zeros(1))
        self.critic = Critic(view + dim, settings.critic_hidden)

    def view(self, state: Tensor, user: Tensor) -> Tensor:
        """What the critic sees, without shaping it: the state (B, D), with two heads the inputs too."""
        if not isinstance(self.hyper_actor, ResidualActor):
            return state.detach()
        return view_of(state, user[:, : self.encoder.profile.in_features])

    def actions(self, state: Tensor, view: Tensor) -> tuple[Tensor, Tensor]:
        """Hyper-actions μ(s) (B, D), and what supervision teaches (B, D): z_c, or μ(s) of a single head."""
        if isinstance(self.hyper_actor, ResidualActor):
            return self.hyper_actor(state, view), self.hyper_actor.base(state)
        mu = self.hyper_actor(state)
        return mu, mu

    def hyper_action(self, state: Tensor, user: Tensor) -> Tensor:
        """μ(s): (B, D)."""
        return self.actions(state, self.view(state, user))[0]

    def scores(self, z: Tensor, tables: CatalogueTables) -> Tensor:
        """f_Z(i) of every item: (B, N + 1)."""
        return self.scorer.catalogue(z, tables.phi) if self.scorer else super().scores(z, tables)

    def slot_scores(self, z: Tensor, slate_phi: Tensor) -> Tensor:
        """f_Z(a_k) of shown items, ``slate_phi`` (B, K, D): (B, K)."""
        return self.scorer.slots(z, slate_phi) if self.scorer else super().slot_scores(z, slate_phi)
