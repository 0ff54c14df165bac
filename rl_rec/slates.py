"""Choosing slates from scores over the catalogue: masks, top-K, draws without replacement."""

import torch
from torch import Tensor

from envs.transition import Observation


def mask_scores(scores: Tensor, observation: Observation, forbid_repeats: bool) -> Tensor:
    """Set to −inf, in place, every item that may not be shown.

    Args:
        scores: (B, N + 1) float; column 0 is padding.
        observation: the users.
        forbid_repeats: whether items in the history window are excluded.
    """
    if observation.candidates is not None:
        inside = scores.gather(1, observation.candidates.long())
        scores.fill_(float("-inf")).scatter_(1, observation.candidates.long(), inside)
    if forbid_repeats:
        scores.scatter_(1, observation.history.long(), float("-inf"))
    if observation.live is not None:
        scores.masked_fill_(~observation.live, float("-inf"))
    scores[:, 0] = float("-inf")
    return scores


def top_k(scores: Tensor, k: int) -> Tensor:
    """The k best items, best first: (B, N + 1) → (B, k) int64."""
    return scores.topk(k, dim=1).indices


def sample_without_replacement(
    scores: Tensor, k: int, temperature: float, generator: torch.Generator
) -> Tensor:
    """k draws without replacement from softmax(scores / temperature), as one Gumbel top-k.

    Args:
        scores: (B, N + 1) float, −inf where an item may not be shown.
        k: items to draw.
        temperature: of the softmax; small comes near to ``top_k``.
        generator: source of the noise.

    Returns:
        (B, k) int64, in the order drawn.
    """
    # −log of an exponential variable is a Gumbel variable; a draw of 0 would make −inf + inf.
    noise = torch.empty_like(scores).exponential_(generator=generator).clamp_(min=1e-30).log_()
    return top_k(scores / temperature - noise, k)


def plackett_luce_log_probs(scores: Tensor, slate: Tensor) -> Tensor:
    """log-probability of each of K draws without replacement, given those before it: (B, K).

    log π(a_k | a_1 … a_{k−1}) = f_k − log Σ_{i ≠ a_1 … a_{k−1}} exp f_i. The sums are built up from the last
    draw backwards: nothing is subtracted, so a slate that takes nearly all the mass loses no digits.

    Args:
        scores: (B, N + 1) float, over temperature; −inf where an item may not be shown.
        slate: (B, K) integer, different items; −inf results where one may not be shown.
    """
    slate = slate.long()
    chosen = scores.gather(1, slate)  # (B, K)
    rest = scores.scatter(1, slate, float("-inf")).logsumexp(dim=1, keepdim=True)
    left = torch.cat([rest, chosen.flip(1)], dim=1).logcumsumexp(dim=1)[:, 1:].flip(1)  # (B, K)
    return torch.where(chosen.isinf(), chosen, chosen - left)
