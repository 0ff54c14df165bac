"""HAC as an RLlib algorithm: ``HACConfig`` and ``HAC``."""

from ray.rllib.algorithms.algorithm import Algorithm

from rl_rec.algorithm import OffPolicyConfig
from rl_rec.hac.config import HACSettings
from rl_rec.hac.rl_module import HACModule
from rl_rec.scoring.algorithm import ScoringAlgorithm
from rl_rec.train_settings import TrainSettings


class HACConfig(OffPolicyConfig):
    """Configuration of HAC; ``settings`` is a ``TrainSettings[HACSettings]`` as plain data."""

    settings_class = TrainSettings[HACSettings]
    module_class = HACModule

    def __init__(self, algo_class: type[Algorithm] | None = None) -> None:
        super().__init__(algo_class=algo_class or HAC)


class HAC(ScoringAlgorithm):
    """Hyper-Actor Critic."""

    config_class = HACConfig
