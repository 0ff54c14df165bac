"""The pictures of a simulator's report."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from envs.data.sessions import Origin
from rl_rec.pictures import Numbers, Picture, draw_picture
from rl_rec.simulator_report.measure import LogFound
from rl_rec.simulator_report.policies import PoliciesFound

_COLORS = {Origin.LOGGED: "C0", Origin.RANDOM: "C1"}
_NAMES = {Origin.LOGGED: "logged slates", Origin.RANDOM: "randomly drawn slates"}


def draw_reliability(logs: Mapping[Origin, LogFound]) -> Picture:
    """Predicted against observed, in equally populated bins."""

    def draw(axes: Axes) -> Numbers:
        numbers: Numbers = []
        limit = 1.05 * max(
            max(found.reliability.predicted.max(), found.reliability.observed.max()) for found in logs.values()
        )
        axes.plot([0, limit], [0, limit], color="0.7", linewidth=1)
        for origin, found in logs.items():
            bins = found.reliability
            axes.plot(
                bins.predicted, bins.observed, "o-", color=_COLORS[origin], markersize=4, label=_NAMES[origin]
            )
            numbers += [
                {
                    "slates": origin.name.lower(),
                    "predicted": predicted,
                    "observed": observed,
                    "responses": count,
                }
                for predicted, observed, count in zip(bins.predicted, bins.observed, bins.count, strict=True)
            ]
        axes.set(xlabel="predicted probability", ylabel="observed rate", xlim=(0, limit), ylim=(0, limit))
        axes.set_aspect("equal")
        axes.legend(frameon=False)
        return numbers

    caption = "Held-out users; as many responses in each point. On the grey line predictions are right."
    return draw_picture(draw, 5.0, "reliability", "Reliability", caption)


def draw_gaps(logs: Mapping[Origin, LogFound]) -> Picture:
    """Predicted less observed of every group, with intervals."""
    labels = list(dict.fromkeys((g.kind, g.label) for found in logs.values() for g in found.groups))
    place = {label: len(labels) - index for index, label in enumerate(labels)}

    def draw(axes: Axes) -> Numbers:
        numbers: Numbers = []
        for index, (origin, found) in enumerate(logs.items()):
            for group in found.groups:
                y = place[group.kind, group.label] - 0.25 * index
                low, high = group.bias.interval()
                axes.plot([low, high], [y, y], color=_COLORS[origin], linewidth=2, alpha=0.5)
                axes.plot([group.bias.gap], [y], "o", color=_COLORS[origin], markersize=4)
                numbers.append(
                    {
                        "slates": origin.name.lower(),
                        "kind": group.kind,
                        "group": group.label,
                        "gap": group.bias.gap,
                        "low": low,
                        "high": high,
                    }
                )
            axes.plot([], [], "o-", color=_COLORS[origin], markersize=4, label=_NAMES[origin])
        axes.axvline(0, color="0.7", linewidth=1)
        axes.set_yticks([place[label] for label in labels], [f"{kind}: {label}" for kind, label in labels])
        axes.set(xlabel="predicted less observed")
        axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.3, 1.0 + 0.7 / len(labels)), ncols=2)
        return numbers

    caption = "Right of the line predictions are too high. Bars: 95% intervals over users."
    return draw_picture(draw, 1.2 + 0.24 * len(labels), "groups", "Where predictions are wrong", caption)


def draw_support(logged: NDArray[np.floating], policies: PoliciesFound) -> Picture:
    """How the uncertainty of what was shown is distributed, by the logs and by each policy."""
    shares = np.linspace(0, 1, 101)
    shown = {"logged exposures": logged} | {
        name: result.uncertainty.cpu().numpy()
        for name, result in policies.evaluations.items()
        if result.uncertainty is not None
    }
    threshold = next(iter(policies.evaluations.values())).supported_up_to

    def draw(axes: Axes) -> Numbers:
        numbers: Numbers = []
        for index, (name, values) in enumerate(shown.items()):
            quantiles = np.quantile(values, shares)
            color, width = ("0.3", 2.4) if index == 0 else (f"C{index}", 1.4)
            axes.plot(quantiles, shares, color=color, linewidth=width, label=name)
            numbers += [
                {"shown by": name, "share": share, "uncertainty": value}
                for share, value in zip(shares, quantiles, strict=True)
            ]
        axes.axvline(threshold, color="0.7", linewidth=1)
        axes.set(
            xlabel="uncertainty of the response probability",
            ylabel="share of shown items up to it",
            ylim=(0, 1),
        )
        axes.set_xlim(left=0)
        axes.legend(frameon=False)
        return numbers

    caption = (
        "Standard deviation over the ensemble; the line is above 95% of the validation users' logged exposures."
    )
    return draw_picture(draw, 4.0, "support", "How far the logs support what is shown", caption)
