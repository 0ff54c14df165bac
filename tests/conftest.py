"""Threads tamed before torch is imported, one Ray for all tests that need it, and small worlds."""

import os

# Spinning OpenMP threads make torch up to 100 times slower where several processes share the cores.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("MPLBACKEND", "Agg")

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cluster.drills.simulator import make_simulator
from envs.response import FrozenResponse, ResponseModel, ResponseSettings
from envs.world import Population, World

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def ray_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A local Ray with two CPUs, shared by all tests marked ``ray``."""
    import ray  # seconds: only the tests that ask for it wait

    os.environ["RL_REC_CACHE"] = str(tmp_path_factory.mktemp("cache"))  # of the workers too
    ray.init(
        address="local",  # never a cluster that somebody else started on this machine
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=100 * 1024**2,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def small_world() -> Callable[..., World]:
    """A maker of small random worlds: ``small_world(items=30, ...)``; the same arguments, the same world."""
    return _small_world


def _small_world(
    *,
    items: int = 30,
    users: int = 16,
    slate: int = 4,
    profile_features: int = 5,
    item_features: int = 6,
    logits: Sequence[float] | None = None,
    seed: int = 0,
) -> World:
    """A world of random weights, features and logged likes; items are as old as their index is low.

    Args:
        items, users, slate, profile_features, item_features: N, U, K, P, F.
        logits: N response logits that hold for every user; ``None``: the random model's.
        seed: of everything random.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ResponseModel(profile_features, item_features, ResponseSettings(dim=8, hidden=16))
    profiles = torch.randn(users, profile_features, generator=generator)
    features = torch.randn(items + 1, item_features, generator=generator)
    features[0] = 0.0
    response = FrozenResponse(model, profiles, features)
    if logits is not None:
        response.items.zero_()
        response.item_bias = torch.tensor([0.0, *logits])[:, None]
    sessions, likes = 3, 6  # per user
    population = Population(
        users=torch.arange(users),
        likes=torch.cat([torch.randperm(items, generator=generator)[:likes] + 1 for _ in range(users)]),
        like_offsets=torch.arange(users + 1) * likes,
        session_offsets=torch.arange(users + 1) * sessions,
        likes_before=torch.arange(sessions).repeat(users) * (likes // (sessions - 1)),
    )
    return World(response, population, profiles, features, slate, item_age=torch.arange(items + 1))


@pytest.fixture(scope="session")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulator folder with a response model that was never fitted: as good as any to learn in."""
    return make_simulator(tmp_path_factory.mktemp("simulator"))


@pytest.fixture(scope="session")
def small_run() -> list[str]:
    """Assignments of a run in ``simulator`` that takes a moment."""
    return [
        "report_every=100",
        "checkpoint_every=100",
        "world.history_length=4",
        "world.max_steps=5",
        "rollout.users=10",
        "rollout.fragment=5",
        "replay.learning_starts=50",
        "replay.batch_size=16",
        "replay.capacity=250",
        "evaluation.every=200",
        "evaluation.episodes=16",
        "agent.encoder.dim=8",
        "agent.encoder.heads=2",
        "agent.encoder.feedforward=8",
        "agent.item_hidden=4",
    ]


class _Largest(TorchDispatchMode):
    """Watches every operation, forward and backward, for its largest result."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for part in tree_leaves(result):
            if isinstance(part, Tensor):
                self.numel = max(self.numel, part.numel())
        return result


@pytest.fixture
def largest_tensor() -> Callable[[Callable[[], object]], int]:
    """Elements of the largest tensor that a call makes on its way."""

    def measure(call: Callable[[], object]) -> int:
        with _Largest() as watch:
            call()
        return watch.numel

    return measure


@pytest.fixture
def two_kinds(small_world: Callable[..., World]) -> World:
    """logit = ±3: users of kind ±1 like items of kind ±1, ten of each. Any slate for everybody gets half."""
    items, users = 20, 40
    world = small_world(
        items=items, users=users, slate=2, profile_features=2, item_features=3, logits=[0.0] * items
    )
    kind, taste = torch.ones(users), torch.ones(items + 1)
    kind[::2], taste[::2] = -1, -1
    world.profiles[:, 0], world.item_features[1:, 0] = kind, taste[1:]
    response = world.response
    response.items[1:, 0] = 3 * taste[1:]
    response.outputs.zero_()
    response.history_offset.zero_()
    response.user_offset.zero_()
    response.user_offset[:, 0] = kind
    return world
