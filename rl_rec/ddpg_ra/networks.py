"""DDPG-RA's networks: DDPG's with an inverse model, plain torch."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from rl_rec.ddpg.networks import DDPGNetworks
from rl_rec.ddpg_ra.config import DDPGRASettings


class InverseModel(nn.Module):
    """g(s, s'): the hyper-action that may have led from one state to the next."""

    def __init__(self, dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise((2 * dim, *hidden, dim)):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, state: Tensor, next_state: Tensor) -> Tensor:
        """(B, D) of states (B, D)."""
        action: Tensor = self.layers(torch.cat([state, next_state], dim=-1))
        return action


class DDPGRANetworks(DDPGNetworks):
    """All weights of one DDPG-RA agent (its targets are a second instance)."""

    def __init__(
        self, num_user_features: int, num_item_features: int, history_length: int, settings: DDPGRASettings
    ) -> None:
        super().__init__(num_user_features, num_item_features, history_length, settings)
        self.inverse_model = InverseModel(settings.encoder.dim, settings.inverse_hidden)
