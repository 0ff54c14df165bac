"""Supervised learning as RLlib algorithms: online, and offline on the logs."""

from ray.rllib.algorithms.algorithm import Algorithm

from rl_rec.algorithm import OffPolicyConfig
from rl_rec.log_runner import LogRunner
from rl_rec.scoring.algorithm import ScoringAlgorithm
from rl_rec.supervised.config import SupervisedOfflineSettings, SupervisedSettings
from rl_rec.supervised.rl_module import SupervisedModule, SupervisedOfflineModule
from rl_rec.train_settings import TrainSettings


class SupervisedConfig(OffPolicyConfig):
    """Configuration; ``settings`` is a ``TrainSettings[SupervisedSettings]`` as plain data."""

    settings_class = TrainSettings[SupervisedSettings]
    module_class = SupervisedModule

    def __init__(self, algo_class: type[Algorithm] | None = None) -> None:
        super().__init__(algo_class=algo_class or Supervised)


class Supervised(ScoringAlgorithm):
    """Learns from the responses to its own slates."""

    config_class = SupervisedConfig


class SupervisedOfflineConfig(SupervisedConfig):
    """As ``SupervisedConfig``; user-steps are logged slates."""

    settings_class = TrainSettings[SupervisedOfflineSettings]
    module_class = SupervisedOfflineModule

    def __init__(self, algo_class: type[Algorithm] | None = None) -> None:
        super().__init__(algo_class=algo_class or SupervisedOffline)
        self.env_runner_cls = LogRunner


class SupervisedOffline(ScoringAlgorithm):
    """Learns from the slates that training users were shown when the logs were written."""

    config_class = SupervisedOfflineConfig
