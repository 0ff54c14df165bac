"""Pictures of semantic IDs."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter


def draw_sids(report: Mapping[str, Any], path: Path) -> None:
    """The error that each level leaves, how evenly its tokens are used, and how many items share an ID."""
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    levels = report["levels"]

    shares = [1.0, *(level["error_share"] for level in levels if "error_share" in level)]
    left.plot(range(len(shares)), shares, "o-", color="C0", markersize=5)
    for level, share in enumerate(shares):
        left.annotate(f"{share:.0%}", (level, share), (6, 6), textcoords="offset points")
    left.set(xlabel="levels used", ylabel="share of variance left", title="Reconstruction error")
    left.set(ylim=(0, 1.1), xlim=(-0.2, len(shares) - 0.6))
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.yaxis.set_major_formatter(PercentFormatter(1.0))

    described = [level for level in levels if "error" in level]  # the level of ranks, if any, has no centres
    for number, level in enumerate(described, start=1):
        counts = [count for count in level["items_per_token"] or () if count]
        if counts:
            label = (
                f"level {number}: {level['used']} of {level['tokens']}, perplexity {level['perplexity']:.0f}"
            )
            middle.step(np.arange(1, len(counts) + 1), counts, where="mid", label=label)
    even = report["items"] / max(level["tokens"] for level in described)
    middle.axhline(even, color="0.7", linewidth=1, zorder=0, label="even use of all tokens")
    middle.set(xlabel="token, by use", ylabel="items", title="Use of the tokens", yscale="log")
    middle.xaxis.set_major_locator(MaxNLocator(integer=True))
    middle.legend(frameon=False, fontsize="small")

    sizes = np.array([int(size) for size in report["buckets_of_size"]])
    items = sizes * np.array(list(report["buckets_of_size"].values()))
    edges = 2 ** np.arange(int(sizes.max()).bit_length() + 1)  # 1, 2–3, 4–7, ...
    totals = np.histogram(sizes, edges, weights=items)[0] / report["items"]
    names = [str(low) if low == high - 1 else f"{low}–{high - 1}" for low, high in pairwise(edges)]
    bars = right.bar(names, totals, color=["C2", *["C3"] * (len(names) - 1)])
    right.bar_label(bars, [f"{total:.0%}" if total >= 0.005 else "" for total in totals], padding=2)
    right.set_xlim(-0.6, max(len(names), 4) - 0.4)
    right.set(xlabel="items with the same ID", ylabel="share of items", ylim=(0, 1.1 * max(totals)))
    right.set_title(f"Shared IDs: {report['collision_share']:.1%} of {report['items']:,} items")
    right.yaxis.set_major_formatter(PercentFormatter(1.0))
    if len(names) > 6:
        right.tick_params(axis="x", rotation=45)
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
