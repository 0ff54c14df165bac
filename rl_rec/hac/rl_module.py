"""HAC's networks as an RLModule: where RLlib finds weights, targets and the rollout policy."""

from typing import Any

import torch

from envs.simulator import World, WorldSettings
from rl_rec.hac.config import HACSettings
from rl_rec.hac.losses import Predictions, losses, predict
from rl_rec.hac.networks import HACNetworks
from rl_rec.hac.policy import HACPolicy
from rl_rec.rl_module import LossTerms, RecommenderModule
from rl_rec.transitions import Transitions


class HACModule(RecommenderModule):
    """HAC."""

    settings_class = HACSettings

    def make_networks(self, world: World, rules: WorldSettings) -> HACNetworks:
        """Networks for a world's features and history length."""
        users, items = world.profiles.shape[1], world.item_features.shape[1]
        return HACNetworks(users, items, rules.history_length, self.settings)

    def rollout_policy(self, world: World, rules: WorldSettings, noise: torch.Generator | None) -> HACPolicy:
        """The exploring policy over these networks; ``noise`` ``None`` is greedy."""
        forbid = rules.repeats == "forbid"
        return HACPolicy(
            self.networks, world.profiles, world.item_features, world.slate_size, forbid, self.settings, noise
        )

    def forward_target(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The target's hyper-action of a batch's states."""
        tables = self.targets.tables(self.item_features)
        state = self.targets.state(tables, self.profiles[batch["user"]], batch["history"])
        return {"hyper_action": self.targets.hyper_actor(state)}

    def _forward(self, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        tables = self.networks.tables(self.item_features)
        state = self.networks.state(tables, self.profiles[batch["user"]], batch["history"])
        return {"hyper_action": self.networks.hyper_actor(state)}

    def predict(self, batch: Transitions) -> Predictions:
        """What HAC's losses need."""
        return predict(
            self.networks,
            self.targets,
            batch,
            self.profiles,
            self.item_features,
            self.forbid_repeats,
            self.settings,
            self.noise,
            self.catalogue,
        )

    def loss_terms(self, predictions: Predictions, batch: Transitions) -> tuple[LossTerms, LossTerms]:
        """HAC's losses, and values to be watched."""
        watched = {
            "q_mean": predictions.q.detach().mean(),
            "target_mean": predictions.target.mean(),
            "policy_q_mean": predictions.policy_q.detach().mean(),
            "hyper_action_norm": predictions.mu.detach().norm(dim=1).mean(),
        }
        return losses(predictions, batch, self.settings), watched
