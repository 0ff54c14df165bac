"""Wolpertinger's losses, on slates.

Equations are those of Dulac-Arnold et al. (arXiv 1512.07679), section 4. A slate is not one action there:
here every slot is, with its own response, and the slate's value is the mean of its slots'.
Glossary: B transitions, K slate size, D width.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from envs.transition import Observation
from rl_rec.scoring.losses import WorldView, bellman_target, policy_loss, td_loss
from rl_rec.transitions import Transitions
from rl_rec.wolpertinger.config import WolpertingerSettings
from rl_rec.wolpertinger.networks import WolpertingerNetworks, nearness

TD, POLICY = "td", "policy"


class Predictions(NamedTuple):
    """Everything the losses need, from one forward pass."""

    q: Tensor
    """(B, K) Q(s, a_k); gradient to the critic and the item encoder."""
    target: Tensor
    """(B, K) y_k, without gradient."""
    policy_q: Tensor
    """(B,) Q(s, μ(s)); gradient to encoder and proto-actor through the action alone."""


def predict(
    networks: WolpertingerNetworks,
    targets: WolpertingerNetworks,
    batch: Transitions,
    world: WorldView,
    settings: WolpertingerSettings,
    noise: torch.Generator | None = None,
) -> Predictions:
    """Run networks and targets on a batch; arguments as ``rl_rec.ddpg.losses.predict``."""
    _, afterwards = world.observations(batch)
    user, user_next = batch.user_inputs(world.profiles)
    tables = networks.tables(world.item_features)
    state = networks.state(tables, user, batch.history, noise)
    fixed = state.detach()  # the critic reads the state without shaping it
    return Predictions(
        q=networks.item_values(fixed, F.embedding(batch.slate, tables.phi)),
        target=td_target(targets, batch, user_next, world, afterwards, settings),
        policy_q=networks.critic(fixed, networks.hyper_actor(state), frozen=True),
    )


@torch.no_grad()
def td_target(
    targets: WolpertingerNetworks,
    batch: Transitions,
    user: Tensor,
    world: WorldView,
    afterwards: Observation,
    settings: WolpertingerSettings,
) -> Tensor:
    """y_k = g_k + γ·(1 − terminated)·mean_j Q'(s', a'_j), a' the target policy's slate: (B, K)."""
    tables, slots = targets.tables(world.item_features), batch.slate.shape[1]
    state = targets.state(tables, user, batch.next_history)
    near = world.mask(nearness(targets.hyper_actor(state), tables.phi), afterwards)
    _, values = targets.best_neighbours(state, near, tables.phi, max(settings.neighbours, slots))
    best = values.topk(slots, dim=1).values
    # Candidates may be used up: a slot without an item is worth nothing.
    future = best.masked_fill(best.isinf(), 0.0).mean(dim=1, keepdim=True)
    return bellman_target(world.slot_rewards(batch), batch.terminated, future, settings.gamma)


def losses(predictions: Predictions, settings: WolpertingerSettings) -> dict[str, Tensor]:
    """The terms ``td`` and ``policy``, each a scalar; their sum is minimised."""
    return {
        TD: td_loss(predictions.q, predictions.target),
        POLICY: settings.policy_weight * policy_loss(predictions.policy_q),
    }
