"""TD3's networks: DDPG's with two critics, plain torch."""

from torch import Tensor, nn

from rl_rec.ddpg.networks import DDPGNetworks
from rl_rec.scoring.networks import Critic
from rl_rec.td3.config import TD3Settings


class TwinCritic(nn.Module):
    """Two critics of different weights; what both agree on is less likely to be an error of one."""

    def __init__(self, inputs: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.first, self.second = Critic(inputs, hidden), Critic(inputs, hidden)

    def forward(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Both values, (B,) each, of ``action`` (B, D) in ``state`` (B, D)."""
        return self.first(state, action), self.second(state, action)


class TD3Networks(DDPGNetworks):
    """All weights of one TD3 agent (its targets are a second instance)."""

    critic: TwinCritic

    def __init__(
        self, num_user_features: int, num_item_features: int, history_length: int, settings: TD3Settings
    ) -> None:
        super().__init__(num_user_features, num_item_features, history_length, settings)
        self.critic = TwinCritic(2 * settings.encoder.dim, settings.critic_hidden)
