"""The probability of a slate that was drawn without replacement from what could be shown.

The tree gives every live item a probability p(i). A slot is drawn from what is left of it: without the items
the user may not be shown, and without the slots before it. A node's *mass* is what is left below it, and each
token's probability is the mass of the chosen child over its parent's. The product over the slots is the
Plackett-Luce probability of the slate.

Glossary: B users, K slate size, E further items, C candidates, L levels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rl_rec.hsrl.networks import HierarchicalPolicy, Paths, State, Tables
from rl_rec.sids.trie import Trie

LEAST = 1e-12
"""Least share of a node's probability that exclusions leave: float64 cannot tell much less from
rounding. An item ahead of all its siblings by more than T·ln(1/LEAST) leaves them more than it should when it
is excluded."""

_LARGEST = 600.0
"""−log of the least probability that is told from zero."""


class Slots(NamedTuple):
    """The slots of a slate, as the policy sees them."""

    paths: Paths
    """Of the K slots alone, before anything is excluded."""
    log_prob: Tensor
    """(B, K, L + 1) log-probability of each slot's tokens, and of the item in its bucket."""
    valid: Tensor
    """(B, K) bool: the slot holds an item that could be shown."""


def slate_log_probs(
    policy: HierarchicalPolicy,
    state: State,
    tables: Tables,
    trie: Trie,
    slate: Tensor,
    excluded: Tensor | None,
    candidates: Tensor | None,
    *,
    earlier_slots: bool = True,
) -> Slots:
    """Log-probabilities of slates (B, K) in the order drawn.

    Args:
        policy, state, tables, trie: the policy's.
        slate, excluded, candidates, earlier_slots: as of :func:`token_log_probs`.
    """
    slots = slate.shape[1]
    items = torch.cat([slate, _beside(slate, excluded, candidates)], dim=1)  # (B, K + E)
    paths = policy.follow(state, tables, trie, items, detailed=slots)
    log_prob, valid = token_log_probs(
        paths.log_joint, trie, slate, excluded, candidates, earlier_slots=earlier_slots
    )
    own = paths._replace(
        log_joint=[joint[:, :slots] for joint in paths.log_joint], score=paths.score[:, :slots]
    )
    return Slots(own, log_prob, valid)


