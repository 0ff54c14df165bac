"""What every agent and reference policy is to a rollout: observations in, slates out."""

from typing import NamedTuple, Protocol

from torch import Tensor

from envs.transition import Observation


class Decision(NamedTuple):
    """Slates for B users, and what the agent wants stored beside them."""

    slate: Tensor
    """(B, K) int64 item indices."""
    extras: dict[str, Tensor]
    """Further replay columns, each (B, ...)."""


class Policy(Protocol):
    """Chooses slates for a batch of users."""

    def act(self, observation: Observation) -> Decision:
        """Choose one slate for every user."""
