"""The policy gradient on replayed data, the same for every agent that stores log-probabilities."""

import torch
from torch import Tensor


def masked_mean(x: Tensor, valid: Tensor) -> Tensor:
    """Mean of ``x`` where ``valid`` (float, of the same shape) is one; zero where nothing is.

    What is not valid may be anything, infinite and NaN too; its gradient is zero.
    """
    return torch.where(valid > 0, x, 0.0).sum() / valid.sum().clamp(min=1)


def policy_gradient_loss(
    log_prob: Tensor, behaviour: Tensor, credit: Tensor, valid: Tensor, ratio_max: float
) -> Tensor:
    """−min(ρ, ρ_max)·A·log π, ρ = π/π_b without gradient, mean over what is valid.

    Differs from PPO's clipping, which stops the gain of good choices beyond 1 + ε but not the loss of bad ones:
    with old data, where ρ is far from 1, that pushed down whatever the policy was surest of.

    Args:
        log_prob: log π of each choice, any shape.
        behaviour: log π_b of the same, when it was made.
        credit: A, without gradient.
        valid: float, one where a choice counts.
        ratio_max: ρ_max.
    """
    counts = valid > 0
    log_prob = torch.where(counts, log_prob, 0.0)  # before the products: 0 · ∞ in a gradient would be NaN
    behaviour = torch.where(counts, behaviour, 0.0)
    ratio = (log_prob.detach() - behaviour).exp().clamp(max=ratio_max)
    return -masked_mean(ratio * credit * log_prob, valid)
