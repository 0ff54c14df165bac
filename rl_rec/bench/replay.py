"""Throughput of the columnar replay."""

from typing import Any

import torch

from envs.progress import Progress
from rl_rec.bench.agent import rollout
from rl_rec.bench.measure import description, measure
from rl_rec.bench.settings import BenchSettings
from rl_rec.bench.world import random_world
from rl_rec.replay import Replay


def bench_replay(settings: BenchSettings[Any], progress: Progress) -> dict[str, Any]:
    """Rows per second added (B at a time) and sampled (a batch at a time), and the bytes of a row."""
    world = random_world(settings.world, settings.seed, settings.device)
    rows = rollout(settings, world).collect(1)
    replay = Replay(max(settings.capacity, settings.users), settings.seed, torch.device(settings.device))
    while len(replay) < replay.capacity:  # reads should miss the cache as they do in training
        replay.add(rows)

    def add() -> int:
        for _ in range(settings.steps):
            replay.add(rows)
        return settings.steps * settings.users

    def sample() -> int:
        for _ in range(settings.steps):
            replay.sample(settings.batch_size)
        return settings.steps * settings.batch_size

    rounds = measure({"add": add, "sample": sample}, settings.repeats, settings.device, progress)
    added, sampled = (rounds[name].summary() for name in ("add", "sample"))
    add_s, sample_s = (1 / figures["user_steps_per_s"] for figures in (added, sampled))
    sample_s *= settings.replay_ratio  # per user-step
    return {
        **description("replay", settings),
        "user_steps_per_s": 1 / (add_s + sample_s),
        "added_rows_per_s": added["user_steps_per_s"],
        "sampled_rows_per_s": sampled["user_steps_per_s"],
        "row_bytes": sum(column[0].nbytes for column in replay.columns.values()),
        "rows": len(replay),
        "batch_size": settings.batch_size,
        "replay_ratio": settings.replay_ratio,
        "time_split": {"add": add_s / (add_s + sample_s), "sample": sample_s / (add_s + sample_s)},
    }
