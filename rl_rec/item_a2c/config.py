"""Item-wise A2C's settings."""

from pydantic import Field

from rl_rec.a2c.config import A2CSettings


class ItemA2CSettings(A2CSettings):
    """Everything that defines an item-wise A2C agent and how it learns."""

    actor_lr: float = Field(3e-3, gt=0.0)
    """Adam's step size for encoder, hyper-actor and item encoder."""
    future_by_reward: float = Field(0.0, ge=0.0, le=1.0)
    """α: share of what follows a slate that is credited to its clicked items alone; the rest to all equally."""
