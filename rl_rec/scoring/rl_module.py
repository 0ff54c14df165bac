"""Networks with a score per item as an RLModule: where RLlib finds weights, targets and the rollout policy."""

from typing import Any, ClassVar

import torch

from envs.world import World
from envs.world_settings import WorldSettings
from rl_rec.rl_module import RecommenderModule
from rl_rec.scoring.losses import WorldView
from rl_rec.scoring.networks import ScoringNetworks
from rl_rec.scoring.policy import ScoringPolicy, network_sizes
from rl_rec.user_inputs import user_inputs


class ScoringModule(RecommenderModule):
    """What is left to an algorithm: its settings, its policy (which knows its networks) and its losses."""

    policy_class: ClassVar[type[ScoringPolicy]]

    def make_networks(self, world: World, rules: WorldSettings) -> ScoringNetworks:
        """Networks for a world's features and history length."""
        return self.policy_class.networks_class(*network_sizes(world, rules, self.settings), self.settings)

    def rollout_policy(
        self, world: World, rules: WorldSettings, noise: torch.Generator | None
    ) -> ScoringPolicy:
        """The exploring policy over these networks; ``noise`` ``None`` is greedy."""
        return self.policy_class.of(self.networks, world, rules, self.settings, noise)

    @property
    def world_view(self) -> WorldView:
        """What the losses know of the world."""
        known = self.profiles, self.item_features, self.forbid_repeats, self.catalogue, self.reward
        return WorldView(*known)

    def forward_target(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The target's hyper-action of a batch's states."""
        return self._hyper_action(self.targets, batch)

    def _forward(self, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        return self._hyper_action(self.networks, batch)

    def _hyper_action(self, networks: Any, batch: dict[str, Any]) -> dict[str, Any]:
        user = user_inputs(self.profiles, batch["user"], batch.get("signals"))
        state = networks.state(networks.tables(self.item_features), user, batch["history"])
        return {"hyper_action": networks.hyper_action(state, user)}
