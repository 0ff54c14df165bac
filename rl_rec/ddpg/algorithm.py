"""DDPG as an RLlib algorithm: ``DDPGConfig`` and ``DDPG``."""

from ray.rllib.algorithms.algorithm import Algorithm

from rl_rec.algorithm import OffPolicyConfig
from rl_rec.ddpg.config import DDPGSettings
from rl_rec.ddpg.rl_module import DDPGModule
from rl_rec.scoring.algorithm import ScoringAlgorithm
from rl_rec.train_settings import TrainSettings


class DDPGConfig(OffPolicyConfig):
    """Configuration of DDPG; ``settings`` is a ``TrainSettings[DDPGSettings]`` as plain data."""

    settings_class = TrainSettings[DDPGSettings]
    module_class = DDPGModule

    def __init__(self, algo_class: type[Algorithm] | None = None) -> None:
        super().__init__(algo_class=algo_class or DDPG)


class DDPG(ScoringAlgorithm):
    """Deep deterministic policy gradient on hyper-actions."""

    config_class = DDPGConfig
