"""An env runner that serves nobody: its transitions are the slates of the logs."""

from typing import Any

import torch
from torch import Tensor

from envs import world_folder
from envs.errors import UserError
from envs.logged import LoggedSlates
from envs.rllib import parse_env_config
from rl_rec.env_runner import BatchedEnvRunner
from rl_rec.rollout import EpisodeStatistics


class LoggedRollout:
    """Reads as many logged slates as a ``Rollout`` would serve; no episode ever ends."""

    def __init__(self, slates: LoggedSlates, users: int, num_items: int, device: torch.device) -> None:
        self.slates, self.users = slates, users
        self.statistics = EpisodeStatistics(users, num_items, device)

    def collect(self, steps: int) -> dict[str, Tensor]:
        """Columns of ``steps`` × ``users`` logged slates."""
        return self.slates.take(steps * self.users)

    def state_dict(self) -> dict[str, Any]:
        """Where it is in the logs."""
        return {"slates": self.slates.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue bit-equal from ``state_dict``."""
        self.slates.load_state_dict(state["slates"])


class LogRunner(BatchedEnvRunner):
    """As ``BatchedEnvRunner``, with the logs of the world's users for what they would have been served."""

    def make_env(self) -> None:
        """Load the world and its logs.

        Raises:
            UserError: the world was not loaded from a folder, so that there are no logs.
        """
        super().make_env()
        world_config = parse_env_config(self.config.world_config())
        if world_config.simulator is None:
            raise UserError("learning from the logs needs env_config.simulator: a loaded world has none")
        dataset = world_folder.load(world_config.simulator).dataset
        world, rules = self._simulator.world, self._simulator.settings
        self._logged = LoggedSlates(dataset, world, rules, self._settings.seed, self._stream)

    def _use(self, module: Any) -> None:
        super()._use(module)
        world = self._simulator.world
        users = self._settings.rollout.users
        self.rollout = LoggedRollout(self._logged, users, world.num_items, world.device)
