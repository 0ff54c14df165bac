"""Throughput of training without RLlib: the fast loop beside the plain one, and RLlib's whole algorithm."""

import abc
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from envs.catalogue import Catalogue
from envs.errors import UserError
from envs.progress import Progress
from envs.randomness import stream_seed
from envs.simulator import Simulator
from envs.transition import Observation
from envs.world import World
from rl_rec.bench import agent
from rl_rec.bench.measure import Clock, Split, description, measure, ratio
from rl_rec.bench.settings import BenchSettings, agent_name, bench_settings
from rl_rec.bench.world import random_world
from rl_rec.policy import Decision, Policy
from rl_rec.replay import Replay
from rl_rec.rollout import Rollout
from rl_rec.transitions import Transitions

WARM_UP_BATCHES = 4
"""Batches in the replay before the first update."""


class TrainingLoop(abc.ABC):
    """Collect a fragment, store it, make the updates owed; of any algorithm."""

    def __init__(self, settings: BenchSettings[Any], world: World) -> None:
        """Make agent and simulator, and fill the replay for a start.

        Raises:
            UserError: what the plain version does not spell out.
        """
        if not Catalogue.of(world, settings.rules.catalogue).always_all:
            raise UserError("the plain loop knows whole catalogues only: leave rules.catalogue as it is")
        self.settings, self.agent = settings, agent.make(settings, world)
        self.networks, self.targets = self.agent.networks, self.agent.targets
        simulator = Simulator(world, settings.world_rules(), settings.users, settings.seed)
        self.rollout = Rollout(simulator, self.policy())
        self.replay = Replay(settings.capacity, stream_seed(settings.seed, 5), world.device)
        self.optimizers = self.make_optimizers()
        while len(self.replay) < WARM_UP_BATCHES * settings.batch_size:
            self.replay.add(self.rollout.collect(1))
        self._owed = 0.0

    @abc.abstractmethod
    def policy(self) -> Policy:
        """Who serves the users."""

    @abc.abstractmethod
    def make_optimizers(self) -> list[torch.optim.Optimizer]:
        """One for the actor, one for the critic."""

    @abc.abstractmethod
    def backward(self, batch: Transitions) -> None:
        """Set the gradients of ``networks``."""

    @abc.abstractmethod
    def move_targets(self) -> None:
        """Let the targets follow."""

    @abc.abstractmethod
    def weights_changed(self) -> None:
        """Called between updates and collecting."""

    def sample(self) -> Transitions:
        """One batch."""
        return Transitions(**self.replay.sample(self.settings.batch_size))

    def collect(self) -> dict[str, Tensor]:
        """A fragment of every user, by the weights of now."""
        self.weights_changed()
        return self.rollout.collect(self.settings.fragment)

    def run(self, fragments: int, clock: Clock = lambda part: nullcontext()) -> int:
        """Train for ``fragments`` fragments; returns user-steps."""
        settings = self.settings
        for _ in range(fragments):
            with clock("collect"):
                rows = self.collect()
            with clock("replay"):
                self.replay.add(rows)
            self._owed += len(rows["user"]) * settings.replay_ratio / settings.batch_size
            while self._owed >= 1:
                self._owed -= 1
                self.update(clock)
        return fragments * settings.fragment * settings.users

    def update(self, clock: Clock) -> None:
        """One update: gradients, both optimizers, targets."""
        with clock("replay"):
            batch = self.sample()
        with clock("gradients"):
            self.backward(batch)
        with clock("optimizers"):
            for optimizer in self.optimizers:
                optimizer.step()
        with clock("targets"), torch.no_grad():
            self.move_targets()


