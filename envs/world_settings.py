"""The rules of a world: what is rewarded, when users leave, and what of the catalogue may be shown."""

from typing import Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from envs.budgets import BudgetSettings
from envs.catalogue import CatalogueSettings
from envs.dynamics import DynamicsSettings
from envs.reward import RewardName
from envs.settings import Settings


class WorldSettings(Settings):
    """The rules of the world in which users are served."""

    reward: RewardName = "mean_with_cost"
    """Reward of one step; see ``envs.reward``."""
    weights: dict[str, float] = Field({})
    """What each behaviour is worth, in whole thousandths, e.g. ``world.weights.is_like=0.5``; by default the
    positive response is worth 1 and the others nothing. Where items move money, per unit of it: with ads
    ``world.weights.click=-0.5 world.weights.conversion=1`` is the conversions' value less half the cost."""
    miss: float = Field(-0.1, ge=-1000.0, le=1000.0)
    """What a slot without the positive response is worth, in whole thousandths; 0 suits rewards in money."""
    leaving: Literal["reward", "clicks", "never"] = "reward"
    """What users lose patience by: the reward; positive responses alone, as if each were worth 1 and a miss
    -0.1 (what they cost somebody else does not annoy them); or nothing: all stay for ``max_steps``."""
    repeats: Literal["forbid", "allow"] = "forbid"
    """``forbid``: items in the user's history window cannot be shown again; ``allow``: as in the papers."""
    start_history: Literal["logged", "empty"] = "logged"
    """``logged``: a user starts with what they liked before a random logged session; ``empty``: with none."""
    candidates: int | None = Field(None, ge=1)
    """Size C of a candidate set drawn for each arriving user; ``None``: the whole catalogue."""
    candidates_per: Literal["user", "request"] = "user"
    """``user``: a set for the whole episode; ``request``: a new one at every step."""
    retrieval: float = Field(0.0, ge=0.0, le=100.0)
    """How well candidates suit the user: they are drawn without replacement with probability proportional to
    exp(retrieval · logit of the fitted positive response); 0: uniformly."""
    budgets: BudgetSettings = BudgetSettings()
    """What items may spend; what has no budget left is not retrieved. See ``envs.budgets``."""
    history_length: int = Field(50, ge=1)
    """Length H of the history window."""
    max_steps: int = Field(20, ge=1)
    """Steps after which an episode is truncated."""
    uncertainty_penalty: float = Field(0.0, ge=0.0, le=1000.0)
    """What a unit of the ensemble's uncertainty takes from a slot's value (to thousandths): above 0, showing
    what the logs say little about costs reward and patience. Needs a simulator with an ensemble, each of whose
    models then takes part in every step."""
    catalogue: CatalogueSettings = CatalogueSettings()
    """Which items are live, and how that changes while the world runs; see ``envs.catalogue``."""
    dynamics: DynamicsSettings = DynamicsSettings()
    """Long-term effects of what is shown; see ``envs.dynamics``."""
    signals: bool = False
    """Whether agents observe running averages of clicks and of what was shown; see ``envs.signals``."""

    @model_validator(mode="after")
    def _check_retrieval(self) -> Self:
        wants = {
            "retrieval": self.retrieval,
            "candidates_per=request": self.candidates_per == "request",
            "budgets.clicks": self.budgets.clicks,
        }
        for name, wanted in wants.items():
            if wanted and self.candidates is None:
                raise ValueError(f"{name} needs sets of candidates: set candidates, e.g. to 200")
        return self
