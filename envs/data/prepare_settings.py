"""How logs become a dataset: the settings of every source."""

from typing import Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from envs.data.advertising import AdvertisingSettings
from envs.data.synthetic import SyntheticSettings
from envs.settings import Settings


class PrepareSettings(Settings):
    """How logs become a dataset."""

    slate_size: int | None = Field(None, ge=1, le=1000)
    """Exposures per session (K). None leaves it to the source: 9 for RL4RS, whose pages show nine; in own logs
    with pages what holds 99% of them whole (100 at most); else 10."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of the split, the factors and the drawn worlds."""
    validation_fraction: float = Field(0.1, ge=0.0, lt=1.0)
    """Share of the users held out for choosing between models."""
    test_fraction: float = Field(0.2, ge=0.0, lt=1.0)
    """Share of the users held out for the final numbers."""
    factors: int | None = Field(None, ge=0, le=4096)
    """Factors of the training users' likes that join the item features; 0 adds none. None leaves the choice
    to the source: 24 for MovieLens and KuaiRand, where genres or tags alone make items alike, 16 for own
    logs without item features, 0 where the features say enough: RL4RS, own ones and the synthetic world."""
    popularity: bool = False
    """Whether how often training users met each item, and how they responded, joins the item features. On
    ML-100K it lowers the response model's log-loss by 0.005 and brings a constant ranking near the oracle."""
    positive_above: float = Field(3.0, ge=-1e9, le=1e9)
    """A rating above this is positive, in MovieLens and own logs with ratings; raising it makes likes rarer."""
    max_categories: int = Field(50, ge=1, le=4096)
    """Values of a category or list with a feature of their own, the most frequent ones; the rest share one."""
    rl4rs_log: Literal["a_rl", "a_sl", "b_rl", "b_sl"] | None = None
    """Which log of RL4RS to read; None takes the only one there is, or b_rl."""
    kuairand_behaviours: tuple[str, ...] = ()
    """Which of KuaiRand's behaviours to keep beside is_click, e.g. ``long_view,is_like``; all where none is
    named. One that too few users showed, as hates in a small sample, cannot be fitted."""
    synthetic: SyntheticSettings = SyntheticSettings()
    """The world that the source ``synthetic`` draws."""
    advertising: AdvertisingSettings = AdvertisingSettings()
    """The world that the source ``advertising`` draws."""

    @model_validator(mode="after")
    def _check_fractions(self) -> Self:
        held_out = self.validation_fraction + self.test_fraction
        if held_out >= 1.0:
            raise ValueError(
                f"validation_fraction + test_fraction is {held_out:g}, expected below 1: "
                f"lower one of them so that training users remain"
            )
        return self