class FastLoop(TrainingLoop):
    """What the RLlib Learner does, without RLlib."""

    capturable = False
    """Whether a graph may hold the optimizers' steps."""

    def policy(self) -> Policy:
        """The algorithm's own."""
        self.actor = self.agent.policy()
        return self.actor

    def weights_changed(self) -> None:
        """The tables of the catalogue are made anew."""
        self.actor.weights_changed()

    def make_optimizers(self) -> list[torch.optim.Optimizer]:
        """Fused Adam; the lists of parameters are made once, as in the Learner."""
        self._followed: tuple[list[Tensor], list[Tensor]] = (
            list(self.targets.parameters()),
            list(self.networks.parameters()),
        )
        # On the CPU nothing is ever recorded, and Adam would refuse.
        return _adam(self, fused=True, capturable=self.capturable and self.settings.device.startswith("cuda"))

    def backward(self, batch: Transitions) -> None:
        """One shared forward pass and one backward pass."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        self.agent.loss(batch).backward()

    def move_targets(self) -> None:
        """All at once."""
        targets, networks = self._followed
        torch._foreach_lerp_(targets, networks, self.settings.agent.tau)


class PlainLoop(TrainingLoop):
    """The same training, written plainly; see :mod:`rl_rec.bench.plain` and ``plain_hsrl``."""

    def policy(self) -> Policy:
        """The plain agent, on this loop's networks."""
        self.plain: Any = self.agent.plain()
        return _PlainPolicy(self)

    def make_optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam as it comes."""
        return _adam(self)

    def weights_changed(self) -> None:
        """Nothing is kept between steps."""

    def backward(self, batch: Transitions) -> None:
        """A pass per loss."""
        self.plain.backward(self.networks, self.targets, batch)

    def move_targets(self) -> None:
        """One parameter at a time."""
        for target, parameter in zip(self.targets.parameters(), self.networks.parameters(), strict=True):
            target.lerp_(parameter, self.settings.agent.tau)


class _PlainPolicy:
    def __init__(self, loop: PlainLoop) -> None:
        self._loop = loop

    def act(self, observation: Observation) -> Decision:
        decision: Decision = self._loop.plain.act(self._loop.networks, observation)
        return decision


def _adam(loop: TrainingLoop, **options: Any) -> list[torch.optim.Optimizer]:
    rates = loop.settings.agent
    return [
        torch.optim.Adam(loop.networks.policy_parameters(), lr=rates.actor_lr, **options),
        torch.optim.Adam(loop.networks.critic.parameters(), lr=rates.critic_lr, **options),
    ]


def bench_train(settings: BenchSettings[Any], with_ray: bool, progress: Progress) -> dict[str, Any]:
    """User-steps per second of the fast loop, beside the plain one and, if asked for, RLlib's algorithm.

    HSRL is measured beside HAC's fast loop too, of the same encoder.
    """
    world = random_world(settings.world, settings.seed, settings.device)
    name = agent_name(settings)
    fast, plain = FastLoop(settings, world), PlainLoop(settings, world)
    difference = gradient_difference(fast, plain)
    fragments = -(-settings.steps // settings.fragment)
    variants: dict[str, Callable[[], int]] = {
        "fast": lambda: fast.run(fragments),
        "plain": lambda: plain.run(fragments),
    }
    if name != "hac":
        beside = FastLoop(_as_hac(settings), world)
        variants["hac"] = lambda: beside.run(fragments)
    if with_ray:
        from rl_rec.bench.rllib import Training

        trained = Training(settings, world, fragments)
        variants["rllib"] = trained.run
    rounds = measure(variants, settings.repeats, settings.device, progress)
    clock = Split(settings.device)
    fast.run(fragments, clock)
    result = {
        **description("train", settings),
        "agent": name,
        **rounds["fast"].summary(),
        "fragment": settings.fragment,
        "batch_size": settings.batch_size,
        "replay_ratio": settings.replay_ratio,
        "history_filled": float((fast.replay.columns["history"][: len(fast.replay)] != 0).float().mean()),
        "gradient_difference": difference,
        "gradients_equal": difference <= 1e-5,
        "plain": rounds["plain"].summary(),
        "fast_to_plain": ratio(rounds, "fast", "plain", settings),
        "time_split": clock.shares(),
    }
    if name != "hac":
        result["hac"] = rounds["hac"].summary()
        result[f"{name}_to_hac"] = ratio(rounds, "hac", "fast", settings)  # of time per user-step
    if with_ray:
        result["rllib"] = rounds["rllib"].summary()
        result["rllib_to_fast"] = ratio(rounds, "rllib", "fast", settings)
        trained.stop()
    return result


def _as_hac(settings: BenchSettings[Any]) -> BenchSettings[Any]:
    """HAC in the same world, with the same encoder."""
    values = {name: getattr(settings, name) for name in type(settings).model_fields if name != "agent"}
    made = bench_settings("hac", **values)
    agent_settings = made.agent.model_copy(update={"encoder": settings.agent.encoder})
    return made.model_copy(update={"agent": agent_settings})


def gradient_difference(fast: FastLoop, plain: PlainLoop) -> float:
    """Largest difference of any gradient on one batch, relative to the largest gradient.

    Both start from the same weights; the targets are moved away first, so that they matter.
    """
    with torch.no_grad():
        for loop in (fast, plain):
            for target in loop.targets.parameters():
                target.mul_(0.9)
    batch = fast.sample()
    for loop in (fast, plain):
        loop.backward(batch)
    pairs = [
        (a.grad, b.grad) for a, b in zip(fast.networks.parameters(), plain.networks.parameters(), strict=True)
    ]
    largest = max(float(_dense(a, b).abs().max()) for a, b in pairs)
    return max(float((_dense(a, b) - _dense(b, a)).abs().max()) for a, b in pairs) / largest


def _dense(gradient: Tensor | None, like: Tensor | None) -> Tensor:
    """A parameter that no loss reaches has no gradient: zeros, whichever way the loop says so."""
    if gradient is not None:
        return gradient
    return torch.zeros(()) if like is None else torch.zeros_like(like)
