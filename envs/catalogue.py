"""Which items are live: a catalogue that may be born into and retire from while the world runs.

Items lie in a fixed cyclic order; the live ones are a window of constant length that slides along it. Whatever
falls out at the back is retired, as many are born at the front, and retired items return once all others had
their turn. Glossary: N items.
"""

from fractions import Fraction
from typing import Literal, overload

import torch
from pydantic import Field, model_validator
from torch import Tensor
from typing_extensions import Self

from envs.randomness import stream_seed
from envs.settings import Settings
from envs.world import World

_PARTS = 1_000_000
"""Births per step are counted in millionths of an item, so that nothing is lost over any number of steps."""


class CatalogueSettings(Settings):
    """Which items of the world are live, and how that changes with the world's clock."""

    withheld: float = Field(0.0, ge=0.0, lt=1.0)
    """Share of the items that are not yet born when the world begins; more makes the live catalogue smaller."""
    rule: Literal["random", "newest"] = "random"
    """Order in which items come and go, the last being withheld. ``random``: drawn from ``seed``; ``newest``:
    by first appearance in the logs."""
    churn: float = Field(0.0, ge=0.0, le=1.0)
    """Share of the live items that are retired at every step of the world, as many being born."""
    seed: int = Field(0, ge=0)
    """Of the random order."""
    show: Literal["live", "all", "withheld"] = "live"
    """``live``: as above; ``all``: every item is live, withheld ones too; ``withheld``: only those withheld at
    the start. The last two measure how a policy treats items that it never showed; ``churn`` must be 0."""

    @model_validator(mode="after")
    def _check_items(self) -> Self:
        if self.show != "live" and self.churn:
            raise ValueError(f"show={self.show} is a catalogue that stays as it is: set churn=0")
        if self.show == "withheld" and not self.withheld:
            raise ValueError("show=withheld needs items that are withheld: set withheld above 0")
        if _exactly(self.churn) * (1 - _exactly(self.withheld)) > _exactly(self.withheld):
            raise ValueError(
                f"churn={self.churn:g} of the live items are born at a step, more than the "
                f"withheld={self.withheld:g} of the catalogue that can be: lower churn or raise withheld"
            )
        return self


class Catalogue:
    """The live items of one world at any time, on its device. Stateless: the clock decides alone."""

    def __init__(
        self, settings: CatalogueSettings, item_age: Tensor, num_items: int, device: torch.device | str
    ) -> None:
        """Lay the items in their order.

        Args:
            settings: the schedule.
            item_age: (N + 1,) int64 rank of each item's first appearance, as in ``World``.
            num_items: N.
            device: of the masks.
        """
        self.num_items, self.device = num_items, torch.device(device)
        withheld = int(_exactly(settings.withheld) * num_items + Fraction(1, 2))
        if settings.rule == "newest":
            place = item_age.to(self.device) - 1
        else:
            # Drawn on the CPU: a world has the same schedule on every device.
            generator = torch.Generator().manual_seed(stream_seed(settings.seed, 9))
            place = torch.cat([torch.tensor([-1]), torch.randperm(num_items, generator=generator)])
        self._place = place.to(self.device)  # (N+1,) 0 … N−1, and −1 for the padding
        begin, size = {
            "live": (0, num_items - withheld),
            "all": (0, num_items),
            "withheld": (num_items - withheld, withheld),
        }[settings.show]
        self._begin = begin
        self.num_live = size
        """Items that are live, the same number at every clock."""
        births = round(_exactly(settings.churn) * size * _PARTS)
        # Apart, so that neither product leaves 64 bits for any clock of 32.
        self._whole_births, self._birth_parts = divmod(births, _PARTS)
        self.withheld: Tensor = self._place >= num_items - withheld
        """(N + 1,) bool: the new items, those not born when the world begins."""
        self.num_withheld = withheld
        """How many they are."""
        self.always_all = size == num_items
        """Whether every item is live at every clock: nothing to mask."""
        self.changes = births > 0 and not self.always_all
        """Whether the live items depend on the clock."""
        self._last: tuple[int, Tensor] | None = None

    @classmethod
    def of(cls, world: World, settings: CatalogueSettings) -> "Catalogue":
        """The catalogue of a world under these settings."""
        return cls(settings, world.item_age, world.num_items, world.device)

    def live_at(self, clock: int | Tensor) -> Tensor:
        """The live items after ``clock`` steps of the world: (N + 1,) bool, not to be changed in place.

        Args:
            clock: an int, or a 0-d integer tensor, which is not read back to the host.
        """
        if isinstance(clock, Tensor):
            return self._window(self._slid(clock.long()))
        slid = self._slid(clock) % self.num_items
        if self._last is None or self._last[0] != slid:
            self._last = (slid, self._window(slid))
        return self._last[1]

    def live_in_batch(self, clock: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """The live items for learning from a replayed batch, and those one step later; ``None``: every item.

        All rows get those of the newest one. What the world offers today is what the policy has to learn, and
        one mask serves the whole batch.

        Args:
            clock: (B,) integer, when each row's slate was shown; needed only where the catalogue changes.
        """
        if self.always_all:
            return None, None
        if not self.changes:
            return self.live_at(0), self.live_at(0)
        assert clock is not None, "rollouts in a catalogue that changes store the clock"
        newest = clock.max()
        return self.live_at(newest), self.live_at(newest + 1)

    @overload
    def _slid(self, clock: int) -> int: ...

    @overload
    def _slid(self, clock: Tensor) -> Tensor: ...

    def _slid(self, clock: int | Tensor) -> int | Tensor:
        """Items born so far: ⌊clock · births⌋."""
        return self._begin + clock * self._whole_births + clock * self._birth_parts // _PARTS

    def _window(self, slid: int | Tensor) -> Tensor:
        live = (self._place - slid) % self.num_items < self.num_live
        live[0] = False
        return live


def _exactly(share: float) -> Fraction:
    """The decimal number that was written, not the binary one nearest to it: 0.1 is a tenth."""
    return Fraction(repr(share))
