"""Wolpertinger's settings."""

from pydantic import Field

from rl_rec.scoring.config import ActorCriticSettings, ExplorationSettings


class WolpertingerSettings(ActorCriticSettings):
    """Everything that defines a Wolpertinger agent and how it learns."""

    exploration: ExplorationSettings = ExplorationSettings(temperature=0.1)
    """Behaviour of the rollouts; the temperature is that of draws by Q among the neighbours."""
    neighbours: int = Field(256, ge=1)
    """Items next to the proto-action among which the critic chooses; at least a slate's."""
    policy_weight: float = Field(1.0, gt=0.0)
    """Weight of −Q(s, μ(s))."""
    critic_lr: float = Field(3e-3, gt=0.0)
    """Adam's step size for the critic."""
