"""DDPG's networks: a bounded hyper-actor, item embeddings and a critic of hyper-actions, plain torch.

Glossary: N items, F item features, D width.
"""

from torch import Tensor, nn

from rl_rec.ddpg.config import DDPGSettings
from rl_rec.scoring.networks import CatalogueTables, Critic, ScoringNetworks


class DDPGNetworks(ScoringNetworks):
    """All weights of one DDPG agent (its targets are a second instance)."""

    critic: nn.Module

    def __init__(
        self, num_user_features: int, num_item_features: int, history_length: int, settings: DDPGSettings
    ) -> None:
        super().__init__(num_user_features, num_item_features, history_length, settings)
        dim = settings.encoder.dim
        # Bounded as in the paper: noise of a given size means the same throughout training, and Q is never
        # asked about actions far outside what was played.
        self.hyper_actor = nn.Sequential(self.hyper_actor, nn.Tanh())
        self.tied = settings.item_embedding == "tokens"
        if self.tied:
            del self.item_encoder
        self.critic = Critic(2 * dim, settings.critic_hidden)

    def tables(self, item_features: Tensor) -> CatalogueTables:
        """Catalogue tables of the current weights; ``item_features`` (N + 1, F)."""
        if not self.tied:
            return super().tables(item_features)
        tokens = self.encoder.item_tokens(item_features)
        return CatalogueTables(tokens, tokens - tokens[:1])  # without the bias: row 0 is zero
