"""HAC must solve a world whose answer is known: two kinds of users, each liking what the other dislikes."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from envs.randomness import seeded_weights
from envs.simulator import Simulator, World, WorldSettings
from rl_rec.evaluation import evaluate, normalised
from rl_rec.hac.config import HACSettings
from rl_rec.hac.losses import losses, predict
from rl_rec.hac.networks import HACNetworks
from rl_rec.hac.policy import HACPolicy
from rl_rec.reference import OraclePolicy, RandomPolicy
from rl_rec.replay import Replay
from rl_rec.rollout import Rollout
from rl_rec.scoring.losses import WorldView
from rl_rec.transitions import Transitions

pytestmark = pytest.mark.learning

ITEMS, USERS, SLATE = 20, 40, 2
RULES = WorldSettings(repeats="allow", start_history="empty", history_length=4, max_steps=8)
SMALL = {
    "encoder": {"dim": 8, "heads": 2, "layers": 1, "feedforward": 16},
    "item_hidden": 0,
    "critic_hidden": (32,),
    "actor_lr": 3e-3,
    "critic_lr": 3e-3,
}


@pytest.fixture
def world(small_world: Callable[..., World]) -> World:
    """logit = ±3: users of kind ±1 like items of kind ±1, ten of each. Any slate for everybody gets half."""
    world = small_world(
        items=ITEMS, users=USERS, slate=SLATE, profile_features=2, item_features=3, logits=[0.0] * ITEMS
    )
    kind = torch.ones(USERS)
    kind[::2] = -1
    taste = torch.ones(ITEMS + 1)
    taste[::2] = -1
    world.profiles[:, 0], world.item_features[1:, 0] = kind, taste[1:]
    response = world.response
    response.items[1:, 0] = 3 * taste[1:]
    response.outputs.zero_()
    response.history_offset.zero_()
    response.user_offset.zero_()
    response.user_offset[:, 0] = kind
    return world


def train(world: World, steps: int, seed: int = 0, **changes: Any) -> HACPolicy:
    """The plain loop, without Ray: the greedy policy after ``steps`` steps of 32 users each."""
    settings = HACSettings.from_mapping({**SMALL, **changes})
    with seeded_weights(seed):
        networks = HACNetworks(world.profiles.shape[1], world.item_features.shape[1], 4, settings)
    targets = copy.deepcopy(networks).requires_grad_(False)
    followed = list(targets.parameters()), list(networks.parameters())
    optimizers = [
        torch.optim.Adam(networks.policy_parameters(), lr=settings.actor_lr),
        torch.optim.Adam(networks.critic.parameters(), lr=settings.critic_lr),
    ]
    view = WorldView(world.profiles, world.item_features, forbid_repeats=False)
    noise = torch.Generator().manual_seed(seed)
    policy = HACPolicy(networks, world.profiles, world.item_features, SLATE, False, settings, noise)
    rollout, replay = Rollout(Simulator(world, RULES, 32, seed), policy), Replay(4_000, seed)
    for step in range(steps):
        policy.weights_changed()
        replay.add(rollout.collect(1))
        if step < 10:
            continue
        batch = Transitions(**replay.sample(64))
        predictions = predict(networks, targets, batch, view, settings)
        for optimizer in optimizers:
            optimizer.zero_grad()
        torch.stack(list(losses(predictions, batch, settings).values())).sum().backward()
        for optimizer in optimizers:
            optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(*followed, settings.tau)
    return HACPolicy(networks, world.profiles, world.item_features, SLATE, False, settings)


def reached(world: World, policy: HACPolicy) -> float:
    """Place of a policy's return between random (0) and the myopic oracle (1)."""

    def value(make: Callable[[Simulator], Any]) -> float:
        return evaluate(world, RULES, make, 200, seed=7).return_mean

    random = value(lambda simulator: RandomPolicy(simulator, torch.Generator().manual_seed(1)))
    return normalised(value(lambda _: policy), random, value(OraclePolicy))


def test_hac_tells_two_kinds_of_users_apart(world):
    assert reached(world, train(world, 200)) > 0.8


# Without supervision the actor must be slower than the critic: at equal step sizes it follows a critic that
# knows nothing yet into one slate for everybody, whose softmax is too sharp to leave it again.
CRITIC_ALONE = {
    "supervision_weight": 0.0,
    "alignment_weight": 0.0,
    "policy_weight": 1.0,
    "policy_action": "soft_effect",
    "policy_temperature": 0.5,
    "actor_lr": 5e-4,
    "critic_lr": 1e-2,
    "exploration": {"temperature": 1.0},
}


def test_the_critic_alone_tells_them_apart(world):
    assert reached(world, train(world, 500, **CRITIC_ALONE)) > 0.8


def test_nothing_else_would_have(world):
    """Neither the world nor alignment gives the answer away."""
    policy = train(world, 200, **{**CRITIC_ALONE, "policy_weight": 0.0, "alignment_weight": 0.1})
    assert reached(world, policy) < 0.4
