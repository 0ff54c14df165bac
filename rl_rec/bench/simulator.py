"""Throughput of the simulator alone, and where its time goes."""

import statistics
from collections.abc import Callable
from typing import Any

import torch

from envs.history import append_clicked
from envs.progress import Progress
from envs.randomness import stream_seed
from envs.simulator import Simulator
from rl_rec.bench.measure import description, measure
from rl_rec.bench.settings import BenchSettings
from rl_rec.bench.world import random_world

SLATES = 8
"""Different slates prepared for every user, so that none has to be chosen while the clock runs."""


def bench_simulator(settings: BenchSettings[Any], progress: Progress) -> dict[str, Any]:
    """User-steps per second on random slates, and each part's share, timed on its own in the same rounds."""
    world = random_world(settings.world, settings.seed, settings.device)
    simulator = Simulator(world, settings.world_rules(), settings.users, settings.seed)
    generator = torch.Generator().manual_seed(stream_seed(settings.seed, 2))
    size, steps = (settings.users, world.num_items), settings.steps
    slates = [
        (torch.rand(size, generator=generator).topk(world.slate_size).indices + 1).to(settings.device)
        for _ in range(SLATES)
    ]
    click = torch.rand(settings.users, world.slate_size, generator=generator).to(settings.device) < 0.5
    recency = torch.arange(settings.world.history, device=settings.device)
    nobody = torch.zeros(settings.users, dtype=torch.bool, device=settings.device)

    def step(index: int) -> None:
        simulator.step(slates[index % SLATES])

    def response(index: int) -> None:
        z = world.response.user_vectors(simulator.user, simulator.history)
        world.response.logits(z, slates[index % SLATES])

    def history(index: int) -> None:
        append_clicked(simulator.history, slates[index % SLATES], click, recency)

    def arrivals(_: int) -> None:
        simulator.restart(nobody)

    def legality(index: int) -> None:
        simulator.may_show(slates[index % SLATES])

    def rounds_of(work: Callable[[int], None]) -> Callable[[], int]:
        def run() -> int:
            for index in range(steps):
                work(index)
            return steps * settings.users

        return run

    parts = {
        "step": step,
        "response_model": response,
        "history_update": history,
        "arrivals": arrivals,
        "may_show": legality,
    }
    rounds = measure(
        {name: rounds_of(work) for name, work in parts.items()}, settings.repeats, settings.device, progress
    )
    whole = rounds["step"]
    share = {
        name: statistics.median(a / b for a, b in zip(whole.per_s, rounds[name].per_s, strict=True))
        for name in parts
        if name != "step"
    }
    return {
        **description("simulator", settings),
        **whole.summary(),
        "time_split": {**share, "rest": 1.0 - sum(share.values())},
    }
