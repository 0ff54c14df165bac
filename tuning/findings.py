"""What a finished study says: its rows with robust statistics, and the answer in a sentence.

Numbers come from ``study.json`` and from the trials' own results; nothing is evaluated here.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from envs.errors import UserError
from envs.files import read_json
from rl_rec.run_folder import read_results
from tuning.statistics import (
    bootstrap95,
    improvement95,
    interquartile_mean,
    interval95,
    probability_of_improvement,
)
from tuning.study import STUDY_FILE
from tuning.study_plan import StudyPlan, read_plan

Interval = tuple[float, float]


@dataclass(frozen=True)
class Row:
    """One variant of a table, or a reference policy."""

    name: str
    algorithm: str | None
    """``None``: a reference policy."""
    returns: tuple[float, ...]
    """Mean return of each seed, in the order of the seeds."""
    mean: float
    mean95: Interval
    """Over seeds; of a reference policy over users."""
    iqm: float
    iqm95: Interval
    normalised: float
    normalised_returns: tuple[float, ...]
    """Of each seed, between random (0) and the myopic oracle (1)."""
    distinct_items: float
    difference: float | None
    """To the first variant, paired over seeds; ``None`` for the first and for references."""
    difference95: Interval
    better: float | None
    """Probability that a run of this variant ends above one of the first."""
    better95: Interval
    seconds: float | None
    """Training time of one trial, mean over seeds."""

    @property
    def differs(self) -> bool:
        """Whether the interval of the difference excludes zero."""
        low, high = self.difference95
        return self.difference is not None and (low > 0 or high < 0)


@dataclass(frozen=True)
class Table:
    """One training world and serving condition."""

    world: str
    serve: str
    references: tuple[Row, ...]
    variants: tuple[Row, ...]
    """In the study's order: the others are compared to the first."""
    failed: Mapping[str, int]
    """By variant, how many of its trials failed; such variants have no row."""


@dataclass(frozen=True)
class Findings:
    """Everything a report shows."""

    folder: Path
    plan: StudyPlan
    run: Mapping[str, Any]
    """``run.json``: versions, commit, machine, command."""
    tables: tuple[Table, ...]

    @property
    def trials(self) -> dict[str, dict[str, list[Path]]]:
        """Folders of the trials, by training world and variant."""
        made: dict[str, dict[str, list[Path]]] = {}
        for cell in self.plan.cells():
            made.setdefault(cell.world, {}).setdefault(cell.variant, []).append(self.folder / cell.name)
        return made


def read_findings(folder: Path) -> Findings:
    """What the finished study or sweep in ``folder`` found.

    Raises:
        UserError: it is not a study, or not finished.
    """
    folder = Path(folder)
    plan, _ = read_plan(folder)
    if not (folder / STUDY_FILE).exists():
        raise UserError(f"{folder} is not finished: go on with rl-rec study --resume {folder}")
    run = read_json(folder / "run.json", "a study")
    seconds = {cell.name: _seconds(folder / cell.name) for cell in plan.cells()}
    content = read_json(folder / STUDY_FILE, "a study")
    tables = tuple(_table(plan, described, seconds) for described in content["tables"])
    return Findings(folder, plan, run, tables)


def _seconds(trial: Path) -> float | None:
    results = read_results(trial)
    # A resumed trial counts its time anew: the iterations' own times add up.
    spent = [result["time_this_iter_s"] for result in results if "time_this_iter_s" in result]
    return float(sum(spent)) if spent else None


def _table(plan: StudyPlan, described: Mapping[str, Any], seconds: Mapping[str, float | None]) -> Table:
    index = list(plan.worlds).index(described["world_name"])
    references, variants, failed = [], [], {}
    first: tuple[float, ...] | None = None
    for name, row in described["rows"].items():
        if "failed" in row:
            failed[name] = row["failed"]
            continue
        if row["algorithm"] is None:
            references.append(_reference(name, row))
            continue
        returns = tuple(row["returns"])
        spent = [seconds.get(f"{name}-world{index}-seed{seed}") for seed in range(len(returns))]
        variants.append(_variant(name, row, first, [value for value in spent if value is not None]))
        first = first or returns
    return Table(described["world_name"], described["serve_name"], tuple(references), tuple(variants), failed)


def _reference(name: str, row: Mapping[str, Any]) -> Row:
    low, high = row["return_ci95"]
    unknown = (math.nan, math.nan)
    return Row(
        name=name,
        algorithm=None,
        returns=(row["return_mean"],),
        mean=row["return_mean"],
        mean95=(low, high),
        iqm=math.nan,
        iqm95=unknown,
        normalised=row["normalised"],
        normalised_returns=(row["normalised"],),
        distinct_items=row["distinct_items"],
        difference=None,
        difference95=unknown,
        better=None,
        better95=unknown,
        seconds=None,
    )


