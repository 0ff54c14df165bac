"""DDPG-RA as an RLlib algorithm: ``DDPGRAConfig`` and ``DDPGRA``."""

from ray.rllib.algorithms.algorithm import Algorithm

from rl_rec.algorithm import OffPolicyConfig
from rl_rec.ddpg_ra.config import DDPGRASettings
from rl_rec.ddpg_ra.rl_module import DDPGRAModule
from rl_rec.scoring.algorithm import ScoringAlgorithm
from rl_rec.train_settings import TrainSettings


class DDPGRAConfig(OffPolicyConfig):
    """Configuration of DDPG-RA; ``settings`` is a ``TrainSettings[DDPGRASettings]`` as plain data."""

    settings_class = TrainSettings[DDPGRASettings]
    module_class = DDPGRAModule

    def __init__(self, algo_class: type[Algorithm] | None = None) -> None:
        super().__init__(algo_class=algo_class or DDPGRA)


class DDPGRA(ScoringAlgorithm):
    """DDPG with item representations learned from transitions."""

    config_class = DDPGRAConfig
