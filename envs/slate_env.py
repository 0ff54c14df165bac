"""The world as gymnasium environments, so that any agent can use it: thin façades over the tensor simulator.

Glossary: B users, K slate size, N items. An action is a slate, (K,) integers in 0 … N − 1; action a shows item
a + 1. Items that may not be shown (not live, outside the candidates, repeated within the slate, or in the
history where ``repeats="forbid"``) are no error: they get no response. Where the catalogue changes, every
``step`` moves the world's clock, and only ``reset(seed=...)`` sets it back.
"""

from typing import Any, SupportsFloat

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray

from envs.env_config import EnvConfig
from envs.errors import UserError
from envs.observations import Arrays, action_space, observation_space, observe
from envs.settings import Settings
from envs.simulator import Simulator

_Infos = dict[str, NDArray[np.generic]]


class _ResetOptions(Settings):
    """Keys of ``reset(options=...)``."""

    users: list[int] | None = None
    """Index of the user who arrives in each slot; ``None``: drawn from the population."""


class SlateVectorEnv(VectorEnv):
    """B users served together, one tensor program a step.

    Autoreset is ``NEXT_STEP``: the step that ends an episode returns that user's own last observation; the next
    step ignores the slot's action, seats a new user and returns their first observation with reward 0.

    Infos: ``clicks`` (B, K) bool, the response to each slot (its mask ``_clicks`` (B,) is off where a new user
    was seated), and ``user`` (B,) int64 with its mask, the index of the user observed.
    """

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_modes": []}  # noqa: RUF012 (gymnasium's form)

    def __init__(self, num_envs: int = 1, *, seed: int | None = None, **config: Any) -> None:
        """Create the environment with B = ``num_envs`` users.

        Args:
            num_envs: B.
            seed: of users and responses until ``reset(seed=...)`` gives another; ``None``: a fresh one.
            config: the fields of :class:`envs.env_config.EnvConfig`: ``simulator`` or ``world``, ``settings``,
                ``splits``, ``observation``, ``device``.

        Raises:
            UserError: an unknown argument (the nearest one is named), a wrong value, or a catalogue or
                candidate sets that cannot fill a slate.
        """
        self.config = EnvConfig.from_mapping(config)
        if num_envs < 1:
            raise UserError(f"num_envs: at least one user is needed, got {num_envs}")
        self.num_envs = num_envs
        self.world, self.titles = self.config.open()
        rules, name = self.config.settings, self.config.observation
        self.single_observation_space = observation_space(self.world, rules, name)
        self.single_action_space = action_space(self.world)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        super().reset(seed=seed)
        self.simulator = self._new_simulator()
        self._finished = np.zeros(num_envs, np.bool_)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Arrays, _Infos]:
        """Seat new users everywhere.

        Args:
            seed: start all randomness anew; ``None``: go on with the present one.
            options: ``users``, B user indices to seat instead of drawn ones.

        Returns:
            Observations and infos.

        Raises:
            UserError: an unknown option, or users who are not of this population.
        """
        users = self._users_to_seat(options)
        super().reset(seed=seed)
        everybody = torch.ones(self.num_envs, dtype=torch.bool, device=self.world.device)
        if seed is not None:
            self.simulator = self._new_simulator()
        else:
            self.simulator.restart(everybody)
        if users is not None:
            draw = torch.from_numpy(self.np_random.random(self.num_envs)).to(self.world.device)
            self.simulator.arrive(everybody, users, draw)
        self._finished = np.zeros(self.num_envs, np.bool_)
        return self._observe(), self._user_info()

    def step(
        self, actions: ArrayLike
    ) -> tuple[Arrays, NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], _Infos]:
        """Show slates ``actions`` (B, K) to all users whose episode runs; seat new users in the other slots.

        Raises:
            UserError: actions of another shape or outside the action space.
        """
        seated = self._finished
        served = ~seated
        arriving = torch.from_numpy(seated).to(self.world.device)
        transition = self.simulator.advance(self._slates(actions, ignored=seated), hold=arriving)
        self.simulator.restart(arriving)
        reward = transition.reward.cpu().numpy() * served
        terminated = transition.terminated.cpu().numpy() & served
        truncated = transition.truncated.cpu().numpy() & served
        self._finished = terminated | truncated
        clicks = transition.click.cpu().numpy() & served[:, None]
        infos = {"clicks": clicks, "_clicks": served, **self._user_info()}
        return self._observe(), reward, terminated, truncated, infos

    def _new_simulator(self) -> Simulator:
        assert self.np_random_seed is not None
        return Simulator(self.world, self.config.settings, self.num_envs, self.np_random_seed)

    def _observe(self) -> Arrays:
        return observe(self.world, self.simulator.observation, self.config.observation)

    def _user_info(self) -> _Infos:
        return {"user": self.simulator.user.cpu().numpy().copy(), "_user": np.ones(self.num_envs, np.bool_)}

    def _slates(self, actions: ArrayLike, ignored: NDArray[np.bool_]) -> torch.Tensor:
        array, items = np.asarray(actions), self.world.num_items
        shape = (self.num_envs, self.world.slate_size)
        if array.shape != shape or not np.issubdtype(array.dtype, np.integer):
            raise UserError(f"actions: expected integers of shape {shape}, got {array.dtype} of {array.shape}")
        array = np.where(ignored[:, None], 0, array)
        if array.min() < 0 or array.max() >= items:
            raise UserError(
                f"actions: expected 0 … {items - 1} (item index − 1), got {array.min()} … {array.max()}"
            )
        return torch.from_numpy(array.astype(np.int64) + 1).to(self.world.device)

    def _users_to_seat(self, options: dict[str, Any] | None) -> torch.Tensor | None:
        given = dict(options or {})
        if given.get("users") is not None:
            given["users"] = np.asarray(given["users"]).tolist()
        users = _ResetOptions.from_mapping(given, where="options").users
        if users is None:
            return None
        population = self.world.population.users
        wanted = torch.tensor(users, dtype=torch.int64, device=population.device)
        if len(users) != self.num_envs or not bool(torch.isin(wanted, population).all()):
            raise UserError(f"options.users: expected {self.num_envs} users of this population, got {users}")
        return wanted


