"""What the slots of a world are worth, from its rules and its items' money, in thousandths.

Glossary: N items, A behaviours.
"""

import torch
from torch import Tensor

from envs.errors import UserError
from envs.reward import UNIT
from envs.world import World
from envs.world_settings import WorldSettings


def slot_weights(world: World, settings: WorldSettings) -> Tensor:
    """What each behaviour is worth with each item, in thousandths: (N + 1, A) int64, on the CPU.

    Raises:
        UserError: as of ``behaviour_weights``.
    """
    weights = behaviour_weights(world, settings)
    return (world.money.cpu().double() * weights).round().long()


def miss_value(settings: WorldSettings) -> int:
    """What a slot without the positive response is worth, in thousandths.

    Raises:
        UserError: not a whole number of thousandths.
    """
    if abs(settings.miss * UNIT - round(settings.miss * UNIT)) > 1e-6:
        raise UserError(f"world.miss is {settings.miss:g}, expected thousandths")
    return round(settings.miss * UNIT)


def behaviour_weights(world: World, settings: WorldSettings) -> Tensor:
    """What each behaviour is worth, in thousandths: (A,) int64, on the CPU.

    Raises:
        UserError: a weight of no behaviour of this world, or one that is not a whole number of thousandths.
    """
    names = [behaviour.name for behaviour in world.behaviours]
    weights = {names[0]: 1.0, **settings.weights}
    for name, weight in weights.items():
        if name not in names:
            raise UserError(
                f"world.weights.{name}: there is no such behaviour; this world has {', '.join(names)}"
            )
        if abs(weight * UNIT - round(weight * UNIT)) > 1e-6 or abs(weight) > 1000:
            raise UserError(f"world.weights.{name} is {weight:g}, expected thousandths within -1000 … 1000")
    return torch.tensor([round(weights.get(name, 0.0) * UNIT) for name in names])
