"""The window of the last H liked items of B users, oldest first, right-aligned; 0 is padding."""

import torch
from torch import Tensor


def append_clicked(history: Tensor, slate: Tensor, click: Tensor, recency: Tensor) -> Tensor:
    """Append the clicked items of ``slate`` in slot order and keep the last H.

    Args:
        history: (B, H) int64, right-aligned.
        slate: (B, K) int64.
        click: (B, K) bool.
        recency: (H,) int64, 0 … H − 1.
    """
    rank = torch.where(click, click.cumsum(dim=1) - 1, slate.shape[1])  # misses go to a spare column
    clicked = torch.zeros(slate.shape[0], slate.shape[1] + 1, dtype=slate.dtype, device=slate.device)
    clicked.scatter_(1, rank, slate)
    window = torch.cat([history, clicked], dim=1)
    return window.gather(1, recency + click.sum(dim=1, keepdim=True))
