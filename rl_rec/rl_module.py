"""What the RLModules of all off-policy algorithms share: the world, the targets, what runners do without."""

import abc
import copy
from typing import Any, ClassVar

import torch
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI, TargetNetworkAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import nn

from envs.catalogue import Catalogue
from envs.randomness import seeded_weights
from envs.rllib import world_from_env_config
from envs.settings import Settings
from envs.simulator import World, WorldSettings
from rl_rec.policy import Policy


class RecommenderModule(TorchRLModule, TargetNetworkAPI, InferenceOnlyAPI):
    """Thin: sizes come from the world, everything else from the algorithm's folder.

    ``model_config``: ``env_config`` (where the world is), ``agent`` (the settings as plain data), ``seed``,
    ``device``. The networks must have a ``critic``, which rollouts do without.
    """

    settings_class: ClassVar[type[Settings]]
    networks: Any
    targets: Any

    def setup(self) -> None:
        """Build the networks; the same seed gives the same weights in every process."""
        config = self.model_config
        self.settings: Any = self.settings_class.from_mapping(config["agent"])
        world, rules = world_from_env_config(config["env_config"], config["device"])
        self.forbid_repeats = rules.repeats == "forbid"
        self.catalogue = Catalogue.of(world, rules)
        # Features are data, not weights: they are not saved, and not sent to runners.
        self.register_buffer("profiles", world.profiles, persistent=False)
        self.register_buffer("item_features", world.item_features, persistent=False)
        with seeded_weights(config["seed"]):
            self.networks = self.make_networks(world, rules)
        self.noise: torch.Generator | None = None
        if self.inference_only:
            del self.networks.critic  # RLlib would look for a nested attribute in the wrong place
        else:
            self.make_target_networks()

    @abc.abstractmethod
    def make_networks(self, world: World, rules: WorldSettings) -> nn.Module:
        """Freshly drawn networks that fit a world."""

    @abc.abstractmethod
    def rollout_policy(self, world: World, rules: WorldSettings, noise: torch.Generator | None) -> Policy:
        """The exploring policy over these networks; ``noise`` ``None`` is greedy."""

    def make_target_networks(self) -> None:
        """Targets begin as a copy."""
        self.targets = copy.deepcopy(self.networks).requires_grad_(False)

    def get_target_network_pairs(self) -> list[tuple[Any, Any]]:
        """For checkpoints and RLlib's own tools; the update itself moves all tensors at once."""
        return [(self.networks, self.targets)]

    def get_non_inference_attributes(self) -> list[str]:
        """What rollouts do without."""
        return ["targets", "networks.critic"]
