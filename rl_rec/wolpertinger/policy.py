"""Wolpertinger in a rollout: the proto-action's neighbours, ranked by the critic."""

from torch import Tensor

from rl_rec.scoring.networks import CatalogueTables
from rl_rec.scoring.policy import ScoringPolicy
from rl_rec.wolpertinger.networks import WolpertingerNetworks, nearness


class WolpertingerPolicy(ScoringPolicy):
    """Shows the best of the proto-action's neighbours by Q; exploring, draws from them."""

    networks_class = WolpertingerNetworks

    def scores(self, state: Tensor, z: Tensor, tables: CatalogueTables) -> Tensor:
        """Nearness (B, N + 1) to the proto-action."""
        return nearness(z, tables.phi)

    def explore(self, z: Tensor) -> Tensor:
        """Proto-actions (B, D) with noise, within their bounds."""
        return super().explore(z).clamp(-1.0, 1.0)

    def choose(self, scores: Tensor, state: Tensor, tables: CatalogueTables) -> Tensor:
        """Slates (B, K) of the neighbours."""
        neighbours = max(self.settings.neighbours, self.slate_size)
        items, values = self.networks.best_neighbours(state, scores, tables.phi, neighbours)
        return items.gather(1, self.draw(values))
