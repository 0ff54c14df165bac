"""HSRL's networks as an RLModule: where RLlib finds weights, targets and the rollout policy."""

import hashlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from envs.errors import UserError
from envs.world import World
from envs.world_settings import WorldSettings
from rl_rec.hsrl.catalogue import catalogue_sids
from rl_rec.hsrl.config import HSRLSettings
from rl_rec.hsrl.losses import Predictions, losses, predict
from rl_rec.hsrl.networks import HSRLNetworks
from rl_rec.hsrl.policy import HSRLPolicy
from rl_rec.rl_module import LossTerms, RecommenderModule
from rl_rec.sids.trie import Trie
from rl_rec.transitions import Transitions
from rl_rec.user_inputs import num_user_inputs, user_inputs

RESIDUAL = "residual"
"""Name of the optimizer of Δ."""


def _digest(tokens: NDArray[np.int32]) -> int:
    """Tells one table of semantic IDs from another, in 63 bits."""
    return int.from_bytes(hashlib.sha256(np.ascontiguousarray(tokens).tobytes()).digest()[:8], "big") >> 1


class HSRLModule(RecommenderModule):
    """HSRL.

    The semantic IDs are saved beside the weights (a run serves with what it was trained on), but not sent to
    runners, which make the same ones.
    """

    settings_class = HSRLSettings

    def make_networks(self, world: World, rules: WorldSettings) -> HSRLNetworks:
        """Networks for a world's features, history length and semantic IDs."""
        codebook, tokens = catalogue_sids(world, self.settings, self.catalogue.live_at(0))
        self.register_buffer("sid_tokens", torch.from_numpy(tokens.copy()))
        self.register_buffer("sid_digest", torch.tensor(_digest(tokens)))
        self.register_buffer("sid_mean", torch.from_numpy(codebook.mean))
        self.register_buffer("sid_scale", torch.from_numpy(codebook.scale))
        self.register_buffer("sid_beam", torch.tensor(codebook.beam))
        self.trie = Trie(tokens, codebook.sizes, world.item_features)
        self._live: Tensor | None = None
        users, items = num_user_inputs(world, rules, self.settings.encoder), world.item_features.shape[1]
        centres = [torch.from_numpy(centres) for centres in codebook.centres]
        return HSRLNetworks(users, items, rules.history_length, centres, self.settings)

    def parameter_groups(self) -> dict[str, tuple[list[nn.Parameter], float]]:
        """Δ has a step size of its own."""
        groups = super().parameter_groups()
        if residual := self.networks.residual_parameters():
            groups[RESIDUAL] = (residual, self.settings.residual_lr)
        return groups

    def get_non_inference_attributes(self) -> list[str]:
        """What rollouts do without."""
        return [*super().get_non_inference_attributes(), "sid_tokens", "sid_mean", "sid_scale", "sid_beam"]

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over weights, and the tree of the semantic IDs they were trained on.

        Policies that were made before keep the tree of before: make them anew.

        Raises:
            UserError: a runner's machine builds other semantic IDs than the run began with.
        """
        before = int(self.sid_digest)
        super().set_state(state)
        if int(self.sid_digest) == before:
            return
        if not hasattr(self, "sid_tokens"):  # runners are not sent them
            raise UserError(
                "this machine builds other semantic IDs than the run began with: build them once with "
                "rl-rec sids build and train with agent.sids, or without remote runners"
            )
        self.trie = Trie(self.sid_tokens.cpu().numpy(), self.trie.sizes, self.item_features)
        self._live = None

    def rollout_policy(self, world: World, rules: WorldSettings, noise: torch.Generator | None) -> HSRLPolicy:
        """The exploring policy over these networks; ``noise`` ``None`` is greedy."""
        forbid = rules.repeats == "forbid"
        # A live set of its own: validation users may be served from another one than training users.
        trie = self.trie.fork(world.device)
        return HSRLPolicy(self.networks, world.profiles, trie, world.slate_size, forbid, self.settings, noise)

    def forward_target(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The target's states of a batch."""
        return {"state": self._state(self.targets, batch)}

    def _forward(self, batch: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {"state": self._state(self.networks, batch)}

    def _state(self, networks: HSRLNetworks, batch: dict[str, Any]) -> Tensor:
        policy = networks.policy
        user = user_inputs(self.profiles, batch["user"], batch.get("signals"))
        return policy.state(policy.tables(self.trie), user, batch["history"]).s

    def predict(self, batch: Transitions) -> Predictions:
        """What HSRL's losses need."""
        live, _next = self.catalogue.live_in_batch(batch.clock)
        if live is not None and live is not self._live:
            self.trie.set_live(live)
            self._live = live
        return predict(
            self.networks,
            self.targets,
            batch,
            self.profiles,
            self.trie,
            self.forbid_repeats,
            self.settings,
            self.noise,
        )

    def loss_terms(self, predictions: Predictions, batch: Transitions) -> tuple[LossTerms, LossTerms]:
        """HSRL's losses, and values to be watched."""
        watched = {
            "value_mean": predictions.values.detach().mean(),
            "future_mean": predictions.future.mean(),
            "entropy": predictions.entropy.detach().mean(),
        }
        if batch.log_prob is not None:
            joint = predictions.log_prob.detach().sum(dim=-1) - batch.log_prob.sum(dim=-1)
            ratio = joint.clamp(max=3.0).exp() * predictions.valid
            watched["ratio_mean"] = ratio.sum() / predictions.valid.sum().clamp(min=1)
        for level, weight in enumerate(predictions.weights.detach()):
            watched[f"critic_weight_{level}"] = weight
        return losses(predictions, batch, self.settings), watched
