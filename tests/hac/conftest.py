"""A hand-made agent, whose every number can be worked out on paper, and small random ones."""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from envs.catalogue import Catalogue
from envs.randomness import seeded_weights
from rl_rec.hac.config import HACSettings
from rl_rec.hac.losses import Predictions, predict
from rl_rec.hac.networks import HACNetworks
from rl_rec.scoring.losses import WorldView
from rl_rec.transitions import Transitions

TINY = {
    "encoder": {"dim": 4, "heads": 2, "layers": 2, "feedforward": 4},
    "item_hidden": 3,
    "critic_hidden": (5,),
    "scorer_hidden": 3,
}


class Agent(NamedTuple):
    """Networks, targets and the tables they read."""

    networks: HACNetworks
    targets: HACNetworks
    settings: HACSettings
    profiles: Tensor
    """(U, P)."""
    features: Tensor
    """(N + 1, F)."""

    def predict(
        self, batch: Transitions, forbid_repeats: bool = False, catalogue: Catalogue | None = None
    ) -> Predictions:
        """As ``rl_rec.hac.losses.predict``."""
        world = WorldView(self.profiles, self.features, forbid_repeats, catalogue)
        return predict(self.networks, self.targets, batch, world, self.settings)


@pytest.fixture
def make_agent() -> Callable[..., Agent]:
    """A maker of random agents: 6 users, ``items`` items, history 5; settings by keyword."""

    def make(*, items: int = 12, seed: int = 0, **settings: Any) -> Agent:
        chosen = HACSettings.from_mapping({**TINY, **settings})
        generator = torch.Generator().manual_seed(seed)
        with seeded_weights(seed):
            networks = HACNetworks(3, 5, 5, chosen)
        with seeded_weights(seed + 1):
            targets = HACNetworks(3, 5, 5, chosen)
        profiles = torch.randn(6, 3, generator=generator)
        features = torch.randn(items + 1, 5, generator=generator)
        features[0] = 0.0
        return Agent(networks, targets.requires_grad_(False), chosen, profiles, features)

    return make


@pytest.fixture
def make_batch() -> Callable[..., Transitions]:
    """A maker of random batches for agents of ``make_agent``: slates of 3."""

    def make(rows: int = 8, *, items: int = 12, dim: int = 4, seed: int = 0) -> Transitions:
        generator = torch.Generator().manual_seed(seed)

        def integers(*shape: int, low: int = 0, high: int) -> Tensor:
            return torch.randint(low, high, shape, generator=generator)

        slate = torch.rand(rows, items, generator=generator).topk(3, dim=1).indices + 1
        return Transitions(
            user=integers(rows, high=6),
            history=integers(rows, 5, high=items + 1).sort(dim=1).values,  # some padding, on the left
            slate=slate,
            click=integers(rows, 3, high=2).bool(),
            reward=torch.randn(rows, generator=generator),
            terminated=torch.arange(rows) % 3 == 0,
            next_history=integers(rows, 5, high=items + 1).sort(dim=1).values,
            hyper_action=torch.randn(rows, dim, generator=generator),
        )

    return make


@pytest.fixture
def hand_agent() -> Callable[..., Agent]:
    """A maker of agents in the plane: φ(x) = x for the items below, μ(s) = ``mu`` for every state,
    Q(s, Z) = 2·Z₁ + 0.5 (the targets') and Q(s, Z) = Z₂ (the networks').

    Items 1 to 4 are (1, 0), (0, 1), (2, 0), (−1, −1).
    """

    def make(mu: tuple[float, float] = (1.0, 0.1), **settings: Any) -> Agent:
        chosen = HACSettings.from_mapping(
            {
                "encoder": {"dim": 2, "heads": 1, "layers": 1, "feedforward": 2},
                "item_hidden": 0,
                "critic_hidden": (),
                **settings,
            }
        )
        with seeded_weights(0):
            networks = HACNetworks(1, 2, 3, chosen)
        with torch.no_grad():
            networks.item_encoder.linear.weight.copy_(torch.eye(2))
            networks.item_encoder.linear.bias.zero_()
            networks.hyper_actor.weight.zero_()
            networks.hyper_actor.bias.copy_(torch.tensor(mu))
            targets = copy.deepcopy(networks)
            for critic, weight, bias in (
                (networks.critic, [0.0, 0.0, 0.0, 1.0], 0.0),
                (targets.critic, [0.0, 0.0, 2.0, 0.0], 0.5),
            ):
                critic.layers[0].weight.copy_(torch.tensor([weight]))
                critic.layers[0].bias.fill_(bias)
        features = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [2.0, 0.0], [-1.0, -1.0]])
        return Agent(networks, targets.requires_grad_(False), chosen, torch.zeros(2, 1), features)

    return make
