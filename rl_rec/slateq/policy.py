"""SlateQ in a rollout: the slate of highest value."""

from typing import Any

from torch import Tensor

from rl_rec.scoring.policy import ScoringPolicy
from rl_rec.slateq.networks import SlateQNetworks


class SlateQPolicy(ScoringPolicy):
    """Shows the K items that add most to a slate's value, which is the best slate as items add up."""

    networks_class = SlateQNetworks

    def scores(self, state: Tensor, z: Tensor, tables: Any) -> Tensor:
        """What showing each item adds: (B, N + 1)."""
        gains: Tensor = self.networks.gains(state, z, tables)
        return gains
