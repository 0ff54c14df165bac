"""HAC's losses: one shared forward pass, each gradient led to its own parameters by ``detach``.

Equations are those of Liu et al., WWW 2023 (arXiv 2302.03431), sections 3 and 4.
Glossary: B transitions, K slate size, N items, D width.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from envs.catalogue import Catalogue
from envs.simulator import Observation
from rl_rec.hac.config import HACSettings
from rl_rec.hac.networks import HACNetworks
from rl_rec.scoring.networks import CatalogueTables, inverse
from rl_rec.slates import mask_scores, top_k
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
    """(B, D) μ(s)."""
    inverse: Tensor
    """(B, D) Ẑ(a), without gradient."""
    slot_logits: Tensor
    """(B, K) f_μ(a_k) + level."""


def predict(
    networks: HACNetworks,
    targets: HACNetworks,
    batch: Transitions,
    profiles: Tensor,
    item_features: Tensor,
    forbid_repeats: bool,
    settings: HACSettings,
    noise: torch.Generator | None = None,
    catalogue: Catalogue | None = None,
) -> Predictions:
    """Run networks and targets on a batch. States are encoded anew from the stored observation.

    Args:
        networks: the learned weights.
        targets: the slowly following copy.
        batch: B transitions.
        profiles: (U, P) profile features of all users.
        item_features: (N + 1, F) features of the catalogue, row 0 zeros.
        forbid_repeats: whether items in the history window may not be shown.
        settings: which action the critic and the policy loss use.
        noise: generator for dropout.
        catalogue: which items are live; ``None``: all.
    """
    live, next_live = (None, None) if catalogue is None else catalogue.live_in_batch(batch.clock)
    profile = F.embedding(batch.user, profiles)
    tables = networks.tables(item_features)
    state = networks.state(tables, profile, batch.history, noise)
    mu = networks.hyper_actor(state)  # (B, D)
    slate_phi = F.embedding(batch.slate, tables.phi)  # (B, K, D)
    # Differs from the paper: alignment moves the hyper-actor only (moving φ too has the solution φ = 0), and
    # the critic reads the state without shaping it.
    z_hat = inverse(slate_phi).detach()
    fixed = state.detach()

    if settings.critic_action == "effect":
        played = z_hat
    else:
        assert batch.hyper_action is not None
        played = batch.hyper_action
    q = networks.critic(fixed, played)

    if settings.policy_weight == 0:
        policy_q = torch.zeros_like(q)
    else:
        proposed = mu
        if settings.policy_action == "soft_effect":
            observation = Observation(batch.user, batch.history, batch.candidates, live)
            proposed = _soft_effect(networks, mu, tables, observation, forbid_repeats, settings, batch)
        policy_q = networks.critic(fixed, proposed, frozen=True)

    return Predictions(
        q=q,
        target=td_target(targets, batch, profile, item_features, forbid_repeats, settings, next_live),
        policy_q=policy_q,
        mu=mu,
        inverse=z_hat,
        slot_logits=networks.slot_scores(mu, slate_phi) + networks.response_bias,
    )


@torch.no_grad()
def td_target(
    targets: HACNetworks,
    batch: Transitions,
    profile: Tensor,
    item_features: Tensor,
    forbid_repeats: bool,
    settings: HACSettings,
    live: Tensor | None = None,
) -> Tensor:
    """y = r + γ·(1 − terminated)·Q'(s', Ẑ(a')), a' the target policy's effect action: (B,).

    ``live``: (N + 1,) bool, the items that a' is chosen from; ``None``: all.
    """
    tables = targets.tables(item_features)
    state = targets.state(tables, profile, batch.next_history)
    action = targets.hyper_actor(state)
    if settings.critic_action == "effect":
        scores = targets.scores(action, tables)
        observation = Observation(batch.user, batch.next_history, batch.candidates, live)
        slate = top_k(mask_scores(scores, observation, forbid_repeats), batch.slate.shape[1])
        action = inverse(F.embedding(slate, tables.phi))
    future = targets.critic(state, action)
    return batch.reward + settings.gamma * torch.where(batch.terminated, 0.0, future)


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
        terms[SUPERVISION] = settings.supervision_weight * supervision_loss(
            predictions.slot_logits, batch.click
        )
    return terms


def td_loss(q: Tensor, target: Tensor) -> Tensor:
    """L_TD = (Q(s, Ẑ(a)) − y)², mean over the batch."""
    return F.mse_loss(q, target)


def policy_loss(q: Tensor) -> Tensor:
    """L_π = −Q(s, μ_θ(s)), mean over the batch."""
    return -q.mean()


def alignment_loss(mu: Tensor, z_hat: Tensor) -> Tensor:
    """‖μ_θ(s) − Ẑ(a)‖²: squared distance summed over D, mean over the batch."""
    return (mu - z_hat).square().sum(dim=-1).mean()


def supervision_loss(logits: Tensor, click: Tensor) -> Tensor:
    """BCE(f_Z(a_k), y_k), mean over batch and slots."""
    return F.binary_cross_entropy_with_logits(logits, click.to(logits.dtype))


def _soft_effect(
    networks: HACNetworks,
    mu: Tensor,
    tables: CatalogueTables,
    observation: Observation,
    forbid_repeats: bool,
    settings: HACSettings,
    batch: Transitions,
) -> Tensor:
    """Ẑ of the slate that μ chooses, with the gradient of softmax(f_μ / temperature): (B, D).

    Differs from the paper: Q has only ever seen inverses of slates, so it is asked about one, not about a
    raw hyper-action far from all of them.
    """
    fixed = CatalogueTables(tables.tokens, tables.phi.detach())
    scores = networks.scores(mu, fixed)
    allowed = mask_scores(scores.detach().clone(), observation, forbid_repeats)  # in place: not on the graph
    hard = inverse(F.embedding(top_k(allowed, batch.slate.shape[1]), fixed.phi))
    closed = allowed.isinf()
    closed &= ~closed.all(dim=1, keepdim=True)  # used-up candidates: a softmax over nothing would be NaN
    soft = (scores.masked_fill(closed, float("-inf")) / settings.policy_temperature).softmax(dim=1) @ fixed.phi
    return hard + soft - soft.detach()
