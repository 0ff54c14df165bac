"""A2C's networks as an RLModule."""

from typing import ClassVar

from envs.settings import Settings
from rl_rec.a2c.config import A2CSettings
from rl_rec.a2c.losses import Predictions, losses, predict
from rl_rec.a2c.policy import A2CPolicy
from rl_rec.rl_module import LossTerms
from rl_rec.scoring.rl_module import ScoringModule
from rl_rec.transitions import Transitions


class A2CModule(ScoringModule):
    """A2C."""

    settings_class: ClassVar[type[Settings]] = A2CSettings
    policy_class = A2CPolicy

    def predict(self, batch: Transitions) -> Predictions:
        """What A2C's losses need."""
        return predict(self.networks, self.targets, batch, self.world_view, self.settings, self.noise)

    def loss_terms(self, predictions: Predictions, batch: Transitions) -> tuple[LossTerms, LossTerms]:
        """A2C's losses, and values to be watched."""
        return self.losses(predictions, batch), {
            "value_mean": predictions.value.detach().mean(),
            "entropy": predictions.entropy.detach().mean(),
        }

    def losses(self, predictions: Predictions, batch: Transitions) -> LossTerms:
        """The terms to be summed."""
        return losses(predictions, batch, self.settings)
