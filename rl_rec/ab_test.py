"""A simulated A/B test of two policies: the same visits served by both, day by day.

Visits are drawn independently, so that each is one observation. A live test sees every visit with one arm only;
a simulator sees it with both, and the difference of a visit with itself is what is measured (paired). How many
visits a live test would have needed instead is what the power calculation says.
Glossary: V visits.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from envs.data.behaviours import positive
from envs.data.dataset import Dataset
from envs.progress import Progress, silent
from envs.randomness import stream_seed
from envs.world import World
from envs.world_settings import WorldSettings
from rl_rec.evaluation import Evaluation, MakePolicy, serve
from rl_rec.ratios import ratio_lift

Values = NDArray[np.float64]
METRICS = ("return", "click_rate", "depth")


@dataclass(frozen=True)
class Traffic:
    """Who comes, and how many of them take part."""

    days: int
    visits_per_day: int
    share: float
    """Of the visits that are given to arm B; a live test would serve the others with arm A."""


@dataclass(frozen=True)
class Arms:
    """What each visit brought under either arm."""

    user: NDArray[np.int64]
    """(V,) who came, in order of time."""
    day: NDArray[np.int64]
    """(V,) 0 … days − 1."""
    treated: NDArray[np.bool_]
    """(V,) whether a live test would have served arm B."""
    a: Mapping[str, Values]
    """By metric, (V,)."""
    b: Mapping[str, Values]
    ratios_a: Mapping[str, tuple[Values, Values]] = field(default_factory=dict)
    """Numerators and denominators of the behaviours' metrics (``rl_rec.outcomes``), (V,) each."""
    ratios_b: Mapping[str, tuple[Values, Values]] = field(default_factory=dict)


def serve_both(
    world: World,
    rules: WorldSettings,
    arm_a: MakePolicy,
    arm_b: MakePolicy,
    traffic: Traffic,
    seed: int,
    progress: Progress = silent,
) -> Arms:
    """Serve every visit with both arms: the same users, start histories and response draws.

    Args:
        world: its population is who comes, drawn independently for every visit.
        rules: the world's rules.
        arm_a: what is in use.
        arm_b: what would replace it.
        traffic: how many come.
        seed: of visits, responses and shares.
        progress: called after every day.
    """
    device = world.device
    generator = torch.Generator(device).manual_seed(stream_seed(seed, 0))
    population = world.population.users
    parts: dict[str, list[Evaluation]] = {"a": [], "b": []}
    for day in range(traffic.days):
        draw = torch.rand(2, traffic.visits_per_day, generator=generator, device=device)
        users = population[(draw[0] * len(population)).long().clamp(max=len(population) - 1)]
        for arm, make in (("a", arm_a), ("b", arm_b)):
            own = stream_seed(seed, 1, day)
            parts[arm].append(serve(world, rules, make, users, draw[1], own, returns_only=True))
        progress(day + 1, traffic.days, "days, each with both arms")
    treated = torch.rand(traffic.days * traffic.visits_per_day, generator=generator, device=device)
    return Arms(
        user=_joined([part.users for part in parts["a"]]).astype(np.int64),
        day=np.repeat(np.arange(traffic.days), traffic.visits_per_day),
        treated=treated.cpu().numpy() < traffic.share,
        a=_figures(parts["a"], world.slate_size),
        b=_figures(parts["b"], world.slate_size),
        ratios_a=_ratios(parts["a"]),
        ratios_b=_ratios(parts["b"]),
    )


def _joined(parts: Sequence[torch.Tensor]) -> Values:
    return torch.cat(list(parts)).cpu().double().numpy()


def _figures(parts: Sequence[Evaluation], slate_size: int) -> dict[str, Values]:
    depth = _joined([part.depth for part in parts])
    clicks = _joined([part.clicks for part in parts])
    return {
        "return": _joined([part.returns for part in parts]),
        "click_rate": clicks / (depth * slate_size),
        "depth": depth,
    }


