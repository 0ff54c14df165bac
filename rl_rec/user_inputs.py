"""What the state encoder reads of a user beside the history: the profile, and the world's signals if any."""

import torch
import torch.nn.functional as F
from torch import Tensor

from envs import signals
from envs.world import World
from envs.world_settings import WorldSettings
from rl_rec.encoder_settings import EncoderSettings


def user_inputs(profiles: Tensor, user: Tensor, signals: Tensor | None = None) -> Tensor:
    """Gather profiles and join the running episode's signals.

    Args:
        profiles: (U, P) float32.
        user: (B,) integer.
        signals: (B, M) float32, or ``None`` where the world gives none.

    Returns:
        (B, P) or (B, P + M) float32.
    """
    profile = F.embedding(user, profiles)
    return profile if signals is None else torch.cat([profile, signals], dim=1)


def num_user_inputs(world: World, rules: WorldSettings, settings: EncoderSettings) -> int:
    """P, or P + M where the world gives signals and the encoder reads them."""
    read = rules.signals and settings.signals
    return world.profiles.shape[1] + (signals.width(world.item_features.shape[1]) if read else 0)
