"""HAC's networks as an RLModule: where RLlib finds weights, targets and the rollout policy."""

import copy
from typing import Any

import torch
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI, TargetNetworkAPI
from ray.rllib.core.rl_module.torch import TorchRLModule

from envs.catalogue import Catalogue
from envs.randomness import seeded_weights
from envs.rllib import world_from_env_config
from envs.simulator import World, WorldSettings
from rl_rec.hac.config import HACSettings
from rl_rec.hac.losses import Transitions, predict
from rl_rec.hac.networks import HACNetworks
from rl_rec.hac.policy import HACPolicy


class HACModule(TorchRLModule, TargetNetworkAPI, InferenceOnlyAPI):
    """Thin: sizes come from the world, everything else from ``rl_rec.hac``.

    ``model_config``: ``env_config`` (where the world is), ``agent`` (``HACSettings`` as plain data), ``seed``,
    ``device``.
    """

    def setup(self) -> None:
        """Build the networks; the same seed gives the same weights in every process."""
        config = self.model_config
        self.settings = HACSettings.from_mapping(config["agent"])
        world, rules = world_from_env_config(config["env_config"], config["device"])
        self.forbid_repeats = rules.repeats == "forbid"
        self.catalogue = Catalogue.of(world, rules)
        with seeded_weights(config["seed"]):
            self.networks = HACNetworks(
                world.profiles.shape[1], world.item_features.shape[1], rules.history_length, self.settings
            )
        # Features are data, not weights: they are not saved, and not sent to runners.
        self.register_buffer("profiles", world.profiles, persistent=False)
        self.register_buffer("item_features", world.item_features, persistent=False)
        self.noise: torch.Generator | None = None
        if self.inference_only:
            del self.networks.critic  # RLlib would look for a nested attribute in the wrong place
        else:
            self.make_target_networks()

    def make_target_networks(self) -> None:
        """Targets begin as a copy."""
        self.targets = copy.deepcopy(self.networks).requires_grad_(False)

    def get_target_network_pairs(self) -> list[tuple[Any, Any]]:
        """For checkpoints and RLlib's own tools; the update itself moves all tensors at once."""
        return [(self.networks, self.targets)]

    def get_non_inference_attributes(self) -> list[str]:
        """What rollouts do without."""
        return ["targets", "networks.critic"]

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

    def _forward_train(self, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        predictions = predict(
            self.networks,
            self.targets,
            Transitions(**batch),
            self.profiles,
            self.item_features,
            self.forbid_repeats,
            self.settings,
            self.noise,
            self.catalogue,
        )
        return predictions._asdict()
