"""HAC's networks as an RLModule."""

from rl_rec.hac.config import HACSettings
from rl_rec.hac.losses import Predictions, losses, predict
from rl_rec.hac.policy import HACPolicy
from rl_rec.rl_module import LossTerms
from rl_rec.scoring.rl_module import ScoringModule
from rl_rec.transitions import Transitions


class HACModule(ScoringModule):
    """HAC."""

    settings_class = HACSettings
    policy_class = HACPolicy

    def predict(self, batch: Transitions) -> Predictions:
        """What HAC's losses need."""
        return predict(self.networks, self.targets, batch, self.world_view, self.settings, self.noise)

    def loss_terms(self, predictions: Predictions, batch: Transitions) -> tuple[LossTerms, LossTerms]:
        """HAC's losses, and values to be watched."""
        watched = {
            "q_mean": predictions.q.detach().mean(),
            "target_mean": predictions.target.mean(),
            "policy_q_mean": predictions.policy_q.detach().mean(),
            "hyper_action_norm": predictions.mu.detach().norm(dim=1).mean(),
        }
        return losses(predictions, batch, self.settings), watched
