"""Registers the environment with gymnasium, on import.

``gymnasium.make_vec("envs.registration:rl_rec/Slate-v0", num_envs=64, simulator=...)`` needs no import of ours;
``import envs.registration`` makes the plain name known. ``import envs`` alone does not: gymnasium and numpy
would double the time in which the command line starts.
"""

import gymnasium

from envs.env_config import ENV_ID


def register() -> None:
    """Make ``rl_rec/Slate-v0`` known to ``gymnasium.make`` and ``gymnasium.make_vec``; again is harmless."""
    if ENV_ID not in gymnasium.registry:
        gymnasium.register(
            ENV_ID,
            entry_point="envs.slate_env:SlateEnv",
            vector_entry_point="envs.slate_env:SlateVectorEnv",
        )


register()
