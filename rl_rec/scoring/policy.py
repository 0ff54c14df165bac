"""Rollouts of agents that score every item: hyper-action, exploration, effect action."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from numpy.typing import ArrayLike
from torch import Tensor
from typing_extensions import Self

from envs.transition import Observation
from envs.world import World
from envs.world_settings import WorldSettings
from rl_rec.policy import Decision
from rl_rec.saved_networks import load_networks
from rl_rec.scoring.config import ScoringSettings
from rl_rec.scoring.networks import CatalogueTables, ScoringNetworks
from rl_rec.slates import mask_scores, sample_without_replacement, top_k
from rl_rec.user_inputs import num_user_inputs, user_inputs


class ScoringPolicy:
    """Serves slates with one set of weights.

    With ``noise`` it explores: Z = μ(s) + σ·ε, ε ~ N(0, I), and the effect action as configured; without, it
    shows the K best items of f_{μ(s)}.
    """

    networks_class: ClassVar[type[ScoringNetworks]] = ScoringNetworks

    def __init__(
        self,
        networks: Any,
        profiles: Tensor,
        item_features: Tensor,
        slate_size: int,
        forbid_repeats: bool,
        settings: Any,
        noise: torch.Generator | None = None,
    ) -> None:
        """Make the policy of a world.

        Args:
            networks: a ``networks_class``, not copied.
            profiles: (U, P) profile features of all users.
            item_features: (N + 1, F) features of the catalogue, row 0 zeros.
            slate_size: K.
            forbid_repeats: whether items in the history window may not be shown.
            settings: the agent's, a ``ScoringSettings``.
            noise: generator of the exploration; ``None`` is greedy.
        """
        self.networks, self.profiles, self.item_features = networks, profiles, item_features
        self.slate_size, self.forbid_repeats, self.settings = slate_size, forbid_repeats, settings
        self.noise = noise
        self.sigma: float = settings.exploration.sigma
        self._tables: CatalogueTables | None = None

    def weights_changed(self) -> None:
        """Forget what was computed from older weights."""
        self._tables = None

    @torch.no_grad()
    def act(self, observation: Observation) -> Decision:
        """Slates (B, K), and what ``extras`` stores beside them."""
        if self._tables is None:
            self._tables = self.networks.tables(self.item_features)
        user = user_inputs(self.profiles, observation.user, observation.signals)
        state = self.networks.state(self._tables, user, observation.history)
        z = self.explore(self.networks.hyper_action(state, user))
        scores = mask_scores(self.scores(state, z, self._tables), observation, self.forbid_repeats)
        slate = self.choose(scores, state, self._tables)
        return Decision(slate, self.extras(z, scores, slate))

    def explore(self, z: Tensor) -> Tensor:
        """Hyper-actions (B, D) with noise, when exploring."""
        if self.noise is None or self.sigma == 0:
            return z
        return z + self.sigma * torch.randn(z.shape, generator=self.noise, device=z.device)

    def scores(self, state: Tensor, z: Tensor, tables: CatalogueTables) -> Tensor:
        """Scores (B, N + 1) of the whole catalogue, before anything is masked; may be written to."""
        scores: Tensor = self.networks.scores(z, tables)
        return scores

    def choose(self, scores: Tensor, state: Tensor, tables: CatalogueTables) -> Tensor:
        """Slates (B, K) of masked scores (B, N + 1) in states (B, D)."""
        return self.draw(scores)

    def draw(self, scores: Tensor) -> Tensor:
        """K columns (B, K) of masked scores (B, M): the best, or when exploring as configured."""
        exploration = self.settings.exploration
        if self.noise is not None and exploration.effect == "categorical":
            return sample_without_replacement(scores, self.slate_size, exploration.temperature, self.noise)
        return top_k(scores, self.slate_size)

    def extras(self, z: Tensor, scores: Tensor, slate: Tensor) -> dict[str, Tensor]:
        """Replay columns beside the slate."""
        return {}

    @classmethod
    def load(
        cls, weights: Mapping[str, ArrayLike], world: World, rules: WorldSettings, settings: ScoringSettings
    ) -> Self:
        """The greedy policy of a saved RLModule.

        Args:
            weights: arrays by name, with the prefix ``networks.``; others are ignored.
            world: where it is to serve, with the features it was trained on.
            rules: that world's rules.
            settings: the agent's.

        Raises:
            UserError: the weights do not fit the world's features, its history length or the settings.
        """
        fresh = cls.networks_class(*network_sizes(world, rules, settings), settings)
        return cls.of(load_networks(fresh, weights, world, rules), world, rules, settings)

    @classmethod
    def of(
        cls,
        networks: Any,
        world: World,
        rules: WorldSettings,
        settings: ScoringSettings,
        noise: torch.Generator | None = None,
    ) -> Self:
        """The policy of ``networks`` in ``world`` under ``rules``."""
        forbid = rules.repeats == "forbid"
        return cls(networks, world.profiles, world.item_features, world.slate_size, forbid, settings, noise)


def network_sizes(world: World, rules: WorldSettings, settings: ScoringSettings) -> tuple[int, int, int]:
    """Inputs of a user, item features and history length that networks for ``world`` need."""
    users = num_user_inputs(world, rules, settings.encoder)
    return users, world.item_features.shape[1], rules.history_length
