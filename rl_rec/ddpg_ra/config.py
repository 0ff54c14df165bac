"""DDPG-RA's settings."""

from typing import Annotated, Literal

from pydantic import Field

from rl_rec.ddpg.config import DDPGSettings


class DDPGRASettings(DDPGSettings):
    """Everything that defines a DDPG-RA agent and how it learns."""

    item_embedding: Literal["own"] = "own"
    """The representations that are learned."""
    actor_lr: float = Field(3e-4, gt=0.0)
    """Adam's step size for encoder, hyper-actor, item encoder and inverse model."""
    inverse_hidden: tuple[Annotated[int, Field(ge=1)], ...] = (64,)
    """Units of the inverse model's hidden layers."""
    representation_weight: float = Field(1.0, gt=0.0)
    """Weight of −log P(a | s, s')."""
