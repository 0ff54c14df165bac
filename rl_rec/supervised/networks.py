"""Networks of supervised learning, plain torch."""

import torch
from torch import nn

from rl_rec.scoring.networks import ScoringNetworks
from rl_rec.supervised.config import SupervisedSettings


class SupervisedNetworks(ScoringNetworks):
    """All weights of one supervised agent."""

    def __init__(
        self, num_user_features: int, num_item_features: int, history_length: int, settings: SupervisedSettings
    ) -> None:
        super().__init__(num_user_features, num_item_features, history_length, settings)
        # Level of the response probability: it cannot change a ranking.
        self.response_bias = nn.Parameter(torch.zeros(1))
