"""HSRL must solve worlds whose answer is known, one of them only with what a level sees of the levels above."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from envs.randomness import seeded_weights
from envs.simulator import Simulator
from envs.world import World
from rl_rec.hsrl.config import HSRLSettings
from rl_rec.hsrl.losses import losses, predict
from rl_rec.hsrl.networks import HSRLNetworks
from rl_rec.hsrl.policy import HSRLPolicy
from rl_rec.replay import Replay
from rl_rec.rollout import Rollout
from rl_rec.sids.trie import Trie
from rl_rec.transitions import Transitions
from tests.agents.by_hand import RULES, reached

pytestmark = pytest.mark.learning

ITEMS, USERS, SLATE = 16, 40, 4
SMALL = {
    "encoder": {"dim": 8, "heads": 2, "layers": 1, "feedforward": 16, "dropout": 0.0},
    "item_hidden": 0,
    "critic_hidden": (32,),
    "context": "sampled",
    "node_scores": True,
    "temperature": 0.3,
    "beam_width": 16,
    "rank": "score",
    "gamma": 0.0,
    "credit": "level",
    "credit_unit": "slot",
    "multi_level_critic": True,
    "level_value_weight": 1.0,
    "exclusions": "slots",
    "ratio_max": 1.0,
    "policy_weight": 0.1,
    "entropy_weight": 0.01,
    "cloning_weight": 0.0,
    "supervision_weight": 1.0,
    "consistency_weight": 1.0,
    "actor_lr": 1e-2,
    "critic_lr": 1e-2,
    "tau": 0.01,
}
GRADIENT_ALONE = {
    "rank": "probability",
    "policy_weight": 1.0,
    "entropy_weight": 0.05,
    "supervision_weight": 0.0,
    "consistency_weight": 0.0,
}


def plain(world: World, item_logits: torch.Tensor, user_offset: torch.Tensor) -> World:
    """Make a world's logit ``item_logits`` (N + 1,) · ``user_offset`` (U,), whatever the history."""
    response = world.response
    response.items[1:, 0] = item_logits[1:]
    response.outputs.zero_()
    response.history_offset.zero_()
    response.user_offset.zero_()
    response.user_offset[:, 0] = user_offset
    return world


@pytest.fixture
def two_kinds(small_world: Callable[..., World]) -> World:
    """logit = ±3: users of kind ±1 like items of kind ±1, eight of each. Any slate for everybody gets half."""
    world = small_world(
        items=ITEMS, users=USERS, slate=SLATE, profile_features=2, item_features=3, logits=[0.0] * ITEMS
    )
    kind, taste = torch.ones(USERS), torch.ones(ITEMS + 1)
    kind[::2], taste[::2] = -1, -1
    world.profiles[:, 0], world.item_features[1:, 0] = kind, taste[1:]
    return plain(world, 3 * taste, kind)


@pytest.fixture
def exclusive_or(small_world: Callable[..., World]) -> World:
    """Everybody likes the items whose tokens (``PAIRS``) are equal; features say nothing.

    Whatever the probabilities of first and second token, as long as the second does not know the first: of
    the two buckets that are liked, one is no more probable than one that is not.
    """
    world = small_world(items=8, users=USERS, slate=4, profile_features=2, item_features=3, logits=[0.0] * 8)
    liked = np.where(PAIRS[:, 0] == PAIRS[:, 1], 3.0, -3.0)
    return plain(world, torch.from_numpy(liked).float(), torch.ones(USERS))


KINDS = np.array([[0, 0], *([item % 2, item // 2 % 2] for item in range(1, ITEMS + 1))], np.int32)
"""Tokens (N + 1, L) where the first one tells an item's kind."""
PAIRS = np.array([[0, 0], *([item // 2 % 2, item % 2] for item in range(8))], np.int32)
"""Tokens (N + 1, L): four buckets of two items."""


def train(world: World, tokens: np.ndarray, steps: int, seed: int = 0, **changes: Any) -> HSRLPolicy:
    """The plain loop, without Ray: the greedy policy after ``steps`` steps of 32 users each."""
    settings = HSRLSettings.from_mapping({**SMALL, **changes})
    sizes = tuple(int(size) for size in tokens.max(axis=0) + 1)
    generator = torch.Generator().manual_seed(seed)
    centres = [torch.randn(size, world.item_features.shape[1], generator=generator) for size in sizes]
    with seeded_weights(seed):
        networks = HSRLNetworks(
            world.profiles.shape[1], world.item_features.shape[1], RULES.history_length, centres, settings
        )
    targets = copy.deepcopy(networks).requires_grad_(False)
    followed = list(targets.parameters()), list(networks.parameters())
    optimizers = [
        torch.optim.Adam(networks.policy_parameters(), lr=settings.actor_lr),
        torch.optim.Adam(networks.critic.parameters(), lr=settings.critic_lr),
    ]
    trie = Trie(tokens, sizes, world.item_features)
    noise = torch.Generator().manual_seed(seed)
    served = (networks, world.profiles, trie, world.slate_size, False, settings)
    policy = HSRLPolicy(*served, noise)
    rollout, replay = Rollout(Simulator(world, RULES, 32, seed), policy), Replay(4_000, seed)
    for step in range(steps):
        policy.weights_changed()
        replay.add(rollout.collect(1))
        if step < 10:
            continue
        batch = Transitions(**replay.sample(64))
        predictions = predict(networks, targets, batch, world.profiles, trie, False, settings)
        for optimizer in optimizers:
            optimizer.zero_grad()
        torch.stack(list(losses(predictions, batch, settings).values())).sum().backward()
        for optimizer in optimizers:
            optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(*followed, settings.tau)
    return HSRLPolicy(*served)


def test_hsrl_tells_two_kinds_of_users_apart(two_kinds):
    assert reached(two_kinds, train(two_kinds, KINDS, 200)) > 0.9


def test_the_policy_gradient_alone_tells_them_apart(two_kinds):
    assert reached(two_kinds, train(two_kinds, KINDS, 300, **GRADIENT_ALONE)) > 0.9


def test_nothing_else_would_have(two_kinds):
    """Neither the world nor entropy and consistency give the answer away."""
    off = {"policy_weight": 0.0, "supervision_weight": 0.0}
    assert reached(two_kinds, train(two_kinds, KINDS, 100, **off)) < 0.6


TREE_ALONE = {**GRADIENT_ALONE, "node_scores": False, "entropy_weight": 0.1}


def test_a_token_that_knows_the_token_above_solves_exclusive_or(exclusive_or):
    assert reached(exclusive_or, train(exclusive_or, PAIRS, 300, context="sampled", **TREE_ALONE)) > 0.9


@pytest.mark.parametrize("context", ["state", "expected"])
def test_a_token_that_does_not_know_it_fails(exclusive_or, context):
    """``expected`` too: what it sees of the level above is the same below every token."""
    assert reached(exclusive_or, train(exclusive_or, PAIRS, 300, context=context, **TREE_ALONE)) < 0.6
