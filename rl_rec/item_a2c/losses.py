"""Item-wise A2C's losses: A2C's, with an advantage of each item.

Equations are those of Wang et al. (arXiv 2401.16108), section 4. The advantages of a slate's items, weighted
equally, have the slate's own advantage as their mean.
Glossary: B transitions, K slate size.
"""

import torch
from torch import Tensor

from rl_rec.a2c.losses import Predictions, actor_critic_terms
from rl_rec.item_a2c.config import ItemA2CSettings
from rl_rec.scoring.losses import WorldView, bellman_target
from rl_rec.transitions import Transitions


def losses(
    predictions: Predictions, batch: Transitions, world: WorldView, settings: ItemA2CSettings
) -> dict[str, Tensor]:
    """The terms ``td``, ``policy`` and ``entropy``, each a scalar; their sum is minimised."""
    target = bellman_target(batch.reward, batch.terminated, predictions.future, settings.gamma)
    credit = advantages(predictions, batch, world, settings)
    return actor_critic_terms(predictions, batch, target, credit, settings)


def advantages(
    predictions: Predictions, batch: Transitions, world: WorldView, settings: ItemA2CSettings
) -> Tensor:
    """A_k = g_k + γ·(1 − terminated)·K·w_k·V'(s') − V(s), without gradient: (B, K)."""
    slots = batch.slate.shape[1]
    share = slots * future_weights(batch.click, settings.future_by_reward) * predictions.future[:, None]
    target = bellman_target(world.slot_rewards(batch), batch.terminated, share, settings.gamma)
    return target - predictions.value.detach()[:, None]


def future_weights(click: Tensor, by_reward: float) -> Tensor:
    """w_k, whose sum over a slate is 1: (1 − α)/K + α·y_k/Σ_j y_j, or 1/K where nothing was clicked: (B, K).

    The paper's reward-based decomposition: what was responded to is what the future comes from.
    """
    clicks = click.sum(dim=1, keepdim=True)
    equal = torch.full(click.shape, 1 / click.shape[1], device=click.device)
    clicked = torch.where(clicks > 0, click / clicks.clamp(min=1), equal)
    return torch.lerp(equal, clicked, by_reward)
