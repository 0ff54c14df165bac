"""What gymnasium agents see of a user: spaces, and arrays that lie in them.

Glossary: B users, H history length, N items, C candidates, P profile features, F item features.

- ``dict``: ``profile`` (P,) float32; ``history`` (H,) int64 in 0 … N, liked items, oldest first, right-aligned,
  0 = padding; where the world has candidate sets ``candidates`` (C,) int64 in 1 … N (with budgets 0 … N, 0
  where too few items had any left); and where not every item
  is live ``live`` (N,) int8, whether the item of action a is; where the world gives them ``signals`` (M,)
  float32, see ``envs.signals``.
- ``features``: one float32 vector (P + 2F + 1,) for agents that want a flat one: profile, mean features of the
  liked history, features of the last liked item (zeros where nothing was liked), share of the history filled.
  Candidates, live items and signals are not in it.
"""

from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from envs import signals
from envs.catalogue import Catalogue
from envs.env_config import ObservationName
from envs.transition import Observation
from envs.world import World
from envs.world_settings import WorldSettings

Arrays: TypeAlias = NDArray[np.float32] | dict[str, NDArray[np.generic]]


def observation_space(world: World, settings: WorldSettings, name: ObservationName) -> spaces.Space:
    """Space of what one user's agent sees."""
    num_profile, num_features = world.profiles.shape[1], world.item_features.shape[1]
    if name == "features":
        return _unbounded(num_profile + 2 * num_features + 1)
    parts: dict[str, spaces.Space] = {
        "profile": _unbounded(num_profile),
        "history": spaces.Box(0, world.num_items, (settings.history_length,), np.int64),
    }
    if settings.candidates is not None:
        lowest = 1 if settings.budgets.clicks is None else 0  # 0: too few items had budget left
        parts["candidates"] = spaces.Box(lowest, world.num_items, (settings.candidates,), np.int64)
    if not Catalogue.of(world, settings.catalogue).always_all:
        parts["live"] = spaces.MultiBinary(world.num_items)
    if settings.signals:
        parts["signals"] = _unbounded(signals.width(num_features))
    return spaces.Dict(parts)


def action_space(world: World) -> spaces.MultiDiscrete:
    """Slates of K items, counted from 0: action a shows item a + 1, since item 0 is padding."""
    return spaces.MultiDiscrete([world.num_items] * world.slate_size)


def observe(world: World, observation: Observation, name: ObservationName) -> Arrays:
    """Arrays of B users, their own copies."""
    profile = world.profiles[observation.user]  # (B, P)
    if name == "features":
        return _numpy(torch.cat([profile, history_features(world, observation.history)], dim=1))
    parts = {
        "candidates": observation.candidates,
        "history": observation.history,
        "live": _per_user(observation),
        "profile": profile,
        "signals": observation.signals,
    }  # in the space's order
    return {name: _numpy(tensor) for name, tensor in parts.items() if tensor is not None}


def history_features(world: World, history: Tensor) -> Tensor:
    """A history as one vector: (B, H) int64 → (B, 2F + 1) float32."""
    mean = F.embedding_bag(history, world.item_features, mode="mean", padding_idx=0)  # (B, F)
    last = world.item_features[history[:, -1]]  # (B, F): right-aligned, and padding has zero features
    filled = (history != 0).float().mean(dim=1, keepdim=True)  # (B, 1)
    return torch.cat([mean, last, filled], dim=1)


def _per_user(observation: Observation) -> Tensor | None:
    """Whether the item of each action is live: (B, N) int8."""
    if observation.live is None:
        return None
    return observation.live[1:].to(torch.int8).expand(len(observation.user), -1)


def _unbounded(size: int) -> spaces.Box:
    return spaces.Box(-np.inf, np.inf, (size,), np.float32)


def _numpy(tensor: Tensor) -> NDArray:
    """A copy: on the CPU the array would otherwise be the simulator's own memory."""
    return tensor.cpu().numpy().copy()
