"""The world: logs, catalogue, user response model, simulator and its environments.

Importing it loads nothing. ``gymnasium.make_vec("envs.registration:rl_rec/Slate-v0", ...)`` makes environments.
"""
