"""HAC's settings: networks, losses, exploration, optimisation."""

from typing import Annotated, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

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


class HACSettings(Settings):
    """Everything that defines a HAC agent and how it learns."""

    encoder: EncoderSettings = EncoderSettings()
    """The state encoder."""
    item_hidden: int = Field(64, ge=0)
    """Hidden units of the item encoder φ beside its linear part; 0 makes φ linear."""
    critic_hidden: tuple[Annotated[int, Field(ge=1)], ...] = (128, 64)
    """Units of the critic's hidden layers, first to last; on the command line ``128,64``."""
    scorer: Literal["dot", "hyper_network"] = "dot"
    """``dot``: f_Z(i) = Z·φ(x_i); ``hyper_network``: Z becomes the weights of a small MLP over φ(x_i)."""
    scorer_hidden: int = Field(4, ge=1)
    """Hidden units of the hyper-network's MLP scorer."""
    exploration: ExplorationSettings = ExplorationSettings()
    """Behaviour of the rollouts."""

    gamma: float = Field(0.9, ge=0.0, lt=1.0)
    """Discount γ."""
    critic_action: Literal["effect", "hyper"] = "effect"
    """What the critic scores in TD learning: the inverse Ẑ(a) of the slate, or Z itself (DDPG)."""
    policy_action: Literal["hyper", "soft_effect"] = "soft_effect"
    """What the policy loss feeds the critic: μ(s), or the inverse of the slate that μ(s) chooses, with the
    gradient of a softmax over the scores."""
    policy_temperature: float = Field(0.5, gt=0.0)
    """Temperature of that softmax."""
    policy_weight: float = Field(0.02, ge=0.0)
    """Weight of L_π = −Q; too large collapses to a few items."""
    alignment_weight: float = Field(0.01, ge=0.0)
    """λ_h, weight of ‖μ(s) − Ẑ(a)‖². Differs from the paper (0.1), where Q is asked about μ(s) itself."""
    supervision_weight: float = Field(1.0, ge=0.0)
    """λ_b, weight of the cross-entropy of each slot's score against its response."""

    actor_lr: float = Field(3e-3, gt=0.0)
    """Adam's step size for encoder, hyper-actor and item encoder. Differs from the paper (1e-4), which trains
    far longer; it falls to zero over the run (``lr_final``)."""
    critic_lr: float = Field(1e-3, gt=0.0)
    """Adam's step size for the critic."""
    tau: float = Field(0.01, gt=0.0, le=1.0)
    """Share of the new weights in each target update."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.critic_action == "hyper" and self.policy_action == "soft_effect" and self.policy_weight:
            raise ValueError(
                "agent.critic_action=hyper trains the critic on hyper-actions, agent.policy_action=soft_effect "
                "asks it about slates: set agent.policy_action=hyper too"
            )
        return self
