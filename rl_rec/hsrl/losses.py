"""HSRL's losses: one shared forward pass, each gradient led to its own parameters by ``detach``.

Equations are those of Wang et al. (arXiv 2510.09167), section 4; differences are said where they are.
Glossary: B transitions, K slate size, L levels.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rl_rec.hsrl.config import HSRLSettings
from rl_rec.hsrl.likelihood import slate_log_probs
from rl_rec.hsrl.networks import HSRLNetworks
from rl_rec.policy_gradient import masked_mean, policy_gradient_loss
from rl_rec.scoring.losses import supervision_target
from rl_rec.sids.trie import Trie
from rl_rec.transitions import Transitions

TD, POLICY, ENTROPY, CLONING = "td", "policy", "entropy", "cloning"
SUPERVISION, CONSISTENCY = "supervision", "consistency"


class Predictions(NamedTuple):
    """Everything the losses need, from one forward pass."""

    log_prob: Tensor
    """(B, K, L + 1) log π of each slot's tokens, exclusions left out of the normaliser."""
    values: Tensor
    """(B, K, L + 1) V_l(c_l), gradient to the critic alone; one level without a multi-level critic."""
    weights: Tensor
    """(L + 1,) w = softmax(ω), gradient to ω."""
    future: Tensor
    """(B,) V'(s'), without gradient."""
    entropy: Tensor
    """(B, K) mean over levels of H(π_l)."""
    response_logits: Tensor
    """(B, K) of the supervised loss."""
    gap: Tensor
    """(B, K) log π − score of each slot's item, gradient to what nodes have besides their items; zero where
    the consistency loss is off."""
    valid: Tensor
    """(B, K) bool: the slot held an item that could be shown, and still can."""


def predict(
    networks: HSRLNetworks,
    targets: HSRLNetworks,
    batch: Transitions,
    profiles: Tensor,
    trie: Trie,
    forbid_repeats: bool,
    settings: HSRLSettings,
    noise: torch.Generator | None = None,
) -> Predictions:
    """Run networks and targets on a batch. States are encoded anew from the stored observation.

    Args:
        networks: the learned weights.
        targets: the slowly following copy.
        batch: B transitions.
        profiles: (U, P) profile features of all users.
        trie: the live catalogue.
        forbid_repeats: whether items in the history window may not be shown.
        settings: which parts are on.
        noise: generator for dropout.
    """
    policy = networks.policy
    user, user_next = batch.user_inputs(profiles)
    tables = policy.tables(trie)
    state = policy.state(tables, user, batch.history, noise)
    slate = batch.slate.long()
    two_heads = bool(settings.residual)
    slots = slate_log_probs(
        policy,
        state._replace(s=state.s.detach(), nu=state.nu.detach()) if two_heads else state,
        tables.detach() if two_heads else tables,
        trie,
        slate,
        batch.history.long() if forbid_repeats and settings.exclusions != "off" else None,
        None if batch.candidates is None else batch.candidates.long(),
        earlier_slots=settings.exclusions == "slots",
    )
    score = policy.scores(state.base, tables, trie, slate) if two_heads else slots.paths.score
    gap = torch.zeros_like(score)
    if settings.consistency_weight:
        fixed = state.detach()._replace(nu=policy.nu(state.s.detach()))
        paths = policy.follow(fixed, tables.without_items(), trie, slate)
        gap = paths.log_joint[-1].float() - paths.score
    return Predictions(
        log_prob=slots.log_prob,
        values=networks.values(slots.paths.context, user),
        weights=networks.critic.weights,
        future=future_value(targets, batch, user_next, trie, settings),
        entropy=torch.stack(slots.paths.entropy).mean(dim=0),
        response_logits=settings.temperature * score + policy.response_level(state.s),
        gap=gap,
        valid=slots.valid,
    )


@torch.no_grad()
def future_value(
    targets: HSRLNetworks, batch: Transitions, user: Tensor, trie: Trie, settings: HSRLSettings
) -> Tensor:
    """V'(s') along the path of the target policy's most probable tokens, one after the other: (B,)."""
    if settings.gamma == 0:
        return torch.zeros_like(batch.reward)
    policy = targets.policy
    tables = policy.tables(trie)
    state = policy.state(tables, user, batch.next_history)
    node = torch.zeros_like(batch.user, dtype=torch.int64)[:, None]
    contexts = [state.s[:, None]]
    for level in range(policy.levels if settings.multi_level_critic else 0):
        expansion = policy.expand(state, tables, trie, level, node, contexts[-1])
        best = expansion.log_prob.argmax(dim=-1, keepdim=True)
        node = expansion.node.gather(2, best).squeeze(-1)
        contexts.append(policy.descend(tables, trie, level + 1, contexts[-1], node, expansion))
    values = targets.values(contexts, user)  # (B, 1, L + 1)
    return (values * targets.critic.weights).sum(dim=-1).squeeze(1)


