"""What ``rl-rec scale`` found: medians, the model beside them, and files."""

import csv
import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from envs.files import write_json
from rl_rec.json_values import json_value
from rl_rec.train_settings import TrainSettings
from tuning.scaling import Point, named
from tuning.scaling_model import Costs, Layout, curve, knee, per_busiest_cpu_s, predict

_STYLES = ("-", "--", "-.", ":")
_UNITS = {"k": 1e3, "M": 1e6, "G": 1e9}


def summarise(
    blocks: Mapping[Point, Sequence[Mapping[str, Any]]],
    runs: Mapping[Point, TrainSettings[Any]],
    cores: int,
    counts: Sequence[int],
    bandwidth: float,
) -> dict[str, Any]:
    """Medians of every point, the model's prediction beside each, and its curves.

    Speed-ups are medians of the ratios within each turn: a machine whose speed drifts does so for both sides.

    Args:
        blocks: what was measured, every point's repeats in the order of turns; the last turn may be cut short.
        runs: settings of every point.
        cores: of the machine; the check knows them, the curves give every process its own.
        counts: of runners to predict.
        bandwidth: of the driver's network in the curves, bytes per second.
    """
    rows = [_row(point, blocks[point]) for point in runs]
    by_point = dict(zip(runs, rows, strict=True))
    reference = next(point for point in runs if point.runners == 1)
    costs, costs_cpu = (_median_costs(blocks[reference], name) for name in ("costs", "costs_cpu"))
    for point, row in by_point.items():
        one = blocks.get(Point(1, point.mode, point.learners), ())
        ratios = _ratios(blocks[point], one) if point.runners else []
        row["speedup"] = speedup = statistics.median(ratios) if ratios else None
        row["speedup_least"], row["speedup_most"] = (min(ratios), max(ratios)) if ratios else (None, None)
        row["efficiency"] = speedup / point.runners if speedup is not None else None
        measured = row["user_steps_per_s"]
        predicted = predict(costs, point.layout(runs[point], cores))
        row["predicted"] = predicted.user_steps_per_s
        row["error_percent"] = 100 * (predicted.user_steps_per_s / measured - 1) if measured else None
        row["bottleneck"] = predicted.bottleneck
        by_cpu = per_busiest_cpu_s(costs_cpu, point.layout(runs[point], cores))
        measured = row["per_busiest_cpu_s"]
        row["predicted_per_busiest_cpu_s"] = by_cpu
        row["error_cpu_percent"] = 100 * (by_cpu / measured - 1) if measured else None
    curves, knees = [], []
    for point in (point for point in runs if point.runners == 1):
        layout = Layout(**{**vars(point.layout(runs[point], math.inf)), "bandwidth": bandwidth})
        curves += curve(costs, [Layout(**{**vars(layout), "runners": count}) for count in counts])
        runners = knee(costs, layout)
        found = predict(costs, Layout(**{**vars(layout), "runners": runners or counts[-1]}))
        knees.append(
            {
                "mode": point.mode,
                "learners": point.learners,
                "runners": runners,
                "bottleneck": found.bottleneck,
                "lever": found.lever,
                "user_steps_per_s": found.user_steps_per_s,
            }
        )
    return {
        "points": rows,
        "costs": vars(costs),
        "costs_cpu": vars(costs_cpu),
        "costs_of": str(reference),
        "cores": cores,
        "bandwidth_bytes_per_s": bandwidth,
        "curve": curves,
        "knees": knees,
    }


def _ratios(blocks: Sequence[Mapping[str, Any]], to: Sequence[Mapping[str, Any]]) -> list[float]:
    """Of throughput, turn by turn; none where a block of either did not hold the replay ratio."""
    speeds = [
        (block["user_steps_per_s"], other["user_steps_per_s"]) for block, other in zip(blocks, to, strict=False)
    ]
    return [] if any(None in pair for pair in speeds) else [speed / one for speed, one in speeds]


def _median_costs(blocks: Sequence[Mapping[str, Any]], clock: str) -> Costs:
    costs = [block[clock] for block in blocks]
    return Costs(**{name: statistics.median(each[name] for each in costs) for name in costs[0]})


