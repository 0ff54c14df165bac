"""Wolpertinger's settings."""

from pydantic import Field

from rl_rec.scoring.config import ActorCriticSettings


class WolpertingerSettings(ActorCriticSettings):
    """Everything that defines a Wolpertinger agent and how it learns."""

    neighbours: int = Field(64, ge=1)
    """Items next to the proto-action among which the critic chooses; at least a slate's."""
    policy_weight: float = Field(1.0, gt=0.0)
    """Weight of −Q(s, μ(s))."""
