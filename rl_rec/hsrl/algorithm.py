"""HSRL as an RLlib algorithm: ``HSRLConfig`` and ``HSRL``."""

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from rl_rec.algorithm import OffPolicyAlgorithm, OffPolicyConfig
from rl_rec.hsrl.config import HSRLSettings
from rl_rec.train_settings import TrainSettings


class HSRLConfig(OffPolicyConfig):
    """Configuration of HSRL; ``settings`` is a ``TrainSettings[HSRLSettings]`` as plain data."""

    settings_class = TrainSettings[HSRLSettings]

    def __init__(self, algo_class: type[Algorithm] | None = None) -> None:
        super().__init__(algo_class=algo_class or HSRL)
        self.settings = TrainSettings[HSRLSettings](agent=HSRLSettings()).model_dump(mode="json")

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """HSRL's networks."""
        from rl_rec.hsrl.rl_module import HSRLModule

        return RLModuleSpec(module_class=HSRLModule)

    def get_default_learner_class(self) -> type:
        """HSRL's losses and optimizers."""
        from rl_rec.hsrl.learner import HSRLLearner

        return HSRLLearner


class HSRL(OffPolicyAlgorithm):
    """Hierarchical Semantic RL."""

    @classmethod
    def get_default_config(cls) -> HSRLConfig:
        """Defaults of HSRL."""
        return HSRLConfig()