def _row(point: Point, blocks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    row: dict[str, Any] = {"runners": point.runners, "mode": point.mode, "learners": point.learners}
    for name in blocks[0]:
        values = [block[name] for block in blocks]
        if name.startswith("costs"):
            continue
        if name == "ratio_held":
            row[name] = all(values)
        else:
            row[name] = statistics.median(values) if None not in values else None
    speeds = [block["user_steps_per_s"] for block in blocks]
    held = None not in speeds
    row["slowest"], row["fastest"] = (min(speeds), max(speeds)) if held else (None, None)
    row["repeats"] = len(blocks)
    return row


def write(folder: Path, result: Mapping[str, Any]) -> None:
    """``scale.json`` with everything, ``points.csv`` and ``curve.csv`` with the tables, and the plot."""
    write_json(folder / "scale.json", json_value(result))
    for name in ("points", "curve"):
        rows = result[name]
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    with mpl.rc_context({"svg.hashsalt": "rl-rec", "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(10, 4), layout="constrained")
        left, right = figure.subplots(1, 2)
        _draw_measured(left, result)
        _draw_curve(right, result)
        figure.savefig(folder / "scale.svg", metadata={"Date": None})
        figure.savefig(folder / "scale.png", dpi=120)


def _kinds(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["runners"]:
            kinds.setdefault(named(row["mode"], row["learners"]), []).append(row)
    return kinds


def _draw_measured(axes: Axes, result: Mapping[str, Any]) -> None:
    for index, (name, rows) in enumerate(_kinds(result["points"]).items()):
        held = [row for row in rows if row["user_steps_per_s"] is not None]
        runners = [row["runners"] for row in held]
        middle = [row["user_steps_per_s"] for row in held]
        spread = [
            [row["user_steps_per_s"] - row["slowest"] for row in held],
            [row["fastest"] - row["user_steps_per_s"] for row in held],
        ]
        axes.errorbar(runners, middle, spread, fmt="o", color=f"C{index}", capsize=3, label=f"{name}, measured")
        predicted = [row["predicted"] for row in rows]
        axes.plot(
            [row["runners"] for row in rows], predicted, "x--", color=f"C{index}", label=f"{name}, predicted"
        )
    local = [row for row in result["points"] if not row["runners"] and row["user_steps_per_s"] is not None]
    for row, style in zip(local, cycle(_STYLES)):
        label = named("no remote runner", row["learners"])
        axes.axhline(row["user_steps_per_s"], color="grey", linewidth=1, linestyle=style, label=label)
    axes.set(xlabel="env runners", ylabel="user-steps per second", title=f"on {result['cores']} cores")
    axes.margins(x=0.1)
    axes.set_ylim(0, 1.1 * axes.dataLim.ymax)
    axes.set_xticks(sorted({row["runners"] for row in result["points"] if row["runners"]}))
    axes.legend(frameon=False, fontsize=8)


def _draw_curve(axes: Axes, result: Mapping[str, Any]) -> None:
    # One curve may lie on another: the wider ones are drawn first, and show.
    kinds = _kinds(result["curve"])
    for index, ((name, rows), style) in enumerate(zip(kinds.items(), cycle(_STYLES))):
        axes.plot(
            [row["runners"] for row in rows],
            [row["user_steps_per_s"] for row in rows],
            marker=".",
            linestyle=style,
            linewidth=1.0 + len(kinds) - index,
            color=f"C{index}",
            label=name,
        )
    for line, found in enumerate(each for each in result["knees"] if each["runners"] is not None):
        axes.axvline(found["runners"], color="grey", linewidth=0.8, linestyle=":")
        axes.annotate(
            f"{named(found['mode'], found['learners'])}: {found['bottleneck']}",
            (found["runners"], found["user_steps_per_s"]),
            textcoords="offset points",
            xytext=(6, -14 - 10 * line),
            fontsize=8,
        )
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set(xlabel="env runners", title="predicted, a core for every process")
    axes.set_ylim(0, 1.1 * axes.dataLim.ymax)
    axes.legend(frameon=False, fontsize=8)


def parse_bandwidth(text: str) -> float:
    """Bytes per second of ``10Gbit``, ``100Mbit`` or ``500MB``.

    Raises:
        ValueError: anything else.
    """
    for unit, bits in (("bit", 1), ("B", 8)):
        number = text.removesuffix(unit)
        if number != text:
            scale = _UNITS.get(number[-1:], 1.0)
            value = float(number[:-1] if number[-1:] in _UNITS else number) * scale * bits / 8
            if 0 < value < math.inf:
                return value
    raise ValueError(text)
