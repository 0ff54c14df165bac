"""Evaluation: the same code for agents and reference policies, exactly one episode per arriving user.

Stepping until a fixed number of episodes has ended would favour short ones; here a fixed set of users is
served until each has left.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import isnan
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from envs.catalogue import Catalogue
from envs.progress import Progress, silent
from envs.randomness import stream_seed
from envs.simulator import Simulator
from envs.world import World
from envs.world_settings import WorldSettings
from rl_rec.outcomes import Outcomes
from rl_rec.policy import Policy
from rl_rec.sweet_point import one_deliberate_miss

MakePolicy = Callable[[Simulator], Policy]

_USERS_AT_ONCE = 1024


class Misses(NamedTuple):
    """How a policy meets ``sweet_point``, as shares of all steps; see ``rl_rec.sweet_point``."""

    deliberate_miss_share: float
    """Slates with exactly one item that is less likely to be clicked than the median of what may be shown."""
    one_short_share: float
    """Slates that got exactly K − 1 clicks."""


@dataclass(frozen=True)
class Evaluation:
    """What a policy reached on a fixed set of users."""

    returns: Tensor
    """(E,) float64, one a user's episode."""
    users: Tensor
    """(E,) int64, who it was."""
    depth: Tensor
    """(E,) int64 steps until the user left or was cut off."""
    clicks: Tensor
    """(E,) int64 responses to all their slates."""
    click_rate: float
    """Clicks per shown item."""
    distinct_items: int
    """Items shown to anybody."""
    coverage: float
    """``distinct_items`` as a share of the catalogue."""
    intra_list_diversity: float
    """Mean cosine distance between the features of two items of one slate."""
    new_item_share: float
    """Share of all shown slots whose item was withheld when the world began; NaN where none is."""
    uncertainty: Tensor | None = None
    """Of every shown slot, float32; ``None`` where the simulator has no ensemble."""
    supported_up_to: float = float("nan")
    """The ensemble's threshold."""
    misses: Misses | None = None
    """Under the reward ``sweet_point``."""
    outcomes: Outcomes | None = None
    """Of each behaviour, and the money it moved."""

    @property
    def unsupported_share(self) -> float:
        """Share of shown slots whose uncertainty is above that of 95% of the logged exposures, or NaN."""
        if self.uncertainty is None:
            return float("nan")
        return float((self.uncertainty > self.supported_up_to).double().mean())

    @property
    def return_mean(self) -> float:
        """Mean return per episode."""
        return float(self.returns.mean())

    @property
    def return_ci95(self) -> tuple[float, float]:
        """95% interval of the mean; a user's repeated visits count as one cluster. NaN for a single user."""
        _, cluster = self.users.unique(return_inverse=True)
        clusters = int(cluster.max()) + 1
        deviation = torch.zeros(clusters, dtype=torch.float64, device=self.returns.device)
        deviation.index_add_(0, cluster, self.returns - self.returns.mean())
        if clusters == 1:
            return (float("nan"), float("nan"))
        unbiased = (clusters / (clusters - 1)) ** 0.5
        half = 1.96 * unbiased * float(deviation.square().sum().sqrt()) / len(self.returns)
        return (self.return_mean - half, self.return_mean + half)

    def summary(self) -> dict[str, object]:
        """Plain figures; ``None`` for the share of new items where there are none.

        With an ensemble also ``uncertainty_mean`` and ``unsupported_share``, under ``sweet_point`` also
        ``Misses``, where there are several behaviours also those of ``rl_rec.outcomes``.
        """
        figures: dict[str, object] = {
            "return_mean": self.return_mean,
            "return_ci95": list(self.return_ci95),
            "depth_mean": float(self.depth.double().mean()),
            "click_rate": self.click_rate,
            "distinct_items": self.distinct_items,
            "coverage": self.coverage,
            "intra_list_diversity": self.intra_list_diversity,
            "new_item_share": None if isnan(self.new_item_share) else self.new_item_share,
            "episodes": len(self.returns),
            **(self.outcomes.summary() if self.outcomes else {}),
        }
        if self.uncertainty is not None:
            figures["uncertainty_mean"] = float(self.uncertainty.double().mean())
            figures["unsupported_share"] = self.unsupported_share
        return figures if self.misses is None else figures | self.misses._asdict()


def normalised(value: float, random: float, oracle: float) -> float:
    """Place of a return between the random policy's (0) and the myopic oracle's (1)."""
    return (value - random) / (oracle - random) if oracle != random else float("nan")


