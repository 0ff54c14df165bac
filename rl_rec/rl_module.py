"""What the RLModules of all off-policy algorithms share: the world, the targets, what runners do without."""

import abc
import copy
from typing import Any, ClassVar

import torch
from ray.rllib.core.rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI, TargetNetworkAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor, nn

from envs.catalogue import Catalogue
from envs.randomness import seeded_weights
from envs.rllib import world_from_env_config
from envs.settings import Settings
from envs.world import World
from envs.world_settings import WorldSettings
from rl_rec.policy import Policy
from rl_rec.transitions import Transitions

PREDICTIONS = "predictions"
ACTOR, CRITIC = "actor", "critic"

LossTerms = dict[str, Tensor]
"""Scalars by name."""


class RecommenderModule(TorchRLModule, TargetNetworkAPI, InferenceOnlyAPI):
    """Thin: sizes come from the world, everything else from the algorithm's folder.

    ``model_config``: ``env_config`` (where the world is), ``agent`` (the settings as plain data), ``seed``, and
    from ``placed`` the ``device`` (else cpu). The networks must have ``policy_parameters()``, what the actor's
    optimizer moves, and may have a ``critic`` with an optimizer of its own.
    """

    settings_class: ClassVar[type[Settings]]
    rollouts_without: ClassVar[tuple[str, ...]] = ("critic",)
    """Parts of the networks that rollouts do without."""
    networks: Any
    targets: Any
    """``None`` in an algorithm that needs none."""

    def setup(self) -> None:
        """Build the networks; the same seed gives the same weights in every process."""
        config = self.model_config
        self.settings: Any = self.settings_class.from_mapping(config["agent"])
        world, rules = world_from_env_config(config["env_config"], config.get("device", "cpu"))
        self.forbid_repeats = rules.repeats == "forbid"
        self.reward = rules.reward
        self.catalogue = Catalogue.of(world, rules.catalogue)
        # Features are data, not weights: they are not saved, and not sent to runners.
        self.register_buffer("profiles", world.profiles, persistent=False)
        self.register_buffer("item_features", world.item_features, persistent=False)
        with seeded_weights(config["seed"]):
            self.networks = self.make_networks(world, rules)
        self.noise: torch.Generator | None = None
        if self.inference_only:
            for name in self.rollouts_without:  # RLlib would look for nested attributes in the wrong place
                delattr(self.networks, name)
        else:
            self.make_target_networks()

    @abc.abstractmethod
    def make_networks(self, world: World, rules: WorldSettings) -> nn.Module:
        """Freshly drawn networks that fit a world."""

    @abc.abstractmethod
    def rollout_policy(self, world: World, rules: WorldSettings, noise: torch.Generator | None) -> Policy:
        """The exploring policy over these networks; ``noise`` ``None`` is greedy."""

    @abc.abstractmethod
    def predict(self, batch: Transitions) -> Any:
        """What the losses need, from one forward pass over a batch."""

    @abc.abstractmethod
    def loss_terms(self, predictions: Any, batch: Transitions) -> tuple[LossTerms, LossTerms]:
        """Loss terms to be summed, and further scalars to be watched."""

    @property
    def policy_delay(self) -> int:
        """Updates of the critic for each of the policy and the targets."""
        return 1

    def parameter_groups(self) -> dict[str, tuple[list[nn.Parameter], float]]:
        """What each optimizer moves, and its step size."""
        groups = {ACTOR: (self.networks.policy_parameters(), self.settings.actor_lr)}
        if hasattr(self.networks, "critic"):
            groups[CRITIC] = (list(self.networks.critic.parameters()), self.settings.critic_lr)
        return groups

    def _forward_train(self, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {PREDICTIONS: self.predict(Transitions(**batch))}

    def make_target_networks(self) -> None:
        """Targets begin as a copy."""
        self.targets = copy.deepcopy(self.networks).requires_grad_(False)

    def get_target_network_pairs(self) -> list[tuple[Any, Any]]:
        """For checkpoints and RLlib's own tools; the update itself moves all tensors at once."""
        return [] if self.targets is None else [(self.networks, self.targets)]

    def get_non_inference_attributes(self) -> list[str]:
        """What rollouts do without."""
        return ["targets", *(f"networks.{name}" for name in self.rollouts_without)]


def placed(spec: MultiRLModuleSpec, device: torch.device) -> MultiRLModuleSpec:
    """``spec`` for a process that computes on ``device``: runners and learners may have different ones."""
    for own in spec.rl_module_specs.values():
        own.model_config = {**own.model_config, "device": str(device)}
    return spec
