"""SlateQ's settings."""

from pydantic import Field

from rl_rec.scoring.config import ExplorationSettings, ScoringSettings


class SlateQSettings(ScoringSettings):
    """Everything that defines a SlateQ agent and how it learns."""

    exploration: ExplorationSettings = ExplorationSettings(sigma=0.0, temperature=0.05)
    """Behaviour of the rollouts."""
    actor_lr: float = Field(5e-3, gt=0.0)
    """Adam's step size for everything: choice model, values and encoder."""
    gamma: float = Field(0.5, ge=0.0, lt=1.0)
    """Discount γ."""
    choice_weight: float = Field(1.0, gt=0.0)
    """Weight of the choice model's cross-entropy."""
    tau: float = Field(0.01, gt=0.0, le=1.0)
    """Share of the new weights in each target update."""