def _variant(
    name: str, row: Mapping[str, Any], first: tuple[float, ...] | None, seconds: Sequence[float]
) -> Row:
    returns = tuple(row["returns"])
    gaps = None if first is None else [ours - theirs for ours, theirs in zip(returns, first, strict=True)]
    return Row(
        name=name,
        algorithm=row["algorithm"],
        returns=returns,
        mean=float(np.mean(returns)),
        mean95=interval95(returns),
        iqm=float(interquartile_mean(np.array(returns)[:, None])),
        iqm95=bootstrap95(returns),
        normalised=row["normalised"],
        normalised_returns=tuple(seed["normalised"] for seed in row["seeds"]),
        distinct_items=row["distinct_items"],
        difference=None if gaps is None else float(np.mean(gaps)),
        difference95=(math.nan, math.nan) if gaps is None else interval95(gaps),
        better=None if first is None else probability_of_improvement(returns, first),
        better95=(math.nan, math.nan) if first is None else improvement95(returns, first),
        seconds=float(np.mean(seconds)) if seconds else None,
    )


def answer(findings: Findings, table: Table) -> str:
    """What one table says, in a sentence or two with its uncertainty."""
    if not table.variants:
        return "Every variant failed: there is nothing to compare."
    best = max(table.variants, key=lambda row: row.mean)
    first, several = table.variants[0], len(best.returns) > 1
    if len(table.variants) > 1 and len({row.returns for row in table.variants}) == 1:
        return (
            f"Every variant earns exactly the same, {best.mean:.2f}: what varies had no effect on this budget."
        )
    text = (
        f"{best.name} earns the highest mean return, {best.mean:.2f}{_between(best.mean95)}, "
        f"{best.normalised:.0%} of the way from random to the myopic oracle"
    )
    if len(table.variants) == 1:
        return f"{text}."
    if best is not first:
        text += f"; that is {best.difference:+.2f}{_between(best.difference95)} against {first.name}"
        if several:
            verdict = "beyond" if best.differs else "within"
            text += f", paired over seeds: {verdict} the noise of {len(best.returns)} seeds"
    told = [row for row in table.variants[1:] if row.differs and row is not best]
    if told:
        named = ", ".join(f"{row.name} ({row.difference:+.2f})" for row in told)
        text += f". Differences to {first.name} whose interval excludes zero: {named}"
    elif best is first and several:
        text += f", and no difference to {first.name} excludes zero"
    text += "." if several else ". One seed says nothing of the noise between seeds."
    axis = numeric_axis(findings.plan)
    return f"{text} {_middle(findings.plan, table, axis)}".strip() if axis else text


def numeric_axis(plan: StudyPlan) -> str | None:
    """The first axis of a sweep that has three numbers or more: the x of its picture."""
    axes = list(dict.fromkeys(path for place in plan.places.values() for path in place))
    for path in axes:
        values = {place.get(path) for place in plan.places.values()}
        if len(values) >= 3 and all(_is_number(value) for value in values):
            return path
    return None


def lines(plan: StudyPlan, table: Table, axis: str) -> dict[str, list[tuple[float, Row]]]:
    """By what else a sweep varies, the rows along ``axis``, ascending."""
    made: dict[str, list[tuple[float, Row]]] = {}
    for row in table.variants:
        place = dict(plan.places[row.name])
        x = float(place.pop(axis))
        label = ", ".join(
            str(value) if isinstance(value, str) else f"{path.rpartition('.')[2]} {value}"
            for path, value in place.items()
        )
        made.setdefault(label, []).append((x, row))
    return {label: sorted(points, key=lambda point: point[0]) for label, points in made.items()}


def _middle(plan: StudyPlan, table: Table, axis: str) -> str:
    """Whether a middle value beats both ends, one sentence a line."""
    said = []
    for label, points in lines(plan, table, axis).items():
        if len(points) < 3:
            continue
        name, along = axis.rpartition(".")[2], f" with {label}" if label else ""
        x, best = max(points, key=lambda point: point[1].mean)
        gaps = []
        for end in (points[0], points[-1]):
            gap = [ours - theirs for ours, theirs in zip(best.returns, end[1].returns, strict=True)]
            gaps.append((end[0], float(np.mean(gap)), interval95(gap)))
        if x in (points[0][0], points[-1][0]):
            said.append(f"The best {name}{along} lies at the end of the range tried, {x:g}.")
            continue
        both = "; ".join(f"{gap:+.2f}{_between(interval)} against {end:g}" for end, gap, interval in gaps)
        clear = all(interval[0] > 0 for _, _, interval in gaps)
        verdict = "a middle value wins" if clear else "a middle value is best, not clearly"
        said.append(f"Along {name}{along} {verdict}: {x:g} ({both}).")
    return " ".join(said)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _between(interval: Interval) -> str:
    low, high = interval
    return "" if math.isnan(low) else f" (95% {low:.2f} to {high:.2f})"
