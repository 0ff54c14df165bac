"""HSRL as an RLlib algorithm: ``HSRLConfig`` and ``HSRL``."""

from ray.rllib.algorithms.algorithm import Algorithm

from rl_rec.algorithm import OffPolicyAlgorithm, OffPolicyConfig
from rl_rec.hsrl.config import HSRLSettings
from rl_rec.hsrl.rl_module import HSRLModule
from rl_rec.train_settings import TrainSettings


class HSRLConfig(OffPolicyConfig):
    """Configuration of HSRL; ``settings`` is a ``TrainSettings[HSRLSettings]`` as plain data."""

    settings_class = TrainSettings[HSRLSettings]
    module_class = HSRLModule

    def __init__(self, algo_class: type[Algorithm] | None = None) -> None:
        super().__init__(algo_class=algo_class or HSRL)


class HSRL(OffPolicyAlgorithm):
    """Hierarchical Semantic RL."""

    config_class = HSRLConfig
