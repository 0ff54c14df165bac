"""RLlib's side of the comparisons. Needs Ray, and imports it only when called."""

from typing import Any

from envs.env_config import ENV_ID
from envs.world import World
from rl_rec.agents import find_agent
from rl_rec.bench.settings import BenchSettings, agent_name


def env_runner(settings: BenchSettings[Any], world: World) -> Any:
    """The batched env runner on ``world``, in this process."""
    from rl_rec.env_runner import BatchedEnvRunner

    return BatchedEnvRunner(config=_config(settings, world, settings.steps * settings.users), worker_index=0)


class Training:
    """RLlib's whole algorithm on ``world``: local, without evaluation, an iteration a round."""

    def __init__(self, settings: BenchSettings[Any], world: World, fragments: int) -> None:
        """Each ``run`` is one iteration of ``fragments`` fragments."""
        self._units = fragments * settings.fragment * settings.users
        self.algorithm = _config(settings, world, self._units).build_algo()

    def run(self) -> int:
        """One ``Algorithm.train()``; returns user-steps."""
        self.algorithm.train()
        return self._units

    def stop(self) -> None:
        """Release RLlib's resources."""
        self.algorithm.stop()


def _config(settings: BenchSettings[Any], world: World, report_every: int) -> Any:
    from rl_rec.train_settings import EvaluationSettings, ReplaySettings, RolloutSettings

    algorithm = find_agent(agent_name(settings))
    train = algorithm.train_settings(
        steps=10**9,
        seed=settings.seed,
        device=settings.device,
        report_every=report_every,
        world=settings.world_rules(),
        rollout=RolloutSettings(users=settings.users, fragment=settings.fragment),
        replay=ReplaySettings(
            capacity=settings.capacity,
            ratio=settings.replay_ratio,
            batch_size=settings.batch_size,
            learning_starts=0,
        ),
        evaluation=EvaluationSettings(every=0),
    ).model_copy(update={"agent": settings.agent})
    config = algorithm.rllib_config()
    config.settings = train.model_dump(mode="json")
    config.environment(ENV_ID, env_config={"world": world})
    return config.env_runners(num_env_runners=0).learners(num_gpus_per_learner=_gpus(settings.device))


def _gpus(device: str) -> int:
    return int(device.startswith("cuda"))
