"""Slates from the tree: beam search, and stochastic beam search for draws without replacement.

Both walk the distribution that is left when some items may not be shown: the mass of a node is its probability
less that of the excluded items below it.
Glossary: B users, W beams, C children, E excluded items, K slate size, D width.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rl_rec.hsrl.likelihood import first_occurrence, log_share_left
from rl_rec.hsrl.networks import EXACT, Expansion, HierarchicalPolicy, State, Tables, rows_of
from rl_rec.sids.trie import Trie


class Found(NamedTuple):
    """Slates, and how likely the tree makes them."""

    items: Tensor
    """(B, K) int64, best or first drawn first."""
    log_joint: list[Tensor]
    """For levels 0 … L + 1, (B, K) log-probability of reaching the item's node, before anything is excluded."""


class Excluded:
    """Items that may not be shown and what they take away."""

    def __init__(self, items: Tensor, log_prob: Tensor, trie: Trie) -> None:
        """``items`` (B, E), 0 = none; ``log_prob`` (B, E) float64, their leaves'. Repeated ones count once."""
        counts = trie.live[items] & first_occurrence(items)
        self._number = counts.to(log_prob.dtype)
        self._mass = torch.where(counts, log_prob.exp(), 0.0)
        self._path = F.embedding(items, trie.path)  # (B, E, L + 1)
        self._trie = trie

    def below(self, level: int, beam: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """Excluded probability and excluded items below each child of the beams (B, W) of ``level``.

        Returns:
            Two tensors (B, W, C).
        """
        path, trie = self._path, self._trie
        parent = path[..., level - 1] if level else torch.zeros_like(path[..., 0])
        match = parent[:, :, None] == beam[:, None, :]  # (B, E, W)
        which = match.int().argmax(dim=2)
        place = path[..., level] - trie.first[level][parent]  # (B, E)
        shape = (beam.shape[0], beam.shape[1] * width + 1)
        index = torch.where(match.any(dim=2), which * width + place, shape[1] - 1)
        mass = self._mass.new_zeros(shape).scatter_add_(1, index, self._mass)
        number = self._mass.new_zeros(shape).scatter_add_(1, index, self._number)
        return mass[:, :-1].view(*beam.shape, width), number[:, :-1].view(*beam.shape, width)


@torch.no_grad()
def search(
    policy: HierarchicalPolicy,
    state: State,
    tables: Tables,
    trie: Trie,
    slate_size: int,
    beam_width: int,
    excluded: Excluded | None = None,
    noise: torch.Generator | None = None,
    by_score: bool = False,
) -> Found:
    """The best items, or with ``noise`` draws without replacement.

    The draws are exact whatever the beam width (Kool et al., ICML 2019, arXiv 1903.06059): a node's perturbed
    log-probability is the largest of its leaves', so the leaves with the K largest lie below kept nodes.

    Args:
        policy: the networks.
        state, tables, trie: as from the policy.
        slate_size: K.
        beam_width: prefixes kept per level; K at least.
        excluded: items that may not be shown.
        noise: generator of the draws; ``None``: beam search.
        by_score: order the items that are found by their own scores instead of their joint probabilities.
    """
    users, device = state.s.shape[0], state.s.device
    node = torch.zeros(users, 1, dtype=torch.int64, device=device)
    context = state.s[:, None]
    # Excluded items are subtracted, and from the log-probabilities of draws the slots before.
    dtype = torch.float32 if excluded is None and noise is None else EXACT
    # Of the nodes above and the node, what is excluded still counted in.
    log_joint = [torch.zeros(users, 1, dtype=dtype, device=device)]
    score = torch.zeros(users, 1, dtype=dtype, device=device)  # what beams are kept by; −inf for padding
    for level in range(policy.levels + 1):
        expansion = policy.expand(state, tables, trie, level, node, context, dtype)
        child, valid = expansion.node, expansion.valid & ~score.isneginf()[..., None]
        joint = left = log_joint[-1][..., None] + expansion.log_prob  # (B, W, C)
        if excluded is not None:
            mass, number = excluded.below(level, node, child.shape[2])
            valid = valid & (trie.count[level + 1][child] > number)
            left = joint + log_share_left(mass, joint)
        left = left.masked_fill(~valid, float("-inf"))
        scores = left if noise is None else _perturb(left, score, noise)
        if by_score and level == policy.levels:
            scores = expansion.logit.masked_fill(~valid, float("-inf"))
        keep = slate_size if level == policy.levels else max(slate_size, beam_width)
        best = scores.flatten(1).topk(min(keep, child[0].numel()), dim=1)
        chosen = child.flatten(1).gather(1, best.indices)  # (B, W')
        parent = best.indices // child.shape[2]
        log_joint = [above.gather(1, parent) for above in log_joint]
        log_joint.append(joint.flatten(1).gather(1, best.indices))
        if level == policy.levels:
            return Found(trie.item[chosen], log_joint)
        if policy.context == "expected":  # over all children; else the chosen ones are enough
            expansion = Expansion(*(rows_of(part, parent) for part in expansion))
        context = policy.descend(tables, trie, level + 1, rows_of(context, parent), chosen, expansion)
        score, node = best.values, chosen
    raise AssertionError("a tree has a last level")


def _perturb(log_mass: Tensor, parent: Tensor, noise: torch.Generator) -> Tensor:
    """Gumbel-perturbed log-masses of siblings, given that the largest is their parent's.

    Args:
        log_mass: (B, W, C), −inf where closed.
        parent: (B, W) perturbed log-mass of the parents.
        noise: generator.
    """
    exponential = torch.empty_like(log_mass).exponential_(generator=noise).clamp_(min=1e-30)
    g = log_mass - exponential.log_()  # Gumbel(log_mass)
    largest = g.amax(dim=2, keepdim=True)
    # −log(exp(−parent) − exp(−largest) + exp(−g)), in a form that does not overflow.
    gap = (g - largest).clamp(max=-1e-7)
    v = parent[..., None] - g + torch.log(-torch.expm1(gap))
    conditional = parent[..., None] - F.relu(v) - torch.log1p(torch.exp(-v.abs()))
    conditional = torch.where(g == largest, parent[..., None], conditional)
    return conditional.masked_fill(g.isneginf(), float("-inf"))
