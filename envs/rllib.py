"""Registers the environment with RLlib, on import: the only module of the world that knows Ray.

One name and one ``env_config`` (the keys of :class:`envs.env_config.EnvConfig`) serve every runner::

    config.environment("rl_rec/Slate-v0", env_config={"simulator": "/data/ml-1m-world"})
    config.env_runners(num_envs_per_env_runner=64, gym_env_vectorize_mode="vector_entry_point")  # stock runner

A runner of our own takes the tensors underneath from :func:`world_from_env_config`.
"""

from collections.abc import Mapping
from typing import Any

import torch
from ray.rllib.env.env_context import EnvContext
from ray.tune.registry import register_env

from envs.env_config import ENV_ID, EnvConfig
from envs.errors import UserError
from envs.slate_env import SlateEnv, SlateVectorEnv
from envs.world import World
from envs.world_settings import WorldSettings

_RLLIB_SETS = {
    "num_envs": "config.env_runners(num_envs_per_env_runner=...)",
    "seed": "config.debugging(seed=...)",
}


def register() -> None:
    """Make ``rl_rec/Slate-v0`` known to RLlib; needed again only after a second ``ray.init``."""
    register_env(ENV_ID, _create)


def parse_env_config(env_config: Mapping[str, Any]) -> EnvConfig:
    """Check an ``env_config``, which RLlib itself passes on with any misspelling in it.

    Raises:
        UserError: an unknown key (the nearest one, or what sets it in RLlib, is named) or a wrong value.
    """
    for key, where in _RLLIB_SETS.items():
        if key in env_config:
            raise UserError(f"env_config.{key}: RLlib sets it, use {where}")
    return EnvConfig.from_mapping(env_config, where="env_config")


def world_from_env_config(
    env_config: Mapping[str, Any], device: torch.device | str | None = None
) -> tuple[World, WorldSettings]:
    """The world and its rules that the environment of this ``env_config`` would serve.

    Args:
        env_config: keys of :class:`envs.env_config.EnvConfig`.
        device: where the tensors are needed; ``None``: as configured.

    Raises:
        UserError: a wrong ``env_config``, or a simulator folder that cannot be read.
    """
    config = parse_env_config(env_config)
    world, _ = config.open(device)
    return world, config.settings


def _create(env_config: Mapping[str, Any]) -> SlateEnv | SlateVectorEnv:
    # RLlib's runner asks for a single environment with its EnvContext, and for a vector one with a plain dict
    # to which it added num_envs (SingleAgentEnvRunner.make_env): the only difference between the two calls.
    values = dict(env_config)
    if isinstance(env_config, EnvContext) or "num_envs" not in values:
        parse_env_config(values)
        return SlateEnv(**values)
    num_envs = values.pop("num_envs")
    parse_env_config(values)
    return SlateVectorEnv(num_envs, **values)


register()
