"""TD3 as an RLlib algorithm: ``TD3Config`` and ``TD3``."""

from ray.rllib.algorithms.algorithm import Algorithm

from rl_rec.algorithm import OffPolicyConfig
from rl_rec.scoring.algorithm import ScoringAlgorithm
from rl_rec.td3.config import TD3Settings
from rl_rec.td3.rl_module import TD3Module
from rl_rec.train_settings import TrainSettings


class TD3Config(OffPolicyConfig):
    """Configuration of TD3; ``settings`` is a ``TrainSettings[TD3Settings]`` as plain data."""

    settings_class = TrainSettings[TD3Settings]
    module_class = TD3Module

    def __init__(self, algo_class: type[Algorithm] | None = None) -> None:
        super().__init__(algo_class=algo_class or TD3)


class TD3(ScoringAlgorithm):
    """Twin delayed DDPG on hyper-actions."""

    config_class = TD3Config
