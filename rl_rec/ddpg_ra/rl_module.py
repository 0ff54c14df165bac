"""DDPG-RA's networks as an RLModule."""

from rl_rec.ddpg_ra.config import DDPGRASettings
from rl_rec.ddpg_ra.losses import Predictions, losses, predict
from rl_rec.ddpg_ra.policy import DDPGRAPolicy
from rl_rec.rl_module import LossTerms
from rl_rec.scoring.rl_module import ScoringModule
from rl_rec.transitions import Transitions


class DDPGRAModule(ScoringModule):
    """DDPG-RA."""

    settings_class = DDPGRASettings
    policy_class = DDPGRAPolicy
    rollouts_without = ("critic", "inverse_model")

    def predict(self, batch: Transitions) -> Predictions:
        """What DDPG-RA's losses need."""
        return predict(self.networks, self.targets, batch, self.world_view, self.settings, self.noise)

    def loss_terms(self, predictions: Predictions, batch: Transitions) -> tuple[LossTerms, LossTerms]:
        """DDPG-RA's losses, and values to be watched."""
        watched = {"q_mean": predictions.ddpg.q.detach().mean(), "target_mean": predictions.ddpg.target.mean()}
        return losses(predictions, self.settings), watched
