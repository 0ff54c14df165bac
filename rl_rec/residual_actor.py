"""An actor of two heads: one supervision teaches, and one that may lead away from it, but not far.

HAC and HSRL share it: Δ follows HAC's critic, or HSRL's policy gradient.

Glossary: B users, D width.
"""

import torch
from torch import Tensor, nn


class ResidualActor(nn.Module):
    """Z = z_c(s) + Δ(v), ‖Δ‖ ≤ ρ·‖z_c‖: what earns clicks now, and what the critic would rather have.

    Differs from the paper, where one head follows both losses: between learning nothing from Q and collapsing
    there is a weight, and it is another one in every world. Here the critic cannot move Z further than ρ.
    """

    def __init__(self, dim: int, view: int, limit: float, hidden: int = 64) -> None:
        """``dim``: D; ``view``: width of v; ``limit``: ρ; ``hidden``: units of Δ's hidden layer."""
        super().__init__()
        self.limit = limit
        self.base = nn.Linear(dim, dim)
        last = nn.Linear(hidden, dim)
        with torch.no_grad():  # begins near z_c
            last.weight.mul_(0.1)
            last.bias.zero_()
        self.residual = nn.Sequential(nn.Linear(view, hidden), nn.ReLU(), last)

    def forward(self, state: Tensor, view: Tensor) -> Tensor:
        """Z (B, D) of states (B, D) and what the critic sees of them, (B, view); gradient to Δ alone."""
        base = self.base(state).detach()
        step = self.residual(view)
        length = step.norm(dim=1, keepdim=True).clamp(min=1e-6)
        return base + self.limit * base.norm(dim=1, keepdim=True) * length.tanh() / length * step


def view_of(context: Tensor, inputs: Tensor) -> Tensor:
    """What Δ and a critic see: contexts (B, ..., D) without gradient, the users' inputs (B, P) beside each.

    Supervision moves the encoder all the while; what is known of user and episode stays where it is.
    """
    beside = inputs[(slice(None), *[None] * (context.dim() - 2))].expand(*context.shape[:-1], -1)
    return torch.cat([context.detach(), beside], dim=-1)  # (B, ..., D + P)
