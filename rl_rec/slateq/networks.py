"""SlateQ's networks: a choice model and the long-term value of a click, plain torch.

Glossary: B users, K slate size, N items, D width.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from rl_rec.item_encoder import ItemEncoder
from rl_rec.scoring.networks import CatalogueTables, ScoringNetworks
from rl_rec.slateq.config import SlateQSettings


class SlateQTables(NamedTuple):
    """What one set of weights makes of the whole catalogue."""

    tokens: Tensor
    """(N + 1, D) history tokens W·features."""
    phi: Tensor
    """(N + 1, D) item embeddings of the choice model, row 0 zeros."""
    value: Tensor
    """(N + 1, D) item embeddings of the long-term value, row 0 zeros."""


class SlateQNetworks(ScoringNetworks):
    """All weights of one SlateQ agent (its targets are a second instance).

    p(i | s) = sigmoid(μ(s)·φ(x_i) + b) is the choice model. Q̄(s, i) = v(s)·ψ(x_i) + c(s) is the long-term value
    of a click on i, Q̄(s, ∅) that of a miss.
    """

    def __init__(
        self, num_user_features: int, num_item_features: int, history_length: int, settings: SlateQSettings
    ) -> None:
        super().__init__(num_user_features, num_item_features, history_length, settings)
        dim = settings.encoder.dim
        self.response_bias = nn.Parameter(torch.zeros(1))
        self.value_head = nn.Linear(dim, dim)
        self.value_encoder = ItemEncoder(num_item_features, dim, settings.item_hidden)
        self.levels = nn.Linear(dim, 2)

    def tables(self, item_features: Tensor) -> SlateQTables:  # type: ignore[override]
        """Catalogue tables of the current weights; ``item_features`` (N + 1, F)."""
        choice = super().tables(item_features)
        return SlateQTables(choice.tokens, choice.phi, self.value_encoder(item_features))

    def miss_value(self, state: Tensor) -> Tensor:
        """Q̄(s, ∅): (B, 1)."""
        return self.levels(state)[:, 1:]

    def click_values(self, state: Tensor, tables: SlateQTables) -> Tensor:
        """Q̄(s, i) of the whole catalogue: (B, N + 1)."""
        return torch.addmm(self.levels(state)[:, :1], self.value_head(state), tables.value.T)

    def click_probabilities(self, z: Tensor, tables: CatalogueTables | SlateQTables) -> Tensor:
        """p(i | s) of the whole catalogue: (B, N + 1)."""
        return (z @ tables.phi.T + self.response_bias).sigmoid()

    def gains(self, state: Tensor, z: Tensor, tables: SlateQTables) -> Tensor:
        """What showing i adds to a slate's value, p(i | s)·(Q̄(s, i) − Q̄(s, ∅)): (B, N + 1)."""
        gain = self.click_values(state, tables) - self.miss_value(state)
        return self.click_probabilities(z, tables) * gain
