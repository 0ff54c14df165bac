"""A world of random tensors, of any size and on any device, made in milliseconds.

Glossary: U users, N items, P profile features, F item features, H history length, K slate size.
"""

import torch
from pydantic import Field

from envs.randomness import seeded_weights, stream_seed
from envs.response import FrozenResponse, ResponseModel, ResponseSettings
from envs.settings import Settings
from envs.world import Population, World

SESSIONS = 10
"""Logged sessions of each user; the first finds a short history, the others a full one."""


class WorldSizes(Settings):
    """How large the random world is; the defaults are those of the papers' RL4RS, on MovieLens-100K's users."""

    population: int = Field(943, ge=1)
    """Users U who may arrive."""
    items: int = Field(283, ge=1)
    """Catalogue size N."""
    profile_features: int = Field(24, ge=1)
    """Profile features P."""
    item_features: int = Field(40, ge=1)
    """Item features F."""
    history: int = Field(50, ge=1)
    """History length H."""
    slate: int = Field(9, ge=1)
    """Slate size K."""
    response_dim: int = Field(32, ge=1)
    """Width of the response model."""
    response_heads: int = Field(1, ge=1)
    """Attention heads of the response model."""


def random_world(sizes: WorldSizes, seed: int, device: str = "cpu") -> World:
    """A world of random weights, features and likes; nine in ten users arrive with a full history.

    The same seed gives the same world on every device.
    """
    generator = torch.Generator().manual_seed(stream_seed(seed, 0))
    users, items, history = sizes.population, sizes.items, sizes.history
    with seeded_weights(stream_seed(seed, 1)):
        shape = ResponseSettings(dim=sizes.response_dim, heads=sizes.response_heads)
        model = ResponseModel(sizes.profile_features, sizes.item_features, shape)
    profiles = torch.randn(users, sizes.profile_features, generator=generator)
    features = torch.randn(items + 1, sizes.item_features, generator=generator)
    features[0] = 0.0

    likes = min(2 * history, items)  # of each user, all different
    liked = torch.rand(users, items, generator=generator).topk(likes, dim=1).indices + 1  # (U, likes)
    before = torch.randint(min(history, likes), likes + 1, (users, SESSIONS), generator=generator)
    before[:, 0] = torch.randint(min(history, likes) + 1, (users,), generator=generator)
    population = Population(
        users=torch.arange(users),
        likes=liked.flatten(),
        like_offsets=torch.arange(users + 1) * likes,
        session_offsets=torch.arange(users + 1) * SESSIONS,
        likes_before=before.flatten(),
    )
    response = FrozenResponse(model.to(device), profiles.to(device), features.to(device))
    age = torch.arange(items + 1, device=device)
    return World(response, population.to(device), profiles.to(device), features.to(device), sizes.slate, age)
