"""What an agent sees of the users, and what a step did to them.

Glossary: B users, H history length, K slate size, N items, C candidates, A behaviours, M signals.
"""

from typing import NamedTuple

from torch import Tensor


class Observation(NamedTuple):
    """What an agent sees of B users."""

    user: Tensor
    """(B,) int64 user index; profiles are looked up by it."""
    history: Tensor
    """(B, H) int64 liked items, oldest first, right-aligned; 0 = padding."""
    candidates: Tensor | None = None
    """(B, C) int64 items that may be shown, or ``None`` for the whole catalogue; 0 where too few could be."""
    live: Tensor | None = None
    """(N + 1,) bool, the same for all users: items that are live, or ``None`` where every item is."""
    signals: Tensor | None = None
    """(B, M) float32 running averages of the episode, or ``None``; see ``envs.signals``."""


class Transition(NamedTuple):
    """What one step did to B users, before finished users are replaced."""

    response: Tensor
    """(B, K, A) bool, what the user did with each slot."""
    value: Tensor
    """(B, K) float32, what each slot is worth; under ``mean_with_cost`` the reward is their mean."""
    reward: Tensor
    """(B,) float32."""
    terminated: Tensor
    """(B,) bool: the user left."""
    truncated: Tensor
    """(B,) bool: the step limit was reached while the user would have stayed."""
    next_observation: Observation
    """The same users afterwards, also where they finished, and the items live then."""

    @property
    def click(self) -> Tensor:
        """(B, K) bool, where the positive response happened."""
        return self.response[..., 0]
