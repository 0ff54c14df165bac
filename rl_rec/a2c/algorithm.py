"""A2C as an RLlib algorithm: ``A2CConfig`` and ``A2C``."""

from ray.rllib.algorithms.algorithm import Algorithm

from rl_rec.a2c.config import A2CSettings
from rl_rec.a2c.rl_module import A2CModule
from rl_rec.algorithm import OffPolicyConfig
from rl_rec.scoring.algorithm import ScoringAlgorithm
from rl_rec.train_settings import TrainSettings


class A2CConfig(OffPolicyConfig):
    """Configuration of A2C; ``settings`` is a ``TrainSettings[A2CSettings]`` as plain data."""

    settings_class = TrainSettings[A2CSettings]
    module_class = A2CModule

    def __init__(self, algo_class: type[Algorithm] | None = None) -> None:
        super().__init__(algo_class=algo_class or A2C)


class A2C(ScoringAlgorithm):
    """Advantage actor-critic over items."""

    config_class = A2CConfig
