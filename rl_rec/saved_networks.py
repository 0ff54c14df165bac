"""From saved weights to networks that serve, without Ray."""

from collections.abc import Mapping
from typing import TypeVar

import torch
from numpy.typing import ArrayLike
from torch import nn

from envs.errors import UserError
from envs.world import World
from envs.world_settings import WorldSettings

NetworksT = TypeVar("NetworksT", bound=nn.Module)

_PREFIX = "networks."


def load_networks(
    networks: NetworksT, weights: Mapping[str, ArrayLike], world: World, rules: WorldSettings
) -> NetworksT:
    """Give ``networks`` the weights of a saved RLModule, on the world's device, in ``eval()`` mode.

    Args:
        networks: of the right shape.
        weights: arrays by name, with the prefix ``networks.``; others are ignored.
        world: where they are to serve.
        rules: that world's rules.

    Raises:
        UserError: the weights do not fit the world's features, its history length or the settings.
    """
    state = {k.removeprefix(_PREFIX): torch.as_tensor(v) for k, v in weights.items() if k.startswith(_PREFIX)}
    try:
        networks.load_state_dict(state)
    except RuntimeError as error:
        problem = str(error).splitlines()[-1].strip()
        raise UserError(
            f"the run's weights do not fit this simulator's features or history_length={rules.history_length}: "
            f"{problem}"
        ) from None
    return networks.to(world.device).eval()
