"""DDPG's settings."""

from typing import Literal

from pydantic import Field

from rl_rec.scoring.config import ActorCriticSettings, ExplorationSettings


class DDPGSettings(ActorCriticSettings):
    """Everything that defines a DDPG agent and how it learns."""

    exploration: ExplorationSettings = ExplorationSettings(sigma=0.5)
    """Behaviour of the rollouts."""
    item_embedding: Literal["own", "tokens"] = "own"
    """φ of the items that a hyper-action is compared with. ``tokens``: the state encoder's, which
    the policy's gradient moves through the state; ``own``: an item encoder, which no loss moves."""
    policy_weight: float = Field(1.0, gt=0.0)
    """Weight of L_π = −Q."""
    actor_lr: float = Field(1e-3, gt=0.0)
    """Adam's step size for encoder, hyper-actor and item encoder; slower than the critic, which it follows."""
    critic_lr: float = Field(3e-3, gt=0.0)
    """Adam's step size for the critic."""
