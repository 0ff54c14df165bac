"""A2C's settings."""

from pydantic import Field, model_validator
from typing_extensions import Self

from rl_rec.scoring.config import ActorCriticSettings, ExplorationSettings


class A2CSettings(ActorCriticSettings):
    """Everything that defines an A2C agent and how it learns."""

    exploration: ExplorationSettings = ExplorationSettings(sigma=0.0, temperature=1.0)
    """The stochastic policy: draws from the softmax of the scores at this temperature."""
    actor_lr: float = Field(5e-3, gt=0.0)
    """Adam's step size for encoder, hyper-actor and item encoder."""
    policy_weight: float = Field(1.0, gt=0.0)
    """Weight of the policy gradient."""
    entropy_weight: float = Field(0.01, ge=0.0)
    """Weight of the entropy of π over the items."""
    ratio_max: float = Field(1.0, gt=0.0)
    """Importance ratios are cut off above this; more learns more from items that have become likelier."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.exploration.sigma or self.exploration.sigma_final or self.exploration.effect != "categorical":
            raise ValueError(
                "the policy is a softmax over items, whose probabilities are stored: set "
                "agent.exploration.sigma=0 and agent.exploration.effect=categorical"
            )
        return self
