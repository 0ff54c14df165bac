"""A frozen world: the users who may arrive, the items, and how the ones respond to the others.

Glossary: B users, H history length, N items, U known users, P profile features, F item features, A behaviours.
"""

from dataclasses import dataclass, fields
from functools import cached_property

import torch
from torch import Tensor

from envs.data.behaviours import LIKE, Behaviour
from envs.ensemble import Ensemble
from envs.response import FrozenResponse


@dataclass(frozen=True)
class Population:
    """The users who may arrive, as tensors on the simulator's device.

    Users and logged sessions share one flat layout, so that drawing start histories is one gather.
    """

    users: Tensor
    """(M,) int64 indices of the users who may arrive."""
    likes: Tensor
    """(L,) int64 liked items of all users, by user and time."""
    like_offsets: Tensor
    """(U + 1,) int64 where each user's likes begin in ``likes``."""
    session_offsets: Tensor
    """(U + 1,) int64 where each user's shown sessions begin in ``likes_before``."""
    likes_before: Tensor
    """(S,) int64 number of likes of the user before each session, by user and time."""

    def history_before(self, user: Tensor, session: Tensor, recency: Tensor) -> Tensor:
        """The last H likes before a logged session: (B, H) int64, oldest first, right-aligned, 0 = padding.

        Args:
            user: (B,) int64.
            session: (B,) int64, of those users.
            recency: (H,) int64, 0 … H − 1.
        """
        known = self.likes_before[session]  # (B,)
        position = known[:, None] - len(recency) + recency  # (B, H), negative = padding
        index = self.like_offsets[user][:, None] + position.clamp(min=0)
        index = index.clamp(max=self.likes.shape[0] - 1)
        return torch.where(position >= 0, self.likes[index], 0)

    def to(self, device: torch.device | str) -> "Population":
        """A copy on ``device``."""
        return Population(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


@dataclass(frozen=True)
class World:
    """Everything frozen about a world: one per device, shared by any number of simulators."""

    response: FrozenResponse
    population: Population
    profiles: Tensor
    """(U, P) float32."""
    item_features: Tensor
    """(N + 1, F) float32, row 0 zeros."""
    slate_size: int
    item_age: Tensor
    """(N + 1,) int64 rank 1 … N of each item's first appearance in the logs, 0 for the padding."""
    behaviours: tuple[Behaviour, ...] = LIKE
    """What users may do with an item; the first is the positive response, which enters histories."""
    item_feature_names: tuple[str, ...] = ()
    """Length F; may be empty where nothing asks for them."""
    ensemble: Ensemble | None = None
    """How sure the response is, where the simulator was fitted with further models; see ``envs.ensemble``."""
    item_money: Tensor | None = None
    """(N + 1, A) float32, what one occurrence of each behaviour with an item moves; ``None``: 1 each."""

    @cached_property
    def parents(self) -> tuple[int | None, ...]:
        """Of each behaviour, the index of the one without which it cannot happen."""
        names = [behaviour.name for behaviour in self.behaviours]
        return tuple(None if b.after is None else names.index(b.after) for b in self.behaviours)

    @cached_property
    def money(self) -> Tensor:
        """``item_money`` (N + 1, A) float32, or ones."""
        if self.item_money is not None:
            return self.item_money
        return torch.ones(len(self.item_features), len(self.behaviours), device=self.device)

    @property
    def num_items(self) -> int:
        """N, without the padding item."""
        return self.item_features.shape[0] - 1

    @property
    def device(self) -> torch.device:
        """Where all tensors lie."""
        return self.item_features.device
