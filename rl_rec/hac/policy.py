"""HAC in a rollout."""

from torch import Tensor

from rl_rec.hac.networks import HACNetworks
from rl_rec.scoring.policy import ScoringPolicy


class HACPolicy(ScoringPolicy):
    """Explores in the latent space; see ``ScoringPolicy``."""

    networks_class = HACNetworks

    def extras(self, z: Tensor, scores: Tensor, slate: Tensor) -> dict[str, Tensor]:
        """The played hyper-action (B, D), where the critic is to score it."""
        return {"hyper_action": z} if self.settings.critic_action == "hyper" else {}
