"""HSRL's settings: semantic IDs, networks, losses, optimisation."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from envs.settings import LocationField, Settings
from envs.storage.location import Location
from rl_rec.encoder_settings import EncoderSettings


class HSRLSettings(Settings):
    """Everything that defines an HSRL agent and how it learns."""

    sids: LocationField | None = None
    """A folder (or URL) that ``rl-rec sids build`` wrote; ``None``: semantic IDs are built from the world's
    item features, ``sid_levels`` × ``sid_codebook``."""
    sid_levels: int = Field(3, ge=1, le=16)
    """Levels L of semantic IDs that are built here; unused with ``sids``."""
    sid_codebook: int = Field(32, ge=1, le=65_536)
    """Tokens V of each of their levels; unused with ``sids``."""

    encoder: EncoderSettings = EncoderSettings()
    """The state encoder."""
    item_hidden: int = Field(64, ge=0)
    """Hidden units of the item encoder φ and of the nodes' ψ beside their linear parts; 0 makes them linear."""
    critic_hidden: tuple[Annotated[int, Field(ge=1)], ...] = (64,)
    """Units of the hidden layers of each level's critic, first to last; on the command line ``128,64``."""
    context: Literal["sampled", "expected", "state"] = "sampled"
    """What a level sees of the levels above: the chosen tokens' residuals; the expectation over tokens (the
    published code); or the state alone (−HPN)."""
    node_scores: bool = True
    """Score nodes by the features below them too; off: one head per level for all prefixes (the paper's)."""
    temperature: float = Field(0.3, gt=0.0)
    """Scores per unit of log-probability; lower explores less."""
    sigma: float = Field(0.0, ge=0.0)
    """Standard deviation of Gaussian noise on each component of μ(s) in rollouts, one draw for all slots of a
    slate: they explore together, and what a whole slate of a kind leads to is seen. It is part of the behaviour
    whose probabilities are stored."""
    beam_width: int = Field(64, ge=1)
    """Prefixes kept per level while the best slate is searched, K at least; more finds better items."""
    rank: Literal["score", "probability"] = "score"
    """By what the items that beam search finds are put in order: own score, or joint probability."""

    gamma: float = Field(0.0, ge=0.0, lt=1.0)
    """Discount γ. Differs from the paper (0.9): what comes after is the same for all slots of a slate, and in
    worlds where a user's tastes do not depend on what was shown it is noise to each of them."""
    credit: Literal["level", "aggregate"] = "level"
    """``level``: each level's advantage is y − V_{l−1}(c_{l−1}); ``aggregate``: one, y − V(s), for all."""
    credit_unit: Literal["slot", "slate"] = "slot"
    """``slot``: each slot is credited with its own response, which needs γ = 0; ``slate``: all with the slate's
    reward and what follows."""
    multi_level_critic: bool = True
    """Off: one critic on the state (−MLC)."""
    level_value_weight: float = Field(1.0, ge=0.0)
    """Weight of each level's own regression on y. The paper trains the weighted sum alone (0)."""
    exclusions: Literal["slots", "history", "off"] = "slots"
    """What the normaliser of a slot's probability leaves out: items that may not be shown and the slots before
    it; the former only; or nothing."""
    ratio_max: float = Field(1.0, gt=0.0)
    """Importance ratios are cut off above this; more learns more from tokens that have become likelier."""

    residual: float = Field(0.0, ge=0.0, le=10.0)
    """ρ of two heads, μ(s) = z_c + Δ, ‖Δ‖ ≤ ρ·‖z_c‖: supervision moves z_c alone, the policy gradient Δ alone.
    0: one head for both. For worlds in which planning pays (``world.dynamics``)."""
    policy_weight: float = Field(0.3, ge=0.0)
    """Weight of the policy gradient."""
    entropy_weight: float = Field(0.01, ge=0.0)
    """β, weight of the mean entropy over valid tokens. Differs from the paper (0.1)."""
    cloning_weight: float = Field(0.0, ge=0.0)
    """Weight of −log π of clicked items (behaviour cloning)."""
    supervision_weight: float = Field(1.0, ge=0.0)
    """Weight of the cross-entropy of each shown item's score against its response."""
    value_scale: float | None = Field(None, gt=0.0)
    """Supervise what slots are worth instead of positive responses: the value that no item exceeds in
    expectation. For rewards in money, of which responses say little; ``None``: responses."""
    consistency_weight: float = Field(1.0, ge=0.0)
    """Weight of the loss that keeps nodes in proportion to the items below them."""

    residual_lr: float = Field(1e-3, gt=0.0)
    """Adam's step size for Δ: faster, it follows the noise of the policy gradient."""
    actor_lr: float = Field(5e-3, gt=0.0)
    """Adam's step size for encoder, policy and item encoder; it falls to zero over the run (``lr_final``)."""
    critic_lr: float = Field(1e-3, gt=0.0)
    """Adam's step size for the critics and ω."""
    tau: float = Field(0.01, gt=0.0, le=1.0)
    """Share of the new weights in each target update."""

    @model_validator(mode="after")
    def _check_credit(self) -> Self:
        if self.credit_unit == "slot" and self.gamma:
            raise ValueError(
                "agent.credit_unit=slot credits a slot with its own response, of which the reward is the mean: "
                "what follows would count K times too little. Set agent.credit_unit=slate or agent.gamma=0"
            )
        return self

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        if self.residual and not (self.consistency_weight and self.supervision_weight):
            raise ValueError(
                "agent.residual: supervision teaches items, consistency the nodes above them: "
                "set agent.supervision_weight and agent.consistency_weight above 0"
            )
        return self

    @field_validator("sids")
    @classmethod
    def _absolute(cls, place: Location | None) -> Location | None:
        """Where the command was given: Tune's trials run in folders of their own."""
        return place.expanduser().absolute() if isinstance(place, Path) else place
