"""Self-attention with many small heads, arranged for a CPU's matrix products.

Glossary: B users, T tokens, D width, w = D / heads.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def self_attention(projected: Tensor, mask: Tensor, heads: int) -> Tensor:
    """softmax(q·kᵀ / √w + mask)·v for each head, side by side.

    Args:
        projected: (B, T, 3D) queries, keys and values.
        mask: (B, 1, T, T) float, −inf where query t may not read key t'; no row may be all −inf.
        heads: number of heads; divides D.

    Returns:
        (B, T, D).
    """
    if projected.device.type == "cpu":
        return _CPUAttention.apply(projected, mask, heads)
    q, k, v = _split(projected, heads)
    pooled = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return pooled.transpose(1, 2).flatten(2)


def _split(projected: Tensor, heads: int) -> Tensor:
    return projected.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)  # (3, B, heads, T, w)


_SCORES_IN_CACHE = 100_000
"""Attention weights worked on at once on a CPU: 400 kB, which stay in a core's own cache between products."""


class _CPUAttention(torch.autograd.Function):
    """Forward and backward, some users at a time, with T, never w, as the inner dimension of every result.

    BLAS computes a (T, 8) result three times slower than the same numbers as (8, T), and autograd would ask for
    some of each: forward and backward together take 5.1 ms instead of the fused kernel's 8.6 (B 64, T 51, w 8).
    """

    @staticmethod
    def forward(ctx: Any, projected: Tensor, mask: Tensor, heads: int) -> Tensor:
        qkv = _split(projected, heads).flatten(1, 2)  # (3, B·heads, T, w)
        _, matrices, tokens, width = qkv.shape
        users = max(_SCORES_IN_CACHE // (heads * tokens * tokens), 1)
        result = projected.new_empty(matrices, width, tokens)
        kept = []
        parts = zip(
            qkv.split(users * heads, dim=1), mask.split(users), result.split(users * heads), strict=True
        )
        for (q, k, v), part_mask, part_result in parts:
            scores = torch.bmm(q * width**-0.5, k.transpose(1, 2))  # (users·heads, T, T)
            scores.unflatten(0, (-1, heads)).add_(part_mask)
            weights = scores.softmax(dim=-1)
            torch.bmm(v.transpose(1, 2), weights.transpose(1, 2), out=part_result)
            kept.append(weights)
        ctx.save_for_backward(qkv, *kept)
        ctx.heads = heads
        return result.unflatten(0, (-1, heads)).flatten(1, 2).transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        qkv, *kept = ctx.saved_tensors
        _, matrices, tokens, width = qkv.shape
        above = gradient.transpose(1, 2).reshape(matrices, width, tokens)
        result = gradient.new_empty(3, matrices, width, tokens)
        size = len(kept[0])
        parts = zip(qkv.split(size, dim=1), above.split(size), result.split(size, dim=1), kept, strict=True)
        for (q, k, v), part_above, (of_q, of_k, of_v), weights in parts:
            of_weights = torch.bmm(part_above.transpose(1, 2), v.transpose(1, 2))
            of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
            torch.bmm(k.transpose(1, 2), of_scores.transpose(1, 2), out=of_q)
            torch.bmm(q.transpose(1, 2), of_scores, out=of_k)
            torch.bmm(part_above, weights, out=of_v)
        result[:2] *= width**-0.5
        by_token = result.view(3, -1, gradient.shape[2], tokens).permute(1, 3, 0, 2)  # (B, T, 3, D)
        return by_token.flatten(2), None, None
