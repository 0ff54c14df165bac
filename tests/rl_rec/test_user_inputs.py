"""What the encoder reads of a user: profile and signals, in rollouts and in updates alike."""

from collections.abc import Callable

import pytest
import torch

from envs.signals import width
from envs.simulator import Simulator
from envs.world import World
from envs.world_settings import WorldSettings
from rl_rec.encoder_settings import EncoderSettings
from rl_rec.hac.config import HACSettings
from rl_rec.hac.networks import HACNetworks
from rl_rec.hac.policy import HACPolicy
from rl_rec.rollout import Rollout
from rl_rec.scoring.policy import network_sizes
from rl_rec.transitions import Transitions
from rl_rec.user_inputs import num_user_inputs, user_inputs

MakeWorld = Callable[..., World]
RULES = WorldSettings(history_length=5, signals=True)
TINY = {"encoder": {"dim": 4, "heads": 2, "feedforward": 4}, "item_hidden": 3}


def test_signals_join_the_profile():
    profiles = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    user = torch.tensor([1, 1, 0])

    assert user_inputs(profiles, user).tolist() == [[3, 4], [3, 4], [1, 2]]
    joined = user_inputs(profiles, user, torch.tensor([[5.0], [6.0], [7.0]]))
    assert joined.tolist() == [[3, 4, 5], [3, 4, 6], [1, 2, 7]]


def test_widths(small_world: MakeWorld):
    world = small_world(profile_features=5, item_features=6)

    assert num_user_inputs(world, RULES, EncoderSettings()) == 5 + width(6)
    assert num_user_inputs(world, RULES, EncoderSettings(signals=False)) == 5
    assert num_user_inputs(world, WorldSettings(), EncoderSettings()) == 5


@pytest.mark.parametrize("residual", [0.0, 0.5])
@pytest.mark.parametrize("reads", [True, False])
def test_a_policy_acts_on_signals_if_it_reads_them(small_world: MakeWorld, reads: bool, residual: float):
    world = small_world()
    settings = HACSettings.from_mapping(
        {**TINY, "encoder": {**TINY["encoder"], "signals": reads}, "residual": residual}
    )
    torch.manual_seed(0)
    networks = HACNetworks(*network_sizes(world, RULES, settings), settings)
    policy = HACPolicy.of(networks, world, RULES, settings)
    simulator = Simulator(world, RULES, num_users=8, seed=0)
    columns = Rollout(simulator, policy).collect(6)
    batch = Transitions(**columns)
    now, afterwards = batch.user_inputs(world.profiles)
    tables = networks.tables(world.item_features)

    assert columns["signals"].shape == (48, width(6))
    assert torch.equal(
        batch.next_signals[:8][~batch.terminated[:8]], batch.signals[8:16][~batch.terminated[:8]]
    )
    changed = now.clone()
    changed[:, 5:] += 1.0
    same = torch.equal(*(networks.state(tables, user, batch.history) for user in (now, changed)))
    assert same != reads
    states = networks.state(tables, now, batch.history)
    judged = [networks.critic(networks.view(states, user), states) for user in (now, changed)]
    assert torch.equal(*judged) != (reads and residual > 0)
    assert not torch.equal(now, afterwards)
