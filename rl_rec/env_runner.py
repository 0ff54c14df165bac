"""The batched env runner: RLlib's env runner contract over tensor rollouts, the same local and remote."""

import time
from collections.abc import Collection
from typing import Any, Protocol

import gymnasium as gym
import torch
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES, INPUT_ENV_SPACES
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.utils.checkpoints import Checkpointable
from ray.rllib.utils.framework import get_device
from ray.rllib.utils.metrics import (
    NUM_ENV_STEPS_SAMPLED,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    WEIGHTS_SEQ_NO,
)
from torch import Tensor

from envs.memory import keep_freed_memory
from envs.randomness import restore, stream_seed
from envs.rllib import world_from_env_config
from envs.simulator import Simulator
from rl_rec import metrics as names
from rl_rec.rl_module import placed
from rl_rec.rollout import EpisodeStatistics, Rollout

_REMOTE_STREAMS = 1000

WEIGHTS_UPDATES, SENT_AT = "weights_updates", "sent_at"
"""In a message of weights: the updates behind them, and the sender's clock (seconds since the epoch)."""


class Columns:
    """Transitions of one ``sample`` call; not a mapping, which RLlib would flatten."""

    def __init__(
        self,
        columns: dict[str, Any],
        seconds: float = 0.0,
        weights_updates: int = 0,
        weights_s: float | None = None,
    ) -> None:
        self.columns = columns
        self.seconds = seconds
        """That the runner took."""
        self.weights_updates = weights_updates
        """Updates behind the weights that chose the slates."""
        self.weights_s = weights_s
        """Seconds that weights were on their way which arrived since the last fragment; needs equal clocks."""

    def env_steps(self) -> int:
        """Number of user-steps."""
        return len(self.columns["user"])

    def agent_steps(self) -> int:
        """Number of user-steps."""
        return self.env_steps()

    def tensors(self, device: torch.device | str) -> dict[str, Tensor]:
        """The columns on ``device``; numpy columns that came over the network are copied."""
        return {
            name: (column if isinstance(column, Tensor) else torch.tensor(column)).to(device)
            for name, column in self.columns.items()
        }


class Experience(Protocol):
    """Where transitions come from."""

    statistics: EpisodeStatistics

    def collect(self, steps: int) -> dict[str, Tensor]:
        """Columns of ``steps`` × users rows."""

    def state_dict(self) -> dict[str, Any]:
        """What changes."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue bit-equal from ``state_dict``."""


