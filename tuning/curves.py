"""Pictures of training runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rl_rec import metrics as names
from rl_rec.run_folder import RunFolder, read_results
from tuning.intervals import interval95


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
    """Draw what exploration earned over user-steps: mean over seeds with a 95% interval, one line a variant.

    Args:
        trials: by variant, its trials' folders, one a seed.
        title: of the picture.
        path: the PNG to write.
    """
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, seeds in trials.items():
        curves = [_training_curve(trial) for trial in seeds]
        steps = sorted(set.intersection(*(set(curve) for curve in curves)))
        bounds = [interval95([curve[step] for curve in curves]) for step in steps]
        (line,) = axes.plot(steps, [np.mean([curve[step] for curve in curves]) for step in steps], label=name)
        low, high = zip(*bounds, strict=True)
        axes.fill_between(steps, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set(xlabel="user-steps", ylabel="mean return while exploring, training users", title=title)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
    return path


def _training_curve(trial: Path) -> dict[int, float]:
    return {
        int(result["num_env_steps_sampled_lifetime"]): result["env_runners"][names.RETURN_MEAN]
        for result in read_results(trial)
        if names.RETURN_MEAN in result.get("env_runners", {})
    }
