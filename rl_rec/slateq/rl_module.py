"""SlateQ's networks as an RLModule."""

from rl_rec.rl_module import LossTerms
from rl_rec.scoring.rl_module import ScoringModule
from rl_rec.slateq.config import SlateQSettings
from rl_rec.slateq.losses import Predictions, losses, predict
from rl_rec.slateq.policy import SlateQPolicy
from rl_rec.transitions import Transitions


class SlateQModule(ScoringModule):
    """SlateQ."""

    settings_class = SlateQSettings
    policy_class = SlateQPolicy
    rollouts_without = ()  # what learns is what acts

    def predict(self, batch: Transitions) -> Predictions:
        """What SlateQ's losses need."""
        return predict(self.networks, self.targets, batch, self.world_view, self.settings, self.noise)

    def loss_terms(self, predictions: Predictions, batch: Transitions) -> tuple[LossTerms, LossTerms]:
        """SlateQ's losses, and values to be watched."""
        watched = {"value_mean": predictions.value.detach().mean(), "target_mean": predictions.target.mean()}
        return losses(predictions, batch, self.settings), watched
