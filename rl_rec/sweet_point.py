"""Episodes under the reward ``sweet_point``: what can be reached at all, and whether a policy leaves its miss.

With slates of 9 or 10 one click too many costs patience: the best slate has one deliberate miss.

Glossary: B users, K slate size, N items.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from envs.reward import (
    INITIAL_PATIENCE,
    LEAVE_BELOW,
    MISS,
    UNIT,
    RewardName,
    only_clicks_count,
    patience_cost,
    slate_reward,
)
from envs.simulator import Simulator
from envs.slot_weights import miss_value, slot_weights
from envs.transition import Observation
from envs.world import World
from envs.world_settings import WorldSettings
from rl_rec.slates import mask_scores


class Bound(NamedTuple):
    """An episode in which every slate gets the same number of clicks."""

    clicks: int
    steps: int
    """Until the user leaves or is cut off."""
    total: float
    """Return of the episode."""


def episode_bounds(slate_size: int, max_steps: int, reward: RewardName = "sweet_point") -> list[Bound]:
    """What an episode earns with c clicks of K at every step, for c = 0 … K, where a click is worth 1.

    Args:
        slate_size: K.
        max_steps: steps after which an episode is cut off.
        reward: of a step.
    """
    bounds = []
    for clicks in range(slate_size + 1):
        total = torch.tensor([UNIT * clicks + MISS * (slate_size - clicks)])
        cost = int(patience_cost(reward, total, slate_size))
        # The first step after which patience is below its limit.
        steps = min((INITIAL_PATIENCE - LEAVE_BELOW) // cost + 1, max_steps)
        bounds.append(Bound(clicks, steps, steps * float(slate_reward(reward, total, slate_size))))
    return bounds


def sweet_point_bounds(world: World, rules: WorldSettings) -> list[Bound] | None:
    """``episode_bounds`` where the reward is ``sweet_point`` and clicks alone decide, else ``None``."""
    plain = only_clicks_count(slot_weights(world, rules)[1:], miss_value(rules))
    plain = plain and rules.uncertainty_penalty == 0 and rules.leaving != "never"
    if rules.reward != "sweet_point" or not plain:
        return None
    return episode_bounds(world.slate_size, rules.max_steps)


def one_deliberate_miss(simulator: Simulator, observation: Observation, slate: Tensor) -> Tensor:
    """Whether exactly one item of a slate is less likely to be clicked than the median of what may be shown.

    Args:
        simulator: before it advances.
        observation: its users.
        slate: (B, K) int64. An item that may not be shown is never clicked, so it is less likely.

    Returns:
        (B,) bool.
    """
    forbid = simulator.settings.repeats == "forbid"
    p = mask_scores(simulator.probabilities().clone(), observation, forbid)  # (B, N + 1), -inf: not to be shown
    own = p.gather(1, slate.clamp(0, simulator.world.num_items))
    own = own.masked_fill(~simulator.may_show(slate), float("-inf"))
    lowest = own.sort(dim=1).values[:, :2]  # (B, 2): one miss, and no second one
    may = ~p.isinf()
    middle = (may.sum(dim=1) - 1) // 2  # place of the median, the lower one of two, in ascending order
    # Below the median are those with so few items up to them; nothing is sorted, catalogues are large.
    below = torch.stack(
        [((p <= value[:, None]) & may).sum(dim=1) <= middle for value in lowest.unbind(dim=1)], dim=1
    )
    return below[:, 0] & (~below[:, 1] if below.shape[1] > 1 else True)
