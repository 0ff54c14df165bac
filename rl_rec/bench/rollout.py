"""Throughput of collecting: the bare tensor loop, and RLlib's env runner contract around it."""

from collections.abc import Callable
from typing import Any

from envs.progress import Progress
from rl_rec.bench import agent
from rl_rec.bench.measure import Split, description, measure, ratio
from rl_rec.bench.settings import BenchSettings, agent_name
from rl_rec.bench.world import random_world
from rl_rec.rollout import Rollout


def bench_rollout(settings: BenchSettings[Any], with_ray: bool, progress: Progress) -> dict[str, Any]:
    """User-steps per second of ``Rollout.collect``; with ``with_ray`` of the batched env runner beside it."""
    world = random_world(settings.world, settings.seed, settings.device)
    bare = agent.rollout(settings, world)
    policy: Any = bare.policy
    fragments = -(-settings.steps // settings.fragment)
    units = fragments * settings.fragment * settings.users

    def collect() -> int:
        for _ in range(fragments):
            policy.weights_changed()
            bare.collect(settings.fragment)
        bare.statistics.drain()
        return units

    variants: dict[str, Callable[[], int]] = {"bare": collect}
    if with_ray:
        from rl_rec.bench.rllib import env_runner

        runner = env_runner(settings, world)

        def sample() -> int:
            for _ in range(fragments):
                runner.sample()
            runner.get_metrics()
            return units

        variants["env_runner"] = sample
    rounds = measure(variants, settings.repeats, settings.device, progress)
    result = {
        **description("rollout", settings),
        "agent": agent_name(settings),
        **rounds["bare"].summary(),
        "fragment": settings.fragment,
        "time_split": _split(bare, settings),
    }
    if with_ray:
        result["env_runner"] = rounds["env_runner"].summary()
        result["env_runner_to_bare"] = ratio(rounds, "env_runner", "bare", settings)
    return result


def _split(bare: Rollout, settings: BenchSettings[Any]) -> dict[str, float]:
    clock = Split(settings.device)
    for _ in range(settings.steps):
        with clock("policy"):
            decision = bare.policy.act(bare.simulator.observation)
        with clock("simulator"):
            done = bare.simulator.step(decision.slate)
        with clock("statistics"):
            bare.statistics.update(decision.slate, done.click, done.reward, done.terminated | done.truncated)
    return clock.shares()
