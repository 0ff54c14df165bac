"""TD3's networks as an RLModule."""

from rl_rec.rl_module import LossTerms
from rl_rec.scoring.rl_module import ScoringModule
from rl_rec.td3.config import TD3Settings
from rl_rec.td3.losses import Predictions, losses, predict
from rl_rec.td3.policy import TD3Policy
from rl_rec.transitions import Transitions


class TD3Module(ScoringModule):
    """TD3."""

    settings_class = TD3Settings
    policy_class = TD3Policy

    @property
    def policy_delay(self) -> int:
        """Policy and targets wait for the critics."""
        return int(self.settings.policy_delay)

    def predict(self, batch: Transitions) -> Predictions:
        """What TD3's losses need."""
        return predict(self.networks, self.targets, batch, self.world_view, self.settings, self.noise)

    def loss_terms(self, predictions: Predictions, batch: Transitions) -> tuple[LossTerms, LossTerms]:
        """TD3's losses, and values to be watched."""
        watched = {
            "q_mean": predictions.first_q.detach().mean(),
            "q_gap": (predictions.first_q - predictions.second_q).detach().abs().mean(),
            "target_mean": predictions.target.mean(),
        }
        return losses(predictions, self.settings), watched
