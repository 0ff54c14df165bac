"""The agent that the benchmarks serve: HAC's networks and its exploring rollout on a random world."""

import torch

from envs.randomness import seeded_weights, stream_seed
from envs.simulator import Simulator, World
from rl_rec.bench.settings import BenchSettings
from rl_rec.hac.networks import HACNetworks
from rl_rec.hac.policy import HACPolicy
from rl_rec.rollout import Rollout


def networks(settings: BenchSettings, world: World) -> HACNetworks:
    """Freshly drawn weights; the same seed gives the same ones."""
    profile_features, item_features = world.profiles.shape[1], world.item_features.shape[1]
    with seeded_weights(stream_seed(settings.seed, 3)):
        made = HACNetworks(profile_features, item_features, settings.world.history, settings.agent)
    return made.to(world.device)


def policy(settings: BenchSettings, world: World, actor: HACNetworks) -> HACPolicy:
    """HAC's exploring policy."""
    noise = torch.Generator(world.device).manual_seed(stream_seed(settings.seed, 4))
    forbid = settings.rules.repeats == "forbid"
    return HACPolicy(
        actor, world.profiles, world.item_features, world.slate_size, forbid, settings.agent, noise
    )


def rollout(settings: BenchSettings, world: World) -> Rollout:
    """The bare rollout of B users."""
    simulator = Simulator(world, settings.world_rules(), settings.users, settings.seed)
    return Rollout(simulator, policy(settings, world, networks(settings, world)))
