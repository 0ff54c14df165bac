"""DDPG-RA in a rollout."""

from rl_rec.ddpg.policy import DDPGPolicy
from rl_rec.ddpg_ra.networks import DDPGRANetworks


class DDPGRAPolicy(DDPGPolicy):
    """As DDPG's."""

    networks_class = DDPGRANetworks
