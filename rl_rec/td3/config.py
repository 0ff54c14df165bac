"""TD3's settings."""

from typing import Literal

from pydantic import Field

from rl_rec.ddpg.config import DDPGSettings


class TD3Settings(DDPGSettings):
    """Everything that defines a TD3 agent and how it learns."""

    item_embedding: Literal["own", "tokens"] = "tokens"
    """As DDPG's."""
    target_noise: float = Field(0.2, ge=0.0)
    """Standard deviation of the noise on the target policy's hyper-action."""
    target_noise_clip: float = Field(0.5, ge=0.0)
    """That noise is cut off at ± this."""
    policy_delay: int = Field(2, ge=1)
    """Updates of the critics for each of the policy and the targets."""
