"""TD3 in a rollout."""

from rl_rec.ddpg.policy import DDPGPolicy
from rl_rec.td3.networks import TD3Networks


class TD3Policy(DDPGPolicy):
    """As DDPG's."""

    networks_class = TD3Networks
