"""SlateQ as an RLlib algorithm: ``SlateQConfig`` and ``SlateQ``."""

from ray.rllib.algorithms.algorithm import Algorithm

from rl_rec.algorithm import OffPolicyConfig
from rl_rec.scoring.algorithm import ScoringAlgorithm
from rl_rec.slateq.config import SlateQSettings
from rl_rec.slateq.rl_module import SlateQModule
from rl_rec.train_settings import TrainSettings


class SlateQConfig(OffPolicyConfig):
    """Configuration of SlateQ; ``settings`` is a ``TrainSettings[SlateQSettings]`` as plain data."""

    settings_class = TrainSettings[SlateQSettings]
    module_class = SlateQModule

    def __init__(self, algo_class: type[Algorithm] | None = None) -> None:
        super().__init__(algo_class=algo_class or SlateQ)


class SlateQ(ScoringAlgorithm):
    """Q-learning with slate decomposition."""

    config_class = SlateQConfig
