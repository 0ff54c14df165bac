"""Reward and patience of one step, as exact integers.

A slot is worth the weights of what the user did with it, times the money that moves with this item (1, or an
ad's bid and the value of its conversion), less 0.1 where the positive response is missing; m is the mean of a
slate's slots. With one behaviour of weight 1 and c clicks, m = (c − 0.1·(K − c)) / K.

- ``mean_with_cost``: r = m (the papers' reward on ML-1M and KuaiRand).
- ``sweet_point``: r = 1 − |m − 0.9| (the released RL4RS environment; not monotone in clicks).

Patience starts at 20 and falls by (1 − r)·K + 1 each step; below 1 the user leaves. In float32 the sum drifts
and an all-click user leaves one step early, so slots, slates and patience are counted in whole thousandths.
"""

from typing import Literal

import torch
from torch import Tensor

RewardName = Literal["mean_with_cost", "sweet_point"]

UNIT = 1000
"""What a reward of one and a unit of patience are counted as."""
MISS = -100
"""What a slot without the positive response adds by default, in thousandths."""
INITIAL_PATIENCE = 20 * UNIT
LEAVE_BELOW = UNIT
_SWEET_POINT = 900


def slot_values(response: Tensor, weights: Tensor, miss: int = MISS) -> Tensor:
    """What each slot is worth, in thousandths.

    Args:
        response: (..., A) bool; behaviour 0 is the positive response.
        weights: int64, thousandths of each behaviour: (A,), or (..., A) where they are each item's own.
        miss: thousandths of a slot without the positive response.

    Returns:
        (...,) int64.
    """
    return (response * weights).sum(dim=-1) + miss * ~response[..., 0]


def only_clicks_count(weights: Tensor, miss: int = MISS) -> bool:
    """Whether a slot is worth 1 with the positive response and −0.1 without, and nothing else matters.

    Args:
        weights: (..., A) as in ``slot_values``.
        miss: as in ``slot_values``.
    """
    first = torch.arange(weights.shape[-1], device=weights.device) == 0
    return miss == MISS and bool((weights == UNIT * first).all())


def slate_reward(name: RewardName, total: Tensor, slate_size: int | Tensor) -> Tensor:
    """Reward of slates whose slots are worth ``total`` (B,) thousandths together: (B,) float32.

    ``slate_size`` is K, or (B,) how many slots of each slate count.
    """
    mean = total.double() / (UNIT * slate_size)
    return (mean if name == "mean_with_cost" else 1.0 - (mean - _SWEET_POINT / UNIT).abs()).float()


def patience_cost(name: RewardName, total: Tensor, slate_size: int) -> Tensor:
    """How far patience falls, in thousandths: (B,) int64; ``total`` as in ``slate_reward``."""
    if name == "mean_with_cost":
        return UNIT * (slate_size + 1) - total
    return (total - _SWEET_POINT * slate_size).abs() + UNIT


def best_clicks(name: RewardName, slate_size: int, miss: int = MISS) -> int:
    """How many clicks of K earn the most, where a click is worth 1: all of them, but for ``sweet_point``."""
    clicks = torch.arange(slate_size + 1)
    totals = UNIT * clicks + miss * (slate_size - clicks)
    return int(slate_reward(name, totals, slate_size).argmax())


def slot_reward(click: Tensor) -> Tensor:
    """A slot's own response, float32 in the shape of ``click``: 1, or −0.1 for a miss.

    Its mean over a slate is the reward ``mean_with_cost``; under ``sweet_point`` a slot cannot know its share.
    """
    return torch.where(click, 1.0, MISS / UNIT)
