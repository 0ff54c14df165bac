"""What an environment is made from: one strict configuration for every agent library."""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, InstanceOf, model_validator
from typing_extensions import Self

from envs.errors import UserError
from envs.settings import LocationField, Settings
from envs.world import World
from envs.world_settings import WorldSettings

ENV_ID = "rl_rec/Slate-v0"
"""The one name of the environment, with gymnasium and with RLlib."""

ObservationName = Literal["dict", "features"]


class EnvConfig(Settings):
    """Keyword arguments of the environments, and keys of RLlib's ``env_config``."""

    simulator: LocationField | None = None
    """Simulator folder (``rl-rec simulator fit``) or URL; absolute under Tune, which changes directories."""
    world: InstanceOf[World] | None = None
    """An already loaded world, instead of ``simulator``: shared by all environments that are given it."""
    settings: WorldSettings = WorldSettings()
    """The world's rules."""
    splits: tuple[Literal["train", "validation", "test"], ...] = Field(("train",), min_length=1)
    """Which users of ``simulator`` arrive."""
    observation: ObservationName = "dict"
    """What an agent sees; see ``envs.observations``."""
    device: str = "cpu"
    """Where the tensors of ``simulator`` lie."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.simulator is None) == (self.world is None):
            raise ValueError("the environment needs either simulator (a folder) or world (a loaded one)")
        fixed = self.model_fields_set & {"splits", "device"}
        if self.world is not None and fixed:
            raise ValueError(f"{' and '.join(sorted(fixed))} cannot be changed in a loaded world")
        return self

    def open(self, device: torch.device | str | None = None) -> tuple[World, NDArray[np.object_] | None]:
        """Load the world.

        Args:
            device: where its tensors are needed; ``None``: as configured.

        Returns:
            The world, and its items' titles (N + 1,) where it comes from a folder.

        Raises:
            UserError: the folder cannot be read, or ``world`` lies on another device.
        """
        if self.world is not None:
            if device is not None and torch.device(device).type != self.world.device.type:
                raise UserError(f"world lies on {self.world.device}, it is needed on {device}: load it there")
            return self.world, None
        assert self.simulator is not None
        # A second of scikit-learn and Arrow that a loaded world does not need.
        from envs import world_folder
        from envs.data.dataset import Split

        fitted = world_folder.load(self.simulator)
        world = fitted.world([Split[name.upper()] for name in self.splits], device or self.device)
        return world, fitted.dataset.item_titles
