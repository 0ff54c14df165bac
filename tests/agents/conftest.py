"""Worlds and agents whose answers are known."""

import copy
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import torch

from envs.randomness import seeded_weights
from rl_rec.agents import find_agent
from rl_rec.scoring.losses import WorldView
from tests.agents.by_hand import Hand, fill


@pytest.fixture
def hand() -> Callable[..., Hand]:
    """A maker: ``hand("td3", mu=(0.5, 0.1), gamma=0.5)``. Weights of critics are zero: ``fill`` them."""

    def make(name: str, mu: tuple[float, float] = (0.5, 0.1), **settings: Any) -> Hand:
        agent = find_agent(name)
        module, _, policy_name = agent.policy.partition(":")
        policy = getattr(import_module(module), policy_name)
        chosen = type(agent.train_settings().agent).from_mapping(
            {"encoder": {"dim": 2, "heads": 1, "layers": 1, "feedforward": 2}, "item_hidden": 0, **settings}
        )
        with seeded_weights(0):
            networks = policy.networks_class(1, 2, 3, chosen)
        with torch.no_grad():
            networks.item_encoder.linear.weight.copy_(torch.eye(2))
            networks.item_encoder.linear.bias.zero_()
            bounded = isinstance(networks.hyper_actor, torch.nn.Sequential)
            actor = networks.hyper_actor[0] if bounded else networks.hyper_actor
            fill(actor, (0.0, 0.0), torch.tensor(mu).atanh().tolist() if bounded else mu)
        features = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [2.0, 0.0], [-1.0, -1.0]])
        targets = copy.deepcopy(networks).requires_grad_(False)
        return Hand(networks, targets, chosen, WorldView(torch.zeros(2, 1), features, forbid_repeats=False))

    return make
