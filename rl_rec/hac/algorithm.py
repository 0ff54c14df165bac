"""HAC as an RLlib algorithm: ``HACConfig`` and ``HAC``."""

from typing import cast

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from rl_rec.algorithm import OffPolicyAlgorithm, OffPolicyConfig
from rl_rec.hac.config import HACSettings
from rl_rec.train_settings import TrainSettings


class HACConfig(OffPolicyConfig):
    """Configuration of HAC; ``settings`` is a ``TrainSettings[HACSettings]`` as plain data."""

    settings_class = TrainSettings[HACSettings]

    def __init__(self, algo_class: type[Algorithm] | None = None) -> None:
        super().__init__(algo_class=algo_class or HAC)
        self.settings = TrainSettings[HACSettings](agent=HACSettings()).model_dump(mode="json")

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """HAC's networks."""
        from rl_rec.hac.rl_module import HACModule

        return RLModuleSpec(module_class=HACModule)

    def get_default_learner_class(self) -> type:
        """HAC's losses and optimizers."""
        from rl_rec.hac.learner import HACLearner

        return HACLearner


class HAC(OffPolicyAlgorithm):
    """Hyper-Actor Critic."""

    @classmethod
    def get_default_config(cls) -> HACConfig:
        """Defaults of HAC."""
        return HACConfig()

    def exploration(self, user_steps: int) -> dict[str, float]:
        """σ of the hyper-action's noise."""
        agent = cast(HACSettings, self._settings.agent)
        return {"sigma": agent.exploration.sigma_at(user_steps)}
