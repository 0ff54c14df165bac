"""A2C's networks: a softmax over items and a critic of states, plain torch."""

from rl_rec.a2c.config import A2CSettings
from rl_rec.scoring.networks import Critic, ScoringNetworks


class A2CNetworks(ScoringNetworks):
    """All weights of one A2C agent (its targets are a second instance)."""

    def __init__(
        self, num_user_features: int, num_item_features: int, history_length: int, settings: A2CSettings
    ) -> None:
        super().__init__(num_user_features, num_item_features, history_length, settings)
        self.critic = Critic(settings.encoder.dim, settings.critic_hidden)