class BatchedEnvRunner(EnvRunner, Checkpointable):
    """Serves B users at once on its device and returns transitions as columns.

    The RLModule must offer ``rollout_policy(world, settings, generator)``. Needs no connectors and no episode
    objects.
    """

    def __init__(self, *, config: Any, **kwargs: Any) -> None:
        keep_freed_memory()  # a process of its own where it is remote
        super().__init__(config=config, **kwargs)
        self._settings = config.train_settings()
        self._device = (
            get_device(self.config, self.config.num_gpus_per_env_runner)
            if self.worker_index
            else torch.device(self._settings.main_device)
        )
        # Far from the numbers of other purposes: a seed's path may end in a stream or in a purpose.
        self._stream = _REMOTE_STREAMS + self.worker_index if self.worker_index else 0
        self._weights_seq_no = 0
        self._weights_updates = 0
        self._weights_s: float | None = None
        self.rollout: Experience | None = None
        self.module: Any = None
        self.make_env()
        self.make_module()

    def make_env(self) -> None:
        """Load the world and seat the first users."""
        world, rules = world_from_env_config(self.config.world_config(), self._device)
        users, seed = self._settings.rollout.users, self._settings.seed
        self._simulator = Simulator(world, rules, users, seed, self._stream)

    def make_module(self) -> None:
        """Build the networks that choose the slates, with their own generator of exploration noise."""
        spec = self.config.get_multi_rl_module_spec(spaces=self.get_spaces(), inference_only=True)
        self._noise = torch.Generator(self._device)
        self._noise.manual_seed(stream_seed(self._settings.seed, self._stream, 2))
        module = placed(spec, self._device).build()
        module[DEFAULT_MODULE_ID].to(self._device)
        self._use(module)

    def _use(self, module: Any) -> None:
        self.module, simulator = module, self._simulator
        self._policy = module[DEFAULT_MODULE_ID].rollout_policy(
            simulator.world, simulator.settings, self._noise
        )
        self.rollout = Rollout(simulator, self._policy)

    def sample(self, *, steps: int | None = None, **exploration: float) -> list[Columns]:
        """Serve every user ``steps`` times (by default one fragment).

        Args:
            steps: steps of every user.
            exploration: parameters of the policy from a schedule, e.g. ``sigma``.

        Returns:
            One ``Columns``; tensors from the local runner, numpy from a remote one.
        """
        assert self.rollout is not None
        began = time.perf_counter()
        for name, value in exploration.items():
            setattr(self._policy, name, value)
        self._policy.weights_changed()
        columns: dict[str, Any] = self.rollout.collect(steps or self._settings.rollout.fragment)
        count = len(columns["user"])
        self.metrics.log_value(NUM_ENV_STEPS_SAMPLED, count, reduce="sum")
        self.metrics.log_value(NUM_ENV_STEPS_SAMPLED_LIFETIME, count, reduce="lifetime_sum")
        if self.worker_index:
            columns = {name: column.cpu().numpy() for name, column in columns.items()}
        weights_s, self._weights_s = self._weights_s, None
        return [Columns(columns, time.perf_counter() - began, self._weights_updates, weights_s)]

    def get_metrics(self) -> Any:
        """Figures over all users who finished since the last call."""
        if self.rollout is not None:
            figures = self.rollout.statistics.drain()
            self.metrics.log_value(names.EPISODES, figures.pop("episodes"), reduce="sum")
            for name, value in figures.items():
                self.metrics.log_value(names.OF_ROLLOUT[name], value, window=1)
        return self.metrics.reduce()

    def get_spaces(self) -> dict[str, tuple[gym.Space, gym.Space]]:
        """Spaces of the façade (RLlib asks for them; the networks take their sizes from the world)."""
        items, rules = self._simulator.world.num_items, self._simulator.settings
        observation = gym.spaces.MultiDiscrete([items + 1] * rules.history_length)
        action = gym.spaces.MultiDiscrete([items] * self._simulator.world.slate_size)
        spaces = (observation, action)
        return {INPUT_ENV_SPACES: spaces, INPUT_ENV_SINGLE_SPACES: spaces, DEFAULT_MODULE_ID: spaces}

    def share(self, module: MultiRLModule) -> None:
        """Act with the learner's own weights (same process): nothing needs to be copied."""
        self._use(module)

    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Rollout, generators and metrics; the weights too where ``components`` asks for them."""
        state: dict[str, Any] = {
            WEIGHTS_SEQ_NO: self._weights_seq_no,
            WEIGHTS_UPDATES: self._weights_updates,
        }
        if self.rollout is not None:
            state["rollout"] = self.rollout.state_dict()
            state["noise"] = self._noise.get_state()
            state["stream"] = self.worker_index or 0
            if self._check_component(COMPONENT_RL_MODULE, components, not_components):
                state[COMPONENT_RL_MODULE] = self.module.get_state(inference_only=True)
        return state

    def set_state(self, state: Any) -> None:
        """Take over weights (from a learner) or everything (from a checkpoint)."""
        import ray

        if COMPONENT_RL_MODULE in state and self.module is not None:
            weights_seq_no = state.get(WEIGHTS_SEQ_NO, 0)
            if weights_seq_no == 0 or self._weights_seq_no < weights_seq_no:
                weights = state[COMPONENT_RL_MODULE]
                if isinstance(weights, ray.ObjectRef):
                    weights = ray.get(weights)
                self.module.set_state(weights)
                self._weights_seq_no = weights_seq_no  # 0, of the local runner: whatever comes next is newer
                self._weights_updates = state.get(WEIGHTS_UPDATES, self._weights_updates)
            if SENT_AT in state:
                self._weights_s = time.time() - state[SENT_AT]
        # RLlib gives a restarted runner the local runner's state: its users and draws would be the same in all.
        stream = self.worker_index or 0
        own = state.get("stream", stream) == stream
        if "rollout" in state and own and self.rollout is not None:
            self._weights_updates = state.get(WEIGHTS_UPDATES, self._weights_updates)
            self.rollout.load_state_dict(state["rollout"])
            restore(self._noise, state["noise"])

    def accept_older_weights(self) -> None:
        """Take the next weights whatever their number: those of a checkpoint may be older than these."""
        self._weights_seq_no = 0

    def get_ctor_args_and_kwargs(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """How to build this runner again."""
        return (), {"config": self.config}

    def get_checkpointable_components(self) -> list[tuple[str, Any]]:
        """None with a folder of its own: weights are the learner's to save."""
        return []

    def assert_healthy(self) -> None:
        """Raise unless the runner can sample."""
        assert self.rollout is not None and isinstance(self.module, MultiRLModule)

    def stop(self) -> None:
        """Nothing to release."""
