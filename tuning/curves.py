"""Pictures of training runs."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rl_rec import metrics as names
from rl_rec.run_folder import RunFolder, read_results
from tuning.statistics import interval95


def draw_learning_curve(
    run: RunFolder, references: Mapping[str, float] | None = None, path: Path | None = None
) -> Path:
    """Draw returns over user-steps: evaluation on validation users, and what exploration earned.

    Args:
        run: the run.
        references: mean returns of other policies, drawn as lines with their names.
        path: the PNG to write; ``learning_curve.png`` in the run folder by default.
    """
    path = path or run.path / "learning_curve.png"
    results = run.results()
    sampled = [
        (r["num_env_steps_sampled_lifetime"], r["env_runners"][names.RETURN_MEAN])
        for r in results
        if names.RETURN_MEAN in r.get("env_runners", {})
    ]
    evaluated = [
        (r["num_env_steps_sampled_lifetime"], r[names.EVALUATION]) for r in results if names.EVALUATION in r
    ]
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    if sampled:
        axes.plot(*zip(*sampled, strict=True), color="0.7", linewidth=1, label="training users, exploring")
    if evaluated:
        steps = [step for step, _ in evaluated]
        mean = [e["return_mean"] for _, e in evaluated]
        low = [e["return_ci95_low"] for _, e in evaluated]
        high = [e["return_ci95_high"] for _, e in evaluated]
        axes.plot(steps, mean, "o-", color="C0", markersize=4, label="validation users, greedy (95% interval)")
        axes.fill_between(steps, low, high, color="C0", alpha=0.15, linewidth=0)
    axes.set_ylim(bottom=min(0.0, *(references or {}).values(), 0.0))
    _draw_references(axes, references or {})
    axes.set(
        xlabel="user-steps",
        ylabel="mean return of an episode",
        title=f"{run.agent.name.upper()}, seed {run.settings.seed}, repeats={run.settings.world.repeats}",
    )
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
    axes.spines[["top", "right"]].set_visible(False)
    draft = path.with_name(f".{path.name}")
    figure.savefig(draft, dpi=120, format="png")
    draft.replace(path)
    return path


def _draw_references(axes: Axes, references: Mapping[str, float]) -> None:
    """Dashed lines with their names in the right margin, names of close lines side by side."""
    bottom, top = axes.get_ylim()
    top = max(top, 1.05 * max(references.values(), default=0.0))
    axes.set_ylim(bottom, top)
    labels: list[tuple[float, list[str]]] = []
    for name, value in sorted(references.items(), key=lambda item: item[1]):
        axes.axhline(value, color="0.35", linewidth=0.8, linestyle="--")
        if labels and value - labels[-1][0] < 0.05 * (top - bottom):
            labels[-1][1].append(name)
        else:
            labels.append((value, [name]))
    for value, names_there in labels:
        place = (1.01, value)
        text = ", ".join(names_there)
        axes.annotate(text, place, xycoords=("axes fraction", "data"), va="center", fontsize=8, color="0.35")


def draw_study(trials: Mapping[str, Sequence[Path]], title: str, path: Path) -> Path:
    """Draw returns over user-steps: mean over seeds with a 95% interval, one line a variant.

    What is drawn is the evaluation on validation users; where a trial has none, what exploration earned, which
    also depends on how much a variant explores.

    Args:
        trials: by variant, its trials' folders, one a seed.
        title: of the picture.
        path: the PNG to write.
    """
    results = {name: [read_results(trial) for trial in seeds] for name, seeds in trials.items()}
    evaluated = all(any(names.EVALUATION in r for r in seed) for seeds in results.values() for seed in seeds)
    group, figure_name, label = (
        (names.EVALUATION, "return_mean", "mean return, validation users, greedy")
        if evaluated
        else ("env_runners", names.RETURN_MEAN, "mean return, training users, exploring")
    )
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    for index, (name, seeds) in enumerate(results.items()):
        curves = [_curve(seed, group, figure_name) for seed in seeds]
        steps = sorted(set.intersection(*(set(curve) for curve in curves)))
        if not steps:
            continue
        color, line = f"C{index % 10}", ("-", "--", ":")[index // 10 % 3]
        mean = [float(np.mean([curve[step] for curve in curves])) for step in steps]
        marker = "o" if len(steps) < 20 else None
        axes.plot(steps, mean, line, label=name, color=color, marker=marker, markersize=3, linewidth=1.4)
        low, high = zip(*(interval95([curve[step] for curve in curves]) for step in steps), strict=True)
        axes.fill_between(steps, low, high, color=color, alpha=0.12, linewidth=0)
    axes.set(xlabel="user-steps", ylabel=label, title=title)
    if axes.has_data():  # below, where it covers no line
        columns = max(1, 72 // (8 + max(len(name) for name in results)))
        axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=columns)
    axes.spines[["top", "right"]].set_visible(False)
    draft = path.with_name(f".{path.name}")
    figure.savefig(draft, dpi=120, format="png")
    draft.replace(path)
    return path


def _curve(results: Sequence[Mapping[str, Any]], group: str, figure: str) -> dict[int, float]:
    curve = {
        int(result["num_env_steps_sampled_lifetime"]): result[group][figure]
        for result in results
        if figure in result.get(group, {})
    }
    return {step: value for step, value in curve.items() if math.isfinite(value)}
