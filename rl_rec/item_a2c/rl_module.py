"""Item-wise A2C's networks as an RLModule."""

from rl_rec.a2c.losses import Predictions
from rl_rec.a2c.rl_module import A2CModule
from rl_rec.item_a2c.config import ItemA2CSettings
from rl_rec.item_a2c.losses import losses
from rl_rec.rl_module import LossTerms
from rl_rec.transitions import Transitions


class ItemA2CModule(A2CModule):
    """Item-wise A2C: A2C's policy and networks, with losses of its own."""

    settings_class = ItemA2CSettings

    def losses(self, predictions: Predictions, batch: Transitions) -> LossTerms:
        """The terms to be summed."""
        return losses(predictions, batch, self.world_view, self.settings)