def token_log_probs(
    log_joint: Sequence[Tensor],
    trie: Trie,
    slate: Tensor,
    excluded: Tensor | None,
    candidates: Tensor | None,
    *,
    earlier_slots: bool = True,
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the tokens of slates, from what the tree gives every item before exclusions.

    Args:
        log_joint: of levels 0 … L + 1, (B, K + E) float64 log-probability of reaching the node of each item
            of the slate and then of ``candidates`` or, without them, of ``excluded``.
        trie: the catalogue.
        slate: (B, K) int64 items.
        excluded: (B, E) items that may not be shown, 0 = none; ``None``: all may.
        candidates: (B, C) the only items that may be shown; ``None``: the catalogue.
        earlier_slots: whether a slot excludes the slots before it.

    Returns:
        ``log_prob`` (float32) and ``valid`` of :class:`Slots`.
    """
    slots = slate.shape[1]
    beside = _beside(slate, excluded, candidates)
    items = torch.cat([slate, beside], dim=1)
    node = F.embedding(items, trie.path)  # (B, K + E, L + 1)
    first = first_occurrence(slate)
    valid = trie.live[slate] & first & ~_among(slate, excluded)
    if candidates is None:
        counts = trie.live[items] & torch.cat([valid, first_occurrence(beside)], dim=1)
        return exclude(log_joint, node, counts, slots, earlier_slots), valid
    valid = valid & _among(slate, candidates)
    shown = trie.live[candidates] & first_occurrence(candidates) & ~_among(candidates, excluded)
    same = slate[:, :, None] == candidates[:, None, :]  # (B, K, C)
    gone = (same.cumsum(dim=1) - same.int() > 0) & earlier_slots
    return restrict(log_joint, node, shown[:, None] & ~gone, slots), valid


def exclude(
    log_joint: Sequence[Tensor], node: Tensor, counts: Tensor, slots: int, earlier_slots: bool
) -> Tensor:
    """Token log-probabilities of the slots where the catalogue is open but for some items: (B, K, L + 1).

    The mass of a node is its probability less that of what is excluded below it.

    Args:
        log_joint: of levels 0 … L + 1, (B, K + E): the K slots, then E items that no slot may show.
        node: (B, K + E, L + 1) their nodes.
        counts: (B, K + E) bool, items that take mass away (live, and not counted already).
        slots: K.
        earlier_slots: whether slots exclude the slots before them.
    """
    mass = log_joint[-1].exp().masked_fill(~counts, 0.0)[..., None]  # (B, K + E, 1)
    index = torch.arange(counts.shape[1], device=counts.device)
    taken = (index[None, :] >= slots) | ((index[None, :] < index[:slots, None]) & earlier_slots)  # (K, K + E)
    log_mass = []
    for level, joint in enumerate(log_joint[:-1]):
        own = joint[:, :slots]
        below = (taken & _below(node, level, slots, 0)).to(mass.dtype)
        log_mass.append(own + log_share_left((below @ mass).squeeze(-1), own))
    log_mass.append(log_joint[-1][:, :slots])  # the item itself is never excluded
    return torch.stack(log_mass, dim=-1).diff(dim=-1).float()


def log_share_left(mass: Tensor, log_prob: Tensor) -> Tensor:
    """Log of the share of nodes' probabilities that is left without ``mass``, float64 of one shape."""
    return (1 - mass * (-log_prob).clamp(max=_LARGEST).exp()).clamp(min=LEAST).log()


def restrict(log_joint: Sequence[Tensor], node: Tensor, shown: Tensor, slots: int) -> Tensor:
    """Token log-probabilities of the slots where only some items are open: (B, K, L + 1).

    The mass of a node is the sum over the open items below it.

    Args:
        log_joint: of levels 0 … L + 1, (B, K + E): the K slots, then E items.
        node: (B, K + E, L + 1) their nodes.
        shown: (B, K, E) bool, which of them slot k could have shown.
        slots: K.
    """
    leaf = log_joint[-1][:, None, slots:]  # (B, 1, E)
    log_mass = []
    for level in range(len(log_joint) - 1):
        below = shown & _below(node, level, slots, slots)
        # An item that is not open itself has no mass above it: finite, and masked by ``valid``.
        log_mass.append(leaf.masked_fill(~below, -1e9).logsumexp(dim=2))
    log_mass.append(log_joint[-1][:, :slots])
    return torch.stack(log_mass, dim=-1).diff(dim=-1).float()


def _beside(slate: Tensor, excluded: Tensor | None, candidates: Tensor | None) -> Tensor:
    """What else is followed: (B, E)."""
    if candidates is not None:
        return candidates
    return slate[:, :0] if excluded is None else excluded


def first_occurrence(items: Tensor) -> Tensor:
    """Where an item does not stand earlier in its row: (B, E) → (B, E) bool."""
    same = items[:, :, None] == items[:, None, :]
    return ~same.tril(diagonal=-1).any(dim=2)


def _below(node: Tensor, level: int, slots: int, begin: int) -> Tensor:
    """Which items from ``begin`` on lie below each slot's node of ``level``: (B, K, ...) bool."""
    if level == 0:
        return torch.ones((), dtype=torch.bool, device=node.device)
    at = node[..., level - 1]
    return at[:, :slots, None] == at[:, None, begin:]


def _among(items: Tensor, others: Tensor | None) -> Tensor:
    """Which items (B, K) stand among others (B, E): (B, K) bool."""
    if others is None:
        return torch.zeros_like(items, dtype=torch.bool)
    return (items[:, :, None] == others[:, None, :]).any(dim=2)
