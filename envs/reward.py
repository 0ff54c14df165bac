"""Reward and patience of one step, as exact integers.

For c clicks in a slate of K, the slate's mean response is m = (c − 0.1·(K − c)) / K (a miss costs 0.1).

- ``mean_with_cost``: r = m (the papers' reward on ML-1M and KuaiRand).
- ``sweet_point``: r = 1 − |m − 0.9| (the released RL4RS environment; not monotone in clicks).

Patience starts at 20 and falls by (1 − r)·K + 1 each step; below 1 the user leaves. Both rewards make
the fall a whole number of tenths, 11·(K − c) + 10 and |11·c − 10·K| + 10. In float32 the sum drifts and an
all-click user leaves one step early, so patience is kept in integer tenths.
"""

from typing import Literal

import torch
from torch import Tensor

RewardName = Literal["mean_with_cost", "sweet_point"]

MISS = -0.1
"""What a slot without a response adds to a slate's mean response."""

INITIAL_PATIENCE_TENTHS = 200
LEAVE_BELOW_TENTHS = 10


def reward_table(name: RewardName, slate_size: int) -> Tensor:
    """Reward for c = 0 … K clicks: (K + 1,) float32."""
    clicks = torch.arange(slate_size + 1, dtype=torch.float64)
    mean = (clicks - 0.1 * (slate_size - clicks)) / slate_size
    reward = mean if name == "mean_with_cost" else 1.0 - (mean - 0.9).abs()
    return reward.float()


def patience_cost_table(name: RewardName, slate_size: int) -> Tensor:
    """Fall of patience for c = 0 … K clicks, in tenths: (K + 1,) int64."""
    clicks = torch.arange(slate_size + 1)
    if name == "mean_with_cost":
        return 11 * (slate_size - clicks) + 10
    return (11 * clicks - 10 * slate_size).abs() + 10


def slot_reward(click: Tensor) -> Tensor:
    """A slot's own response, float32 in the shape of ``click``: 1, or −0.1 for a miss.

    Its mean over a slate is the reward ``mean_with_cost``; under ``sweet_point`` a slot cannot know its share.
    """
    return torch.where(click, 1.0, MISS)
