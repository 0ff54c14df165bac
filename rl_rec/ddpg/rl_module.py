"""DDPG's networks as an RLModule."""

from rl_rec.ddpg.config import DDPGSettings
from rl_rec.ddpg.losses import Predictions, losses, predict
from rl_rec.ddpg.policy import DDPGPolicy
from rl_rec.rl_module import LossTerms
from rl_rec.scoring.rl_module import ScoringModule
from rl_rec.transitions import Transitions


class DDPGModule(ScoringModule):
    """DDPG."""

    settings_class = DDPGSettings
    policy_class = DDPGPolicy

    def predict(self, batch: Transitions) -> Predictions:
        """What DDPG's losses need."""
        return predict(self.networks, self.targets, batch, self.world_view, self.settings, self.noise)

    def loss_terms(self, predictions: Predictions, batch: Transitions) -> tuple[LossTerms, LossTerms]:
        """DDPG's losses, and values to be watched."""
        watched = {"q_mean": predictions.q.detach().mean(), "target_mean": predictions.target.mean()}
        return losses(predictions, self.settings), watched
