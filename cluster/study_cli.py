"""`rl-rec study`: variants of an agent over seeds and worlds, as one table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Group
from rich.table import Table

from envs.errors import UserError
from rl_rec.cli.options import check_device, json_option, set_option
from rl_rec.cli.output import emit
from rl_rec.cli.progress import reporting


@click.command(
    epilog="Example: rl-rec study hac --simulator work/sim --seeds 5 --out work/study --variant hac "
    "--variant supervision:agent.policy_weight=0,agent.alignment_weight=0"
)
@click.argument("algorithm")
@click.option(
    "--simulator",
    type=click.Path(path_type=Path),
    required=True,
    help="A folder that rl-rec simulator fit wrote.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The folder to write.")
@click.option(
    "--variant",
    "variants",
    multiple=True,
    metavar="NAME[:PATH=VALUE,...]",
    help="A name of your own and the settings that make it differ; may be repeated. The others are compared "
    "to the first; by default there is one, ALGORITHM as it is.",
)
@click.option(
    "--world",
    "worlds",
    multiple=True,
    metavar="PATH=VALUE,...",
    help="A world to compare them in, e.g. world.repeats=allow; may be repeated. By default the one of --set.",
)
@click.option("--seeds", type=click.IntRange(min=1), default=5, show_default=True, help="Seeds 0, 1, ...")
@click.option(
    "--steps", type=click.IntRange(min=1), help="User-steps of each run; the configuration's by default."
)
@click.option("--episodes", type=click.IntRange(min=1), default=2048, show_default=True, help="Test users.")
@click.option("--parallel", type=click.IntRange(min=1), default=2, show_default=True, help="Runs at once.")
@click.option("--address", help="A running Ray cluster; by default Ray is started here.")
@set_option
@json_option
def study(
    algorithm: str,
    simulator: Path,
    out: Path,
    variants: Sequence[str],
    worlds: Sequence[str],
    seeds: int,
    steps: int | None,
    episodes: int,
    parallel: int,
    address: str | None,
    assignments: Sequence[str],
    as_json: bool,
) -> None:
    """Compare variants of ALGORITHM on the same budget, seeds, users and random numbers.

    Reports the mean over seeds on test users with a 95% t-interval, beside every reference policy, and the
    paired difference of each variant to the first.
    """
    from cluster.ray_session import ray_session
    from rl_rec.agents import find_agent
    from tuning.study import study as run_study

    agent = find_agent(algorithm)
    pairs = [] if steps is None else [f"steps={steps}"]
    base = agent.train_settings().with_overrides([*assignments, *pairs])
    parsed = dict(_variant(text) for text in variants or [algorithm])
    if len(parsed) < len(variants):
        raise UserError("two variants have the same name")
    check_device(base.device)
    rules = [world.split(",") for world in worlds] or [[]]
    with ray_session(cpus=parallel, address=address), reporting("user-steps") as progress:
        result = run_study(agent, simulator, base, parsed, rules, seeds, episodes, out, progress)
    emit(result, as_json, render)


def _variant(text: str) -> tuple[str, list[str]]:
    name, _, changes = text.partition(":")
    if not name.replace("-", "").replace("_", "").isalnum():
        raise UserError(f"--variant takes NAME[:PATH=VALUE,...], got {text!r}")
    return name, [change for change in changes.split(",") if change]


def render(result: Mapping[str, Any]) -> Group:
    """One table a world."""
    tables = []
    for world in result["tables"]:
        rules = world["world"]
        budget = f"{result['steps']:,} user-steps, {result['seeds']} seeds"
        title = f"repeats={rules['repeats']}, {budget}"
        table = Table(title=title, box=None, padding=(0, 1), header_style="bold")
        for column in ("policy", "return", "95% interval", "norm.", "items", "paired difference"):
            table.add_column(column, justify="left" if column == "policy" else "right", no_wrap=True)
        compared = False
        for name, row in world["rows"].items():
            low, high = row["return_ci95"]
            cells = [name, f"{row['return_mean']:.2f}", f"{low:.2f}–{high:.2f}", f"{row['normalised']:.3f}"]
            cells.append(f"{row['distinct_items']:.0f}")
            if "difference_ci95" in row:
                low, high = row["difference_ci95"]
                difference = f"{row['difference_to_first']:+.2f} ({low:+.2f} to {high:+.2f})"
                cells.append(difference if compared else "")  # the first is what the others are compared to
                compared = True
            table.add_row(*cells)
        tables.append(table)
    return Group(*tables)