@torch.no_grad()
def evaluate(
    world: World,
    settings: WorldSettings,
    make_policy: MakePolicy,
    episodes: int,
    seed: int,
    progress: Progress = silent,
    returns_only: bool = False,
) -> Evaluation:
    """Serve ``episodes`` users, one episode each.

    Every user of the world comes equally often, give or take one. The same seed brings the same users, start
    histories and response draws, whatever the policy: comparisons are paired. The world's clock starts at 0 for
    every batch of users.

    Args:
        world: its population is who is served.
        settings: the world's rules.
        make_policy: builds the policy for a simulator.
        episodes: E, number of users served.
        seed: of users and responses.
        progress: called after every batch of users.
        returns_only: leave out the uncertainty and ``Misses``, which take longer than the rest.
    """
    device = world.device
    shuffle = torch.Generator(device).manual_seed(stream_seed(seed, 0))
    population = world.population.users
    repeats = -(-episodes // len(population))
    order = torch.cat(
        [torch.randperm(len(population), generator=shuffle, device=device) for _ in range(repeats)]
    )
    users = population[order[:episodes]]
    session_draw = torch.rand(episodes, generator=shuffle, device=device)
    return serve(world, settings, make_policy, users, session_draw, seed, progress, returns_only)


@torch.no_grad()
def serve(
    world: World,
    settings: WorldSettings,
    make_policy: MakePolicy,
    users: Tensor,
    session_draw: Tensor,
    seed: int,
    progress: Progress = silent,
    returns_only: bool = False,
) -> Evaluation:
    """Serve given users, one episode each; see ``evaluate``.

    Args:
        world: where.
        settings: the world's rules.
        make_policy: builds the policy for a simulator.
        users: (E,) int64, who comes.
        session_draw: (E,) uniform in [0, 1): before which of their logged sessions.
        seed: of responses.
        progress: called after every batch of users.
        returns_only: as of ``evaluate``.
    """
    ensemble = None if returns_only else world.ensemble
    leave_a_miss = settings.reward == "sweet_point" and not returns_only
    device, episodes = world.device, len(users)
    similarity = F.normalize(world.item_features, dim=1)  # (N+1, F)
    shown = torch.zeros(world.num_items + 1, dtype=torch.int64, device=device)
    returns, depths, counted, moved = [], [], [], []
    slots = diversity = slates = torch.zeros((), dtype=torch.float64, device=device)
    deliberate = one_short = slates
    uncertainty: list[Tensor] = []
    asked: list[Tensor] = []  # whether somebody was there to be unsure about
    for part, batch in enumerate(users.split(_USERS_AT_ONCE)):
        simulator = Simulator(world, settings, len(batch), seed, stream=1 + part)
        everybody = torch.ones(len(batch), dtype=torch.bool, device=device)
        first = part * _USERS_AT_ONCE
        simulator.arrive(everybody, batch, session_draw[first : first + len(batch)])
        policy = make_policy(simulator)
        total = torch.zeros(len(batch), dtype=torch.float64, device=device)
        depth = torch.zeros(len(batch), dtype=torch.int64, device=device)
        counts = torch.zeros(len(batch), len(world.behaviours), dtype=torch.int64, device=device)
        money = torch.zeros_like(counts, dtype=torch.float64)
        gone = ~everybody
        for _ in range(settings.max_steps):
            observation = simulator.observation
            slate = policy.act(observation).slate
            here = ~gone
            if ensemble is not None:
                known = slate.clamp(0, world.num_items)
                unsure = ensemble.uncertainty(observation.user, observation.history, known)
                uncertainty.append(unsure)
                asked.append(here)
            if leave_a_miss:
                deliberate = deliberate + (one_deliberate_miss(simulator, observation, slate) & here).sum()
            transition = simulator.advance(slate, hold=gone)
            total += transition.reward * here
            depth += here
            happened = transition.response & here[:, None, None]  # (B, K, A)
            counts += happened.sum(dim=1)
            money += (happened * world.money[slate].double()).sum(dim=1)
            one_short = one_short + ((transition.click.sum(dim=1) == slate.shape[1] - 1) & here).sum()
            slots = slots + here.sum() * slate.shape[1]
            shown.scatter_add_(0, slate.flatten(), here.long()[:, None].expand_as(slate).flatten())
            together = F.embedding(slate, similarity).sum(dim=1).square().sum(dim=1)  # ‖Σ f‖², (B,)
            pairs = slate.shape[1] * (slate.shape[1] - 1)
            if pairs:
                diversity = diversity + ((1 - (together - slate.shape[1]) / pairs) * here).sum()
            slates = slates + here.sum()
            gone = gone | transition.terminated | transition.truncated
        returns.append(total)
        depths.append(depth)
        counted.append(counts)
        moved.append(money)
        progress(first + len(batch), episodes, "users served")
    all_counts, depth = torch.cat(counted), torch.cat(depths)
    catalogue = Catalogue.of(world, settings.catalogue)
    distinct = int((shown[1:] > 0).sum())
    new = int(shown[catalogue.withheld].sum()) if catalogue.num_withheld else float("nan")
    return Evaluation(
        returns=torch.cat(returns),
        users=users,
        depth=depth,
        clicks=all_counts[:, 0],
        click_rate=float(all_counts[:, 0].sum() / slots),
        distinct_items=distinct,
        coverage=distinct / world.num_items,
        intra_list_diversity=float(diversity / slates),
        new_item_share=new / float(slots),
        uncertainty=None if ensemble is None else torch.cat(uncertainty)[torch.cat(asked)].flatten(),
        supported_up_to=float("nan") if ensemble is None else ensemble.threshold,
        misses=Misses(float(deliberate / slates), float(one_short / slates)) if leave_a_miss else None,
        outcomes=Outcomes(world.behaviours, depth * world.slate_size, all_counts, torch.cat(moved)),
    )
