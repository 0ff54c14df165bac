"""DDPG in a rollout."""

from typing import ClassVar

from torch import Tensor

from rl_rec.ddpg.networks import DDPGNetworks
from rl_rec.scoring.networks import ScoringNetworks
from rl_rec.scoring.policy import ScoringPolicy


class DDPGPolicy(ScoringPolicy):
    """Explores in the latent space; see ``ScoringPolicy``."""

    networks_class: ClassVar[type[ScoringNetworks]] = DDPGNetworks

    def explore(self, z: Tensor) -> Tensor:
        """Hyper-actions (B, D) with noise, within their bounds."""
        return super().explore(z).clamp(-1.0, 1.0)

    def extras(self, z: Tensor, scores: Tensor, slate: Tensor) -> dict[str, Tensor]:
        """The played hyper-action (B, D): what the critic scores."""
        return {"hyper_action": z}
