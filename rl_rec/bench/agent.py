"""The agents that the benchmarks train and serve, each on a random world."""

import abc
import copy
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from envs.errors import UserError
from envs.randomness import seeded_weights, stream_seed
from envs.simulator import Simulator
from envs.transition import Observation
from envs.world import World
from rl_rec.bench.plain import PlainHAC
from rl_rec.bench.plain_hsrl import PlainHSRL
from rl_rec.bench.settings import BenchSettings, agent_name
from rl_rec.hac import losses as hac
from rl_rec.hac.networks import HACNetworks
from rl_rec.hac.policy import HACPolicy
from rl_rec.hsrl import losses as hsrl
from rl_rec.hsrl.networks import HSRLNetworks
from rl_rec.hsrl.policy import HSRLPolicy
from rl_rec.policy import Decision, Policy
from rl_rec.rollout import Rollout
from rl_rec.scoring.losses import WorldView
from rl_rec.sids.trie import Trie
from rl_rec.transitions import Transitions


class ServingPolicy(Policy, Protocol):
    """A policy that keeps something of its weights."""

    noise: torch.Generator | None

    def weights_changed(self) -> None:
        """Forget it."""


class Plain(Protocol):
    """An algorithm written the plain way."""

    def act(self, networks: Any, observation: Observation) -> Decision:
        """Explore."""

    def backward(self, networks: Any, targets: Any, batch: Transitions) -> None:
        """Set the gradients of ``networks``."""


class BenchAgent(abc.ABC):
    """One algorithm's networks and targets; the same seed gives the same weights."""

    def __init__(self, settings: BenchSettings[Any], world: World) -> None:
        self.settings, self.world, self.agent = settings, world, settings.agent
        self.forbid = settings.rules.repeats == "forbid"
        with seeded_weights(stream_seed(settings.seed, 3)):
            made = self.make_networks(world.profiles.shape[1], world.item_features.shape[1])
        self.networks: Any = made.to(world.device)
        self.targets: Any = copy.deepcopy(self.networks).requires_grad_(False)

    def noise(self) -> torch.Generator:
        """The generator of the exploration, as at the start."""
        return torch.Generator(self.world.device).manual_seed(stream_seed(self.settings.seed, 4))

    @abc.abstractmethod
    def make_networks(self, profile_features: int, item_features: int) -> nn.Module:
        """Freshly drawn weights."""

    @abc.abstractmethod
    def policy(self) -> ServingPolicy:
        """The exploring policy."""

    @abc.abstractmethod
    def loss(self, batch: Transitions) -> Tensor:
        """The sum of all terms, from one shared forward pass."""

    @abc.abstractmethod
    def plain(self) -> Plain:
        """The same algorithm, written plainly.

        Raises:
            UserError: variants that it does not spell out.
        """


class _HAC(BenchAgent):
    def make_networks(self, profile_features: int, item_features: int) -> HACNetworks:
        return HACNetworks(profile_features, item_features, self.settings.world.history, self.agent)

    def policy(self) -> HACPolicy:
        world = self.world
        arguments = world.profiles, world.item_features, world.slate_size, self.forbid, self.agent
        return HACPolicy(self.networks, *arguments, self.noise())

    def loss(self, batch: Transitions) -> Tensor:
        view = WorldView(self.world.profiles, self.world.item_features, self.forbid)
        predictions = hac.predict(self.networks, self.targets, batch, view, self.agent)
        return torch.stack(list(hac.losses(predictions, batch, self.agent).values())).sum()

    def plain(self) -> PlainHAC:
        return PlainHAC(self.world, self.agent, self.forbid, self.noise())


class _HSRL(BenchAgent):
    def make_networks(self, profile_features: int, item_features: int) -> HSRLNetworks:
        if self.agent.sids is not None:
            raise UserError("benchmarks draw semantic IDs for their random items: leave agent.sids out")
        # Random features have no clusters: random semantic IDs make the same tree as fitted ones, without the
        # libraries that fitting needs.
        rng = np.random.default_rng([self.settings.seed, 6])
        sizes = (self.agent.sid_codebook,) * self.agent.sid_levels
        tokens = rng.integers(self.agent.sid_codebook, size=(self.world.num_items + 1, len(sizes)))
        self.trie = Trie(tokens, sizes, self.world.item_features)
        centres = [torch.from_numpy(rng.standard_normal((v, item_features), np.float32)) for v in sizes]
        return HSRLNetworks(profile_features, item_features, self.settings.world.history, centres, self.agent)

    def policy(self) -> HSRLPolicy:
        world = self.world
        arguments = world.profiles, self.trie, world.slate_size, self.forbid, self.agent
        return HSRLPolicy(self.networks, *arguments, self.noise())

    def loss(self, batch: Transitions) -> Tensor:
        data = batch, self.world.profiles, self.trie, self.forbid, self.agent
        predictions = hsrl.predict(self.networks, self.targets, *data)
        return torch.stack(list(hsrl.losses(predictions, batch, self.agent).values())).sum()

    def plain(self) -> PlainHSRL:
        return PlainHSRL(self.world, self.trie, self.agent, self.forbid, self.noise())


def make(settings: BenchSettings[Any], world: World) -> BenchAgent:
    """The agent that ``settings`` describe, on ``world``."""
    return {"hac": _HAC, "hsrl": _HSRL}[agent_name(settings)](settings, world)


def rollout(settings: BenchSettings[Any], world: World) -> Rollout:
    """The bare rollout of B users."""
    simulator = Simulator(world, settings.world_rules(), settings.users, settings.seed)
    return Rollout(simulator, make(settings, world).policy())
