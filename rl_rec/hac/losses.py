"""HAC's losses: one shared forward pass, each gradient led to its own parameters by ``detach``.

Equations are those of Liu et al., WWW 2023 (arXiv 2302.03431), sections 3 and 4.
Glossary: B transitions, K slate size, N items, D width.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from envs.transition import Observation
from rl_rec.hac.config import HACSettings
from rl_rec.hac.networks import HACNetworks
from rl_rec.scoring.losses import (
    WorldView,
    bellman_target,
    policy_loss,
    supervision_loss,
    supervision_target,
    td_loss,
)
from rl_rec.scoring.networks import CatalogueTables, inverse
from rl_rec.slates import top_k
from rl_rec.transitions import Transitions

TD, POLICY, ALIGNMENT, SUPERVISION = "td", "policy", "alignment", "supervision"


class Predictions(NamedTuple):
    """Everything the losses need, from one forward pass."""

    q: Tensor
    """(B,) Q(s, Ẑ(a)); gradient to the critic alone."""
    target: Tensor
    """(B,) y, without gradient."""
    policy_q: Tensor
    """(B,) Q(s, μ(s)); gradient to encoder and hyper-actor through the action alone."""
    mu: Tensor
    """(B, D) μ(s), or its part z_c where the actor has two heads."""
    inverse: Tensor
    """(B, D) Ẑ(a), without gradient."""
    slot_logits: Tensor
    """(B, K) f_μ(a_k) + level."""


def predict(
    networks: HACNetworks,
    targets: HACNetworks,
    batch: Transitions,
    world: WorldView,
    settings: HACSettings,
    noise: torch.Generator | None = None,
) -> Predictions:
    """Run networks and targets on a batch. States are encoded anew from the stored observation.

    Args:
        networks: the learned weights.
        targets: the slowly following copy.
        batch: B transitions.
        world: what is known of the world.
        settings: which action the critic and the policy loss use.
        noise: generator for dropout.
    """
    now, afterwards = world.observations(batch)
    user, user_next = batch.user_inputs(world.profiles)
    tables = networks.tables(world.item_features)
    state = networks.state(tables, user, batch.history, noise)
    view = networks.view(state, user)
    mu, supervised = networks.actions(state, view)  # (B, D) each
    slate_phi = F.embedding(batch.slate, tables.phi)  # (B, K, D)
    # Differs from the paper: alignment moves the hyper-actor only (moving φ too has the solution φ = 0), and
    # the critic reads the state without shaping it.
    z_hat = inverse(slate_phi).detach()

    if settings.critic_action == "effect":
        played = z_hat
    else:
        assert batch.hyper_action is not None
        played = batch.hyper_action
    q = networks.critic(view, played)

    if settings.policy_weight == 0:
        policy_q = torch.zeros_like(q)
    else:
        proposed = mu
        if settings.policy_action == "soft_effect":
            proposed = _soft_effect(networks, mu, tables, world, now, batch.slate.shape[1], settings)
        policy_q = networks.critic(view, proposed, frozen=True)

    return Predictions(
        q=q,
        target=td_target(targets, batch, user_next, world, afterwards, settings),
        policy_q=policy_q,
        mu=supervised,
        inverse=z_hat,
        slot_logits=networks.slot_scores(supervised, slate_phi) + networks.response_bias,
    )


@torch.no_grad()
def td_target(
    targets: HACNetworks,
    batch: Transitions,
    user: Tensor,
    world: WorldView,
    afterwards: Observation,
    settings: HACSettings,
) -> Tensor:
    """y = r + γ·(1 − terminated)·Q'(s', Ẑ(a')), a' the target policy's effect action: (B,)."""
    tables = targets.tables(world.item_features)
    state = targets.state(tables, user, batch.next_history)
    view = targets.view(state, user)
    action, _ = targets.actions(state, view)
    if settings.critic_action == "effect":
        scores = world.mask(targets.scores(action, tables), afterwards)
        action = inverse(F.embedding(top_k(scores, batch.slate.shape[1]), tables.phi))
    future = targets.critic(view, action)
    return bellman_target(batch.reward, batch.terminated, future, settings.gamma)


def losses(predictions: Predictions, batch: Transitions, settings: HACSettings) -> dict[str, Tensor]:
    """The weighted terms of HAC's objective, each a scalar; their sum is minimised.

    Returns:
        ``td``, ``policy``, ``alignment`` and ``supervision``, as far as their weights are not zero.
    """
    terms = {TD: td_loss(predictions.q, predictions.target)}
    if settings.policy_weight:
        terms[POLICY] = settings.policy_weight * policy_loss(predictions.policy_q)
    if settings.alignment_weight:
        terms[ALIGNMENT] = settings.alignment_weight * alignment_loss(predictions.mu, predictions.inverse)
    if settings.supervision_weight:
        target = supervision_target(batch, settings.value_scale)
        terms[SUPERVISION] = settings.supervision_weight * supervision_loss(predictions.slot_logits, target)
    return terms


def alignment_loss(mu: Tensor, z_hat: Tensor) -> Tensor:
    """‖μ_θ(s) − Ẑ(a)‖²: squared distance summed over D, mean over the batch."""
    return (mu - z_hat).square().sum(dim=-1).mean()


def _soft_effect(
    networks: HACNetworks,
    mu: Tensor,
    tables: CatalogueTables,
    world: WorldView,
    now: Observation,
    slate_size: int,
    settings: HACSettings,
) -> Tensor:
    """Ẑ of the slate that μ chooses, with the gradient of softmax(f_μ / temperature): (B, D).

    Differs from the paper: Q has only ever seen inverses of slates, so it is asked about one, not about a
    raw hyper-action far from all of them.
    """
    fixed = CatalogueTables(tables.tokens, tables.phi.detach())
    scores = networks.scores(mu, fixed)
    allowed = world.mask(scores.detach().clone(), now)  # in place: not on the graph
    hard = inverse(F.embedding(top_k(allowed, slate_size), fixed.phi))
    closed = allowed.isinf()
    closed &= ~closed.all(dim=1, keepdim=True)  # used-up candidates: a softmax over nothing would be NaN
    soft = (scores.masked_fill(closed, float("-inf")) / settings.policy_temperature).softmax(dim=1) @ fixed.phi
    return hard + soft - soft.detach()
