"""A2C in a rollout."""

from torch import Tensor

from rl_rec.a2c.networks import A2CNetworks
from rl_rec.scoring.policy import ScoringPolicy
from rl_rec.slates import plackett_luce_log_probs


class A2CPolicy(ScoringPolicy):
    """Draws slates without replacement, and stores how probable each draw was."""

    networks_class = A2CNetworks

    def extras(self, z: Tensor, scores: Tensor, slate: Tensor) -> dict[str, Tensor]:
        """``log_prob`` (B, K) when exploring."""
        if self.noise is None:
            return {}
        return {"log_prob": plackett_luce_log_probs(scores / self.settings.exploration.temperature, slate)}
