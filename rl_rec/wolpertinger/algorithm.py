"""Wolpertinger as an RLlib algorithm: ``WolpertingerConfig`` and ``Wolpertinger``."""

from ray.rllib.algorithms.algorithm import Algorithm

from rl_rec.algorithm import OffPolicyConfig
from rl_rec.scoring.algorithm import ScoringAlgorithm
from rl_rec.train_settings import TrainSettings
from rl_rec.wolpertinger.config import WolpertingerSettings
from rl_rec.wolpertinger.rl_module import WolpertingerModule


class WolpertingerConfig(OffPolicyConfig):
    """Configuration of Wolpertinger; ``settings``: a ``TrainSettings[WolpertingerSettings]`` as plain data."""

    settings_class = TrainSettings[WolpertingerSettings]
    module_class = WolpertingerModule

    def __init__(self, algo_class: type[Algorithm] | None = None) -> None:
        super().__init__(algo_class=algo_class or Wolpertinger)


class Wolpertinger(ScoringAlgorithm):
    """A proto-action's neighbours, ranked by a critic."""

    config_class = WolpertingerConfig