def _ratios(parts: Sequence[Evaluation]) -> dict[str, tuple[Values, Values]]:
    days = [part.outcomes.ratios() for part in parts if part.outcomes is not None]
    return {
        name: (_joined([day[name].numerator for day in days]), _joined([day[name].denominator for day in days]))
        for name in days[0]
    }


def analyse(arms: Arms, segments: Mapping[str, NDArray[np.bool_]], detect: float = 0.01) -> dict[str, Any]:
    """Lifts with intervals, overall and by segment, and what a live test would need.

    Args:
        arms: the visits.
        segments: by name, (V,) which visits belong to it.
        detect: relative lift that the power calculation is for.

    Returns:
        Plain data: ``metrics``, ``outcomes`` (with several behaviours: their rates and money, intervals
        by user), ``segments`` (of the return), ``live``, ``power``, ``by_day``.
    """
    gain = arms.b["return"] - arms.a["return"]
    return {
        "visits": len(arms.user),
        "metrics": {metric: lift(arms.a[metric], arms.b[metric]) for metric in METRICS},
        "outcomes": {
            name: ratio_lift(arms.user, ratio, arms.ratios_b[name]) for name, ratio in arms.ratios_a.items()
        },
        "segments": {
            name: {"visits": int(inside.sum()), **lift(arms.a["return"][inside], arms.b["return"][inside])}
            for name, inside in segments.items()
            if inside.sum() > 1
        },
        "live": _live(arms),
        "power": _power(arms, detect),
        "by_day": [{"day": int(day) + 1, **_so_far(gain[arms.day <= day])} for day in np.unique(arms.day)],
    }


def lift(a: Values, b: Values) -> dict[str, Any]:
    """Mean difference of paired observations, with 95% intervals and an always-valid p-value.

    ``interval95`` is for a test whose length was fixed beforehand; ``anytime95`` and ``anytime_p`` hold however
    often one looks and whenever one stops.
    """
    gain, mean_a = b - a, float(a.mean())
    deviation = float(gain.std(ddof=1)) if len(gain) > 1 else math.nan
    middle, half = float(gain.mean()), 1.96 * deviation / math.sqrt(len(gain))
    low, high = confidence_sequence(gain)
    return {
        "a": mean_a,
        "b": float(b.mean()),
        "difference": middle,
        "interval95": [middle - half, middle + half],
        "relative": middle / mean_a if mean_a else math.nan,
        "relative95": [(middle - half) / mean_a, (middle + half) / mean_a] if mean_a else [math.nan, math.nan],
        "anytime95": [low, high],
        "anytime_p": always_valid_p(gain),
    }