class SlateEnv(gymnasium.Env):
    """One user at a time.

    Info: ``clicks`` (K,) bool after a step, and ``user``, the index of the user served.
    """

    metadata = {"render_modes": ["ansi"]}  # noqa: RUF012 (gymnasium's form)

    def __init__(self, render_mode: str | None = None, *, seed: int | None = None, **config: Any) -> None:
        """Create the environment; arguments and errors as of :class:`SlateVectorEnv`.

        Args:
            render_mode: ``ansi``: ``render`` returns the last slate and its clicks as text.
            seed: of users and responses until ``reset(seed=...)`` gives another; ``None``: a fresh one.
            config: the fields of :class:`envs.env_config.EnvConfig`.

        Raises:
            TypeError: a render mode that is not offered.
        """
        if render_mode not in (None, *self.metadata["render_modes"]):
            # Stable-Baselines3 asks for rgb_array first and does without only after a TypeError.
            raise TypeError(f"render_mode: expected None or 'ansi', got {render_mode!r}")
        self.render_mode = render_mode
        self.users = SlateVectorEnv(1, seed=seed, **config)
        self.observation_space = self.users.single_observation_space
        self.action_space = self.users.single_action_space
        self._ended = True
        self._shown: list[tuple[int, bool]] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Arrays, dict[str, Any]]:
        """Seat a new user; ``options={"users": [index]}`` names them.

        Raises:
            UserError: an unknown option, or a user who is not of this population.
        """
        super().reset(seed=seed)
        observations, infos = self.users.reset(seed=seed, options=options)
        self._ended, self._shown = False, []
        return _first(observations), {"user": int(infos["user"][0])}

    def step(self, action: ArrayLike) -> tuple[Arrays, SupportsFloat, bool, bool, dict[str, Any]]:
        """Show the slate ``action`` (K,).

        Raises:
            UserError: an action of another shape or outside the action space.
            gymnasium.error.ResetNeeded: the episode has ended.
        """
        if self._ended:
            raise gymnasium.error.ResetNeeded("the episode has not begun or has ended: call reset()")
        slate = np.asarray(action)
        observations, reward, terminated, truncated, infos = self.users.step(slate[None])
        self._ended = bool(terminated[0] or truncated[0])
        clicks = infos["clicks"][0]
        self._shown = [(int(a) + 1, bool(c)) for a, c in zip(slate, clicks, strict=True)]
        info = {"clicks": clicks, "user": int(infos["user"][0])}
        return _first(observations), float(reward[0]), bool(terminated[0]), bool(truncated[0]), info

    def render(self) -> str | None:
        """The last slate, one item a line, clicks marked; ``None`` without a render mode."""
        if self.render_mode is None:
            return None
        simulator, titles = self.users.simulator, self.users.titles
        lines = [f"user {int(simulator.user[0])}, {int(simulator.steps[0])} slates shown"]
        for item, clicked in self._shown:
            name = f"item {item}" if titles is None else titles[item]
            lines.append(f"  {'+' if clicked else '-'} {name}")
        return "\n".join(lines)


def _first(observations: Arrays) -> Arrays:
    if isinstance(observations, dict):
        return {name: array[0] for name, array in observations.items()}
    return observations[0]
