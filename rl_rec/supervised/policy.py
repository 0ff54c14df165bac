"""Supervised agents in a rollout."""

from rl_rec.scoring.policy import ScoringPolicy
from rl_rec.supervised.networks import SupervisedNetworks


class SupervisedPolicy(ScoringPolicy):
    """Shows the K items most likely to be responded to; exploring, draws by those scores."""

    networks_class = SupervisedNetworks