def _radius(n: int, deviation: float, alpha: float, optimum: int) -> float:
    """Half width of the asymptotic confidence sequence (Waudby-Smith et al., arXiv 2103.06476, theorem 2.2).

    σ·sqrt(2(nρ² + 1)/(n²ρ²)·log(sqrt(nρ² + 1)/α)), ρ chosen to be narrowest after ``optimum`` observations.
    """
    rho2 = (-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / optimum
    spread = n * rho2 + 1
    return deviation * math.sqrt(2 * spread / (n * n * rho2) * math.log(math.sqrt(spread) / alpha))


_OPTIMUM = 1_000
"""Visits after which the confidence sequence is narrowest; fixed, never tuned to data."""


def confidence_sequence(values: Values, alpha: float = 0.05) -> tuple[float, float]:
    """Interval of the mean that holds at all times together with probability 1 − ``alpha``."""
    if len(values) < 2:
        return (math.nan, math.nan)
    middle = float(values.mean())
    half = _radius(len(values), float(values.std(ddof=1)), alpha, _OPTIMUM)
    return (middle - half, middle + half)


def always_valid_p(values: Values) -> float:
    """The smallest α whose confidence sequence excludes zero by now, for the mean of ``values``.

    |x̄|² n²ρ² / (2σ²(nρ² + 1)) = log(sqrt(nρ² + 1)/α), solved for α with the ρ of α = 0.05.
    """
    n = len(values)
    if n < 2:
        return 1.0
    variance, middle = float(values.var(ddof=1)), float(values.mean())
    if variance == 0:
        return 1.0 if middle == 0 else 0.0
    rho2 = (-2 * math.log(0.05) + math.log(-2 * math.log(0.05) + 1)) / _OPTIMUM
    spread = n * rho2 + 1
    exponent = middle * middle * n * n * rho2 / (2 * variance * spread)
    return min(1.0, math.exp(0.5 * math.log(spread) - exponent))


def _live(arms: Arms) -> dict[str, Any]:
    """The return as a live test would see it: every visit under one arm, means compared."""
    b, a = arms.b["return"][arms.treated], arms.a["return"][~arms.treated]
    if min(len(a), len(b)) < 2:
        return {"visits_a": len(a), "visits_b": len(b)}
    middle = float(b.mean() - a.mean())
    half = 1.96 * math.sqrt(b.var(ddof=1) / len(b) + a.var(ddof=1) / len(a))
    mean = float(a.mean())
    return {
        "visits_a": len(a),
        "visits_b": len(b),
        "difference": middle,
        "interval95": [middle - half, middle + half],
        "relative": middle / mean if mean else math.nan,
        "relative95": [(middle - half) / mean, (middle + half) / mean] if mean else [math.nan, math.nan],
    }


def _power(arms: Arms, detect: float) -> dict[str, Any]:
    a, b, share = arms.a["return"], arms.b["return"], float(arms.treated.mean())
    effect = abs(detect * float(a.mean()))
    return {
        "relative_lift": detect,
        "paired_visits": visits_needed(float((b - a).var(ddof=1)), effect),
        "live_visits": visits_needed(
            float(a.var(ddof=1)) / max(1 - share, 1e-9) + float(b.var(ddof=1)) / max(share, 1e-9), effect
        ),
    }


def visits_needed(variance: float, effect: float, alpha: float = 0.05, power: float = 0.8) -> int | None:
    """Visits for a two-sided test to notice ``effect``: ⌈(z_{1−α/2} + z_power)²·variance/effect²⌉.

    Args:
        variance: of one visit's difference; of a live test with share q, σ_A²/(1 − q) + σ_B²/q.
        effect: difference of means to be noticed.
        alpha: level of the test.
        power: probability of noticing it.
    """
    if effect == 0 or not math.isfinite(variance):
        return None
    z = NormalDist().inv_cdf
    return math.ceil((z(1 - alpha / 2) + z(power)) ** 2 * variance / effect**2)


def _so_far(gain: Values) -> dict[str, Any]:
    low, high = confidence_sequence(gain)
    return {
        "visits": len(gain),
        "difference": float(gain.mean()),
        "anytime95": [low, high],
        "p": always_valid_p(gain),
    }


def user_segments(dataset: Dataset, users: NDArray[np.int64]) -> dict[str, NDArray[np.bool_]]:
    """Which visits come from users of each kind: thirds by logged sessions and by the share of likes.

    Args:
        dataset: the logs.
        users: (V,) who came.

    Returns:
        By name, (V,) bool; the thirds are those of the users who came.
    """
    rows = dataset.shown_sessions
    user = dataset.session_user[rows]
    sessions = np.bincount(user, minlength=dataset.users)
    likes = np.bincount(user, positive(dataset.session_feedback[rows]).sum(axis=1), minlength=dataset.users)
    shown = np.bincount(user, (dataset.session_items[rows] > 0).sum(axis=1), minlength=dataset.users)
    made: dict[str, NDArray[np.bool_]] = {}
    for name, values, kinds in (
        ("activity", sessions.astype(float), ("few sessions", "some sessions", "many sessions")),
        ("likes", likes / np.maximum(shown, 1), ("like little", "like some", "like much")),
    ):
        came = values[np.unique(users)]
        low, high = np.quantile(came, [1 / 3, 2 / 3])
        of_visit = values[users]
        thirds = (of_visit <= low, (of_visit > low) & (of_visit <= high), of_visit > high)
        made |= {f"{name}: {kind}": third for kind, third in zip(kinds, thirds, strict=True)}
    return made
