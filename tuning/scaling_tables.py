"""What ``rl-rec scale`` shows a person."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from envs.counted import counted
from tuning.scaling import Point, named

_TRUSTED_PERCENT = 30.0
"""Up to here a prediction is shown as it is."""
_ENOUGH_BLOCKS = 3
"""From here on a median is not itself one end of the spread."""


def render(result: Mapping[str, Any]) -> RenderableType:
    """The tables that a person sees."""
    measured = _table("measured", "user-\nsteps/s", "spread", "speed-up", "of turns", "efficiency")
    latencies = _table(
        "updates and latencies",
        *("updates/s", "ratio", "stale", "latency\nms", "in runner\nms", "weights\nms"),
    )
    shares = _table("shares of the driver's time", "wait", "replay", "update", "sync", "rest", "learner\nidle")
    checked = _table(
        "predicted beside measured",
        *("user-\nsteps/s", "predicted", "error"),
        *("per\nbusiest\nCPU-s", "predicted", "error", "bottleneck"),
    )
    for row in result["points"]:
        name = _point(row)
        spread = None if row["slowest"] is None else f"{row['slowest']:,.0f}–{row['fastest']:,.0f}"
        measured.add_row(
            name,
            _number(row["user_steps_per_s"], ",.0f") if row["ratio_held"] else "ratio off",
            spread or "-",
            _number(row["speedup"], ".2f"),
            "-" if row["speedup"] is None else f"{row['speedup_least']:.2f}–{row['speedup_most']:.2f}",
            _number(row["efficiency"], ".0%"),
        )
        latencies.add_row(
            name,
            _number(row["updates_per_s"], ".1f"),
            _number(row["replay_ratio"], ".3g"),
            _number(row["staleness_updates"], ".1f"),
            *(_milliseconds(row[each]) for each in ("sample_latency_s", "sample_s", "weights_latency_s")),
        )
        parts = ("rollout_s", "replay_s", "update_s", "sync_s", "rest", "learner_idle")
        shares.add_row(name, *(_number(row[part], ".0%") for part in parts))
        checked.add_row(
            name,
            _number(row["user_steps_per_s"], ",.0f"),
            _number(row["predicted"], ",.0f"),
            _percent(row["error_percent"]),
            _number(row["per_busiest_cpu_s"], ",.0f"),
            _number(row["predicted_per_busiest_cpu_s"], ",.0f"),
            _percent(row["error_cpu_percent"]),
            row["bottleneck"],
        )
    gigabits = result["bandwidth_bytes_per_s"] * 8 / 1e9
    curves = _table(
        f"predicted, a core for every process, {gigabits:g} Gbit/s (the whole: curve.csv)",
        *("user-\nsteps/s", "speed-up", "bottleneck"),
    )
    for row in telling(result["curve"]):
        curves.add_row(
            _point(row),
            _number(row["user_steps_per_s"], ",.0f"),
            _number(row["speedup"], ".1f"),
            row["bottleneck"],
        )
    knees = [
        Text(
            f"{named(found['mode'], found['learners'])}: "
            + (
                f"from {counted(found['runners'], 'runner')} on the bottleneck is the {found['bottleneck']}; "
                f"what moves it: {found['lever']}"
                if found["runners"] is not None
                else "the runners are the bottleneck throughout"
            )
        )
        for found in result["knees"]
    ]
    warnings = (few_blocks(result["points"]), doubt(result["points"]))
    told = [Text(text) for text in warnings if text]
    skipped = [Text(f"left out {entry['point']}: {entry['why']}") for entry in result.get("skipped", [])]
    tables = (part for table in (measured, latencies, shares, checked, curves) for part in (table, Text()))
    return Group(*tables, *knees, *told, *skipped)


def telling(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """A curve without the rows that repeat the rows on either side of them."""
    seen = [(row["mode"], row["learners"], _number(row["speedup"], ".1f"), row["bottleneck"]) for row in rows]
    around = zip([None, *seen[:-1]], seen, [*seen[1:], None], strict=True)
    return [
        row for row, (last, this, following) in zip(rows, around, strict=True) if not last == this == following
    ]


def few_blocks(points: Sequence[Mapping[str, Any]]) -> str | None:
    """A warning where medians and spreads are of next to nothing."""
    fewest = min(row["repeats"] for row in points)
    if fewest >= _ENOUGH_BLOCKS:
        return None
    return f"some points have only {counted(fewest, 'block')}: so few tell little (--repeats)"


def doubt(points: Sequence[Mapping[str, Any]]) -> str | None:
    """A warning where the model misses what was measured, and so may miss what was not."""
    missed = max(abs(row["error_percent"] or 0.0) for row in points)
    if missed <= _TRUSTED_PERCENT:
        return None
    return f"the model is up to {missed:.0f}% off what was measured: do not count on what it predicts"


def _point(row: Mapping[str, Any]) -> str:
    return str(Point(row["runners"], row["mode"], row["learners"]))


def _table(title: str, *columns: str) -> Table:
    """One row per point; each table fits 80 columns, and only a point's name is wrapped where it does not."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("point")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:+.0f}%"


def _milliseconds(seconds: float | None) -> str:
    return _number(None if seconds is None else 1e3 * seconds, ".1f")
