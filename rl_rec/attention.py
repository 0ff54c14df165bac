"""Self-attention with many small heads, arranged for a CPU's matrix products.

Glossary: B users, T tokens, D width, w = D / heads.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def self_attention(x: Tensor, weight: Tensor, bias: Tensor, mask: Tensor, heads: int) -> Tensor:
    """softmax(q·kᵀ / √w + mask)·v for each head, side by side; q, k and v are projections of x.

    Args:
        x: (B, T, D).
        weight: (3D, D) of queries, keys and values.
        bias: (3D,).
        mask: (B, 1, T, T) float, −inf where query t may not read key t'. It must be causal (−inf for every
            t' > t: on a CPU half of that triangle is never computed), and no row may be all −inf.
        heads: number of heads; divides D.

    Returns:
        (B, T, D).
    """
    if x.device.type == "cpu":
        projected = torch.addmm(bias[:, None], weight, x.flatten(0, 1).T)  # (3D, B·T)
        return _CPUAttention.apply(projected, mask, heads).T.view_as(x)
    projected = F.linear(x, weight, bias)  # (B, T, 3D)
    q, k, v = projected.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, T, w)
    pooled = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return pooled.transpose(1, 2).flatten(2)


_SCORES_IN_CACHE = 250_000
"""Attention weights worked on at once on a CPU: 1 MB, which stays in a core's own cache between products."""

_LANES = 16
"""Numbers of a vector register: a softmax over a multiple of it has no remainder to treat apart."""


def _blocks(tokens: int) -> list[slice]:
    """Queries in two halves, the first a multiple of ``_LANES`` long; a block reads the keys before its end.

    That leaves out about a quarter of the scores; three blocks leave out more and lose it to smaller products.
    """
    half = -(-tokens // (2 * _LANES)) * _LANES
    return [slice(0, half), slice(half, tokens)] if half < tokens else [slice(0, tokens)]


def _parts(users: int, tokens: int, heads: int) -> Iterator[tuple[int, slice]]:
    """A head and some users at a time."""
    size = max(_SCORES_IN_CACHE // tokens**2, 1)
    for head in range(heads):
        for begin in range(0, users, size):
            yield head, slice(begin, begin + size)


class _CPUAttention(torch.autograd.Function):
    """(3D, B·T) → (D, B·T), with T, never w, as the inner dimension of everything, and no copy per head.

    BLAS computes a (T, 8) result three times slower than the same numbers as (8, T), and autograd would ask for
    some of each. A product gets a tensor of its own: ``torch.bmm`` into a slice would fall back to one product
    per user.
    """

    @staticmethod
    def forward(ctx: Any, projected: Tensor, mask: Tensor, heads: int) -> Tensor:
        users, tokens = mask.shape[0], mask.shape[-1]
        by_head = projected.view(3, heads, -1, users, tokens).transpose(2, 3)  # (3, heads, B, w, T)
        scale = by_head.shape[3] ** -0.5
        result = projected.new_empty(heads, by_head.shape[3], users, tokens)
        blocks = _blocks(tokens)
        masks = [mask[:, 0, block, : block.stop].contiguous() for block in blocks]
        kept = []
        for head, some in _parts(users, tokens, heads):
            q, k, v = by_head[:, head, some]
            q = q * scale
            for block, block_mask in zip(blocks, masks, strict=True):
                keys = slice(block.stop)
                scores = torch.bmm(q[:, :, block].transpose(1, 2), k[:, :, keys])  # (users, queries, keys)
                weights = scores.add_(block_mask[some]).softmax(dim=-1)
                pooled = torch.bmm(v[:, :, keys], weights.transpose(1, 2))  # (users, w, queries)
                result[head, :, some, block] = pooled.transpose(0, 1)
                if ctx.needs_input_grad[0]:
                    kept.append(weights)
        ctx.save_for_backward(by_head, *kept)
        return result.flatten(2).flatten(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        by_head, *kept = ctx.saved_tensors
        _, heads, users, width, tokens = by_head.shape
        above = gradient.reshape(heads, width, users, tokens).transpose(1, 2)  # (heads, B, w, T)
        result = gradient.new_zeros(3, heads, width, users, tokens)
        weights_of_blocks = iter(kept)
        for head, some in _parts(users, tokens, heads):
            q, k, v = by_head[:, head, some]
            of_q, of_k, of_v = result.transpose(2, 3)[:, head, some]
            for block in _blocks(tokens):
                keys, block_above = slice(block.stop), above[head, some, :, block]
                weights = next(weights_of_blocks)
                of_weights = torch.bmm(block_above.transpose(1, 2), v[:, :, keys])
                of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
                of_q[:, :, block] = torch.bmm(k[:, :, keys], of_scores.transpose(1, 2))
                of_k[:, :, keys] += torch.bmm(q[:, :, block], of_scores)
                of_v[:, :, keys] += torch.bmm(block_above, weights)
        result[:2] *= width**-0.5
        return result.flatten(3).flatten(0, 2), None, None
