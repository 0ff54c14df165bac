"""Wolpertinger's networks as an RLModule."""

from rl_rec.rl_module import LossTerms
from rl_rec.scoring.rl_module import ScoringModule
from rl_rec.transitions import Transitions
from rl_rec.wolpertinger.config import WolpertingerSettings
from rl_rec.wolpertinger.losses import Predictions, losses, predict
from rl_rec.wolpertinger.policy import WolpertingerPolicy


class WolpertingerModule(ScoringModule):
    """Wolpertinger."""

    settings_class = WolpertingerSettings
    policy_class = WolpertingerPolicy
    rollouts_without = ()  # the critic has the last word in a slate

    def predict(self, batch: Transitions) -> Predictions:
        """What Wolpertinger's losses need."""
        return predict(self.networks, self.targets, batch, self.world_view, self.settings, self.noise)

    def loss_terms(self, predictions: Predictions, batch: Transitions) -> tuple[LossTerms, LossTerms]:
        """Wolpertinger's losses, and values to be watched."""
        watched = {"q_mean": predictions.q.detach().mean(), "target_mean": predictions.target.mean()}
        return losses(predictions, self.settings), watched