def losses(predictions: Predictions, batch: Transitions, settings: HSRLSettings) -> dict[str, Tensor]:
    """The weighted terms of HSRL's objective, each a scalar; their sum is minimised.

    Returns:
        ``td``, ``policy``, ``entropy``, ``cloning``, ``supervision`` and ``consistency``, as far as their
        weights are not zero.
    """
    valid = predictions.valid.float()
    target = td_target(batch, predictions.future, settings)
    terms = {TD: td_loss(predictions.values, predictions.weights, target, valid, settings.level_value_weight)}
    if settings.policy_weight:
        assert batch.log_prob is not None
        credit = advantages(predictions, target, settings)
        tokens = valid[..., None].expand_as(credit)
        loss = policy_gradient_loss(predictions.log_prob, batch.log_prob, credit, tokens, settings.ratio_max)
        terms[POLICY] = settings.policy_weight * loss
    if settings.entropy_weight:
        terms[ENTROPY] = -settings.entropy_weight * masked_mean(predictions.entropy, valid)
    if settings.cloning_weight:
        terms[CLONING] = settings.cloning_weight * cloning_loss(predictions.log_prob, batch.click * valid)
    if settings.supervision_weight:
        taught = supervision_target(batch, settings.value_scale)
        loss = supervision_loss(predictions.response_logits, taught, valid)
        terms[SUPERVISION] = settings.supervision_weight * loss
    if settings.consistency_weight:
        loss = consistency_loss(settings.temperature * predictions.gap, valid)
        terms[CONSISTENCY] = settings.consistency_weight * loss
    return terms


def td_target(batch: Transitions, future: Tensor, settings: HSRLSettings) -> Tensor:
    """y = g + γ·(1 − terminated)·V'(s'): (B, K).

    g is the slot's own response (a click 1, a miss −0.1: their mean is the reward ``mean_with_cost``; with
    ``sweet_point`` a slot cannot know its share, and ``credit_unit=slate`` is meant) or the slate's reward.
    """
    if settings.credit_unit == "slot":
        gain = batch.slot_values
    else:
        gain = batch.reward[:, None].expand(-1, batch.slate.shape[1])
    return gain + settings.gamma * torch.where(batch.terminated, 0.0, future)[:, None]


def td_loss(values: Tensor, weights: Tensor, target: Tensor, valid: Tensor, level_weight: float) -> Tensor:
    """L_V = (V(s) − y)², V(s) = Σ_l w_l·V_l(c_l), plus ``level_weight`` times the mean of (V_l(c_l) − y)².

    Args:
        values: (B, K, L + 1).
        weights: (L + 1,), learned by the first term alone.
        target: (B, K).
        valid: (B, K) float.
        level_weight: of each level's own regression. Differs from the paper, which has none: trained through
            the sum alone, a level may err where another one makes up for it, and is no baseline.
    """
    error = ((values * weights).sum(dim=-1) - target).square()  # (B, K)
    if level_weight and values.shape[-1] > 1:
        error = error + level_weight * (values - target[..., None]).square().mean(dim=-1)
    return masked_mean(error, valid)


def advantages(predictions: Predictions, target: Tensor, settings: HSRLSettings) -> Tensor:
    """What each token is credited with, without gradient: (B, K, L + 1).

    ``level``: A_l = w_{l−1}·(y − V_{l−1}(c_{l−1})), the weights scaled to mean 1; ``aggregate``: y − V(s).
    """
    values, weights = predictions.values.detach(), predictions.weights.detach()
    tokens = predictions.log_prob.shape[-1]
    if settings.credit == "level" and values.shape[-1] > 1:
        return (target[..., None] - values) * weights * tokens
    return (target - (values * weights).sum(dim=-1))[..., None].expand(-1, -1, tokens)


def cloning_loss(log_prob: Tensor, clicked: Tensor) -> Tensor:
    """−log π of clicked items, mean over levels and clicks; zero where nothing was clicked."""
    return -masked_mean(log_prob.mean(dim=-1), clicked)


def supervision_loss(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """BCE(f_i + b(s), y_k), mean over valid slots; y is the response, or the value on its scale.

    Differs from a cross-entropy of log π: its gradient would pass through the normaliser and shake, with the
    noise of every slate's responses, the very items that the policy is surest of.
    """
    loss = F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none")
    return masked_mean(loss, valid)


def consistency_loss(gap: Tensor, valid: Tensor) -> Tensor:
    """Variance over a slate's slots of log π(i) − f_i/T: zero where the tree draws in proportion to exp(f/T).

    Nodes are scored by what their items have in common; this teaches them the rest (cf. the log-variance loss,
    Richter et al., NeurIPS 2020, arXiv 2010.10436).

    Args:
        gap: (B, K), times the temperature: in units of response logits.
        valid: (B, K) float.
    """
    centre = (gap * valid).sum(dim=1, keepdim=True) / valid.sum(dim=1, keepdim=True).clamp(min=1)
    return masked_mean((gap - centre).square(), valid)
