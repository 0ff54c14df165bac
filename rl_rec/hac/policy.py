"""HAC in a rollout: hyper-action, exploration, effect action."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor

from envs.simulator import Observation, World, WorldSettings
from rl_rec.hac.config import HACSettings
from rl_rec.hac.networks import CatalogueTables, HACNetworks
from rl_rec.policy import Decision
from rl_rec.saved_networks import load_networks
from rl_rec.slates import mask_scores, sample_without_replacement, top_k


class HACPolicy:
    """Serves slates with one set of HAC weights.

    With ``noise`` it explores: Z = μ(s) + σ·ε, ε ~ N(0, I), and the effect action as configured; without, it
    shows the K best items of f_{μ(s)}.
    """

    def __init__(
        self,
        networks: HACNetworks,
        profiles: Tensor,
        item_features: Tensor,
        slate_size: int,
        forbid_repeats: bool,
        settings: HACSettings,
        noise: torch.Generator | None = None,
    ) -> None:
        """Arguments: as ``rl_rec.hac.losses.predict``; ``noise`` is the generator of the exploration."""
        self.networks, self.profiles, self.item_features = networks, profiles, item_features
        self.slate_size, self.forbid_repeats, self.settings = slate_size, forbid_repeats, settings
        self.noise = noise
        self.sigma = settings.exploration.sigma
        self._tables: CatalogueTables | None = None

    def weights_changed(self) -> None:
        """Forget what was computed from older weights."""
        self._tables = None

    @torch.no_grad()
    def act(self, observation: Observation) -> Decision:
        """Slates (B, K); the played hyper-action (B, D) is stored where the critic is to score it."""
        if self._tables is None:
            self._tables = self.networks.tables(self.item_features)
        tables, exploration = self._tables, self.settings.exploration
        profile = F.embedding(observation.user, self.profiles)
        z = self.networks.hyper_actor(self.networks.state(tables, profile, observation.history))
        if self.noise is not None and self.sigma > 0:
            z = z + self.sigma * torch.randn(z.shape, generator=self.noise, device=z.device)
        scores = mask_scores(self.networks.scores(z, tables), observation, self.forbid_repeats)
        if self.noise is not None and exploration.effect == "categorical":
            slate = sample_without_replacement(scores, self.slate_size, exploration.temperature, self.noise)
        else:
            slate = top_k(scores, self.slate_size)
        extras = {"hyper_action": z} if self.settings.critic_action == "hyper" else {}
        return Decision(slate, extras)


def load_policy(
    weights: Mapping[str, ArrayLike], world: World, rules: WorldSettings, settings: HACSettings
) -> HACPolicy:
    """The greedy policy of a saved ``HACModule``.

    Args:
        weights: arrays by name, with the prefix ``networks.``; others are ignored.
        world: where it is to serve, with the features it was trained on.
        rules: that world's rules.
        settings: the agent's.

    Raises:
        UserError: the weights do not fit the world's features, its history length or the settings.
    """
    users, items = world.profiles.shape[1], world.item_features.shape[1]
    networks = load_networks(HACNetworks(users, items, rules.history_length, settings), weights, world, rules)
    forbid = rules.repeats == "forbid"
    return HACPolicy(networks, world.profiles, world.item_features, world.slate_size, forbid, settings)
