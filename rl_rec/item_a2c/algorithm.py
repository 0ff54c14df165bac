"""Item-wise A2C as an RLlib algorithm: ``ItemA2CConfig`` and ``ItemA2C``."""

from ray.rllib.algorithms.algorithm import Algorithm

from rl_rec.algorithm import OffPolicyConfig
from rl_rec.item_a2c.config import ItemA2CSettings
from rl_rec.item_a2c.rl_module import ItemA2CModule
from rl_rec.scoring.algorithm import ScoringAlgorithm
from rl_rec.train_settings import TrainSettings


class ItemA2CConfig(OffPolicyConfig):
    """Configuration of item-wise A2C; ``settings`` is a ``TrainSettings[ItemA2CSettings]`` as plain data."""

    settings_class = TrainSettings[ItemA2CSettings]
    module_class = ItemA2CModule

    def __init__(self, algo_class: type[Algorithm] | None = None) -> None:
        super().__init__(algo_class=algo_class or ItemA2C)


class ItemA2C(ScoringAlgorithm):
    """Advantage actor-critic with an advantage per item."""

    config_class = ItemA2CConfig
