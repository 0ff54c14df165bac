"""Settings that all agents with a score per item share: networks, exploration, optimisation."""

from typing import Annotated, Literal

from pydantic import Field

from envs.settings import Settings
from rl_rec.encoder_settings import EncoderSettings


class ExplorationSettings(Settings):
    """How rollouts explore: noise on the hyper-action, then a draw of the effect action."""

    sigma: float = Field(0.1, ge=0.0)
    """Standard deviation σ of the Gaussian noise on each component of the hyper-action."""
    sigma_final: float | None = Field(None, ge=0.0)
    """σ after ``sigma_steps`` user-steps, reached linearly; ``None`` keeps ``sigma``."""
    sigma_steps: int = Field(100_000, ge=1)
    """Length of the σ schedule in user-steps."""
    effect: Literal["categorical", "topk"] = "categorical"
    """``categorical``: K draws without replacement from the softmax of the scores; ``topk``: the K best."""
    temperature: float = Field(0.3, gt=0.0)
    """Temperature of the categorical draws; higher explores more."""

    def sigma_at(self, user_steps: int) -> float:
        """σ after ``user_steps`` user-steps of training."""
        if self.sigma_final is None:
            return self.sigma
        share = min(user_steps / self.sigma_steps, 1.0)
        return self.sigma + share * (self.sigma_final - self.sigma)


class ScoringSettings(Settings):
    """An agent that scores items, and how it explores."""

    encoder: EncoderSettings = EncoderSettings()
    """The state encoder."""
    item_hidden: int = Field(64, ge=0)
    """Hidden units of the item encoder φ beside its linear part; 0 makes φ linear."""
    exploration: ExplorationSettings = ExplorationSettings()
    """Behaviour of the rollouts."""
    actor_lr: float = Field(3e-3, gt=0.0)
    """Adam's step size for encoder, hyper-actor and item encoder. Differs from HAC's paper (1e-4), which
    trains far longer; it falls to zero over the run (``lr_final``)."""


class ActorCriticSettings(ScoringSettings):
    """An agent that scores items, with a critic and target networks."""

    critic_hidden: tuple[Annotated[int, Field(ge=1)], ...] = (128, 64)
    """Units of the critic's hidden layers, first to last; on the command line ``128,64``."""
    gamma: float = Field(0.9, ge=0.0, lt=1.0)
    """Discount γ."""
    critic_lr: float = Field(1e-3, gt=0.0)
    """Adam's step size for the critic."""
    tau: float = Field(0.01, gt=0.0, le=1.0)
    """Share of the new weights in each target update."""
