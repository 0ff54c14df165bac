"""Losses that several agents share, and what a batch is read in.

Glossary: B transitions, K slate size, N items, D width.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from envs.catalogue import Catalogue
from envs.reward import RewardName
from envs.transition import Observation
from rl_rec.slates import mask_scores
from rl_rec.transitions import Transitions


class WorldView(NamedTuple):
    """What an agent knows of its world beside the transitions."""

    profiles: Tensor
    """(U, P) profile features of all users."""
    item_features: Tensor
    """(N + 1, F) features of the catalogue, row 0 zeros."""
    forbid_repeats: bool
    """Whether items in the history window may not be shown."""
    catalogue: Catalogue | None = None
    """Which items are live; ``None``: all."""
    reward: RewardName = "mean_with_cost"
    """Reward of one step."""

    def observations(self, batch: Transitions) -> tuple[Observation, Observation]:
        """What the slates of a batch were chosen from, and what the next ones are."""
        live, next_live = (None, None) if self.catalogue is None else self.catalogue.live_in_batch(batch.clock)
        after = batch.candidates if batch.next_candidates is None else batch.next_candidates
        return (
            Observation(batch.user, batch.history, batch.candidates, live),
            Observation(batch.user, batch.next_history, after, next_live),
        )

    def slot_rewards(self, batch: Transitions) -> Tensor:
        """What each slot is credited with, whose mean is the reward: (B, K).

        Its own response; where a slot cannot know its share (``sweet_point``), the slate's reward.
        """
        if self.reward == "mean_with_cost":
            return batch.slot_values
        return batch.reward[:, None].expand(-1, batch.click.shape[1])

    def mask(self, scores: Tensor, observation: Observation) -> Tensor:
        """Scores (B, N + 1) with −inf, in place, where an item may not be shown."""
        return mask_scores(scores, observation, self.forbid_repeats)


def bellman_target(reward: Tensor, terminated: Tensor, future: Tensor, gamma: float) -> Tensor:
    """y = r + γ·(1 − terminated)·future: (B,), or (B, K) where reward and future are each slot's own."""
    if reward.dim() > 1:
        terminated = terminated[:, None]
    return reward + gamma * torch.where(terminated, 0.0, future)


def td_loss(value: Tensor, target: Tensor) -> Tensor:
    """(Q − y)², mean over the batch."""
    return F.mse_loss(value, target)


def policy_loss(q: Tensor) -> Tensor:
    """L_π = −Q(s, μ_θ(s)), mean over the batch."""
    return -q.mean()


def supervision_loss(logits: Tensor, target: Tensor) -> Tensor:
    """BCE(f_Z(a_k), y_k), mean over batch and slots."""
    return F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype))


def supervision_target(batch: Transitions, value_scale: float | None) -> Tensor:
    """What each slot's score is taught (B, K): its response, or ½ + v/(2·scale) for its value v.

    Differs from the paper, which knows responses alone: where rewards are money, they say little about them.
    The cross-entropy's gradient σ(f) − y is linear in y, so that σ(f) learns the mean of y: single values may
    be outside −scale … scale as long as expected ones are inside.
    """
    if value_scale is None:
        return batch.click
    return 0.5 + batch.slot_values / (2 * value_scale)
