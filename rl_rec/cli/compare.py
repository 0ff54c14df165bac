"""`rl-rec compare`: a simulated A/B test of two runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Group
from rich.table import Table
from rich.text import Text

from envs.errors import UserError
from envs.storage.location import Location, shown
from rl_rec.cli.checked import CheckedCommand
from rl_rec.cli.options import FOLDER, Choice, device_option, json_option, local_folders, set_option
from rl_rec.cli.output import console, emit
from rl_rec.cli.progress import reporting

_SPLITS = ("train", "validation", "test")
_NOTHING = "-"


def _check(assignments: Sequence[str], **_: object) -> None:
    from envs.world_settings import WorldSettings

    WorldSettings().check_paths(_changes(assignments))  # what they change is in the run's folder


def _changes(assignments: Sequence[str]) -> list[str]:
    """``--set`` as assignments to the world's rules: spelt as for train, or without the prefix."""
    return [assignment.removeprefix("world.") for assignment in assignments]


@click.command(
    cls=CheckedCommand,
    check=_check,
    epilog="Example: rl-rec compare runs/supervised runs/hac --days 7 --visits 2000 --share 0.15 --detect 0.01",
)
@click.argument("arm_a", metavar="RUN_A", type=FOLDER)
@click.argument("arm_b", metavar="RUN_B", type=FOLDER)
@click.option(
    "--simulator",
    "simulator_path",
    type=FOLDER,
    help="A folder that rl-rec simulator fit wrote; RUN_A's own by default.",
)
@click.option("--days", type=click.IntRange(min=1), default=7, show_default=True, help="Simulated days.")
@click.option("--visits", type=click.IntRange(min=2), default=1000, show_default=True, help="Visits a day.")
@click.option(
    "--share",
    type=click.FloatRange(min=0.0, max=1.0, min_open=True, max_open=True),
    default=0.5,
    show_default=True,
    help="Share of the visits that a live test would give to RUN_B.",
)
@click.option(
    "--detect",
    type=click.FloatRange(min=0.0, min_open=True),
    default=0.01,
    show_default=True,
    help="Relative lift that the power calculation is for.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of visits and responses."
)
@click.option("--split", type=Choice(_SPLITS), default="test", show_default=True, help="Whose users come.")
@set_option
@device_option
@json_option
@local_folders(reads=("arm_a", "arm_b"))
def compare(
    arm_a: Path,
    arm_b: Path,
    simulator_path: Location | None,
    days: int,
    visits: int,
    share: float,
    detect: float,
    seed: int,
    split: str,
    assignments: Sequence[str],
    device: str,
    as_json: bool,
) -> None:
    """Test RUN_B against RUN_A: what it lifts, for whom, how sure that is, and how many visits it takes to see.

    Both arms serve the same visits with the same random numbers: differences are those of the policies. A
    p-value that may be looked at every day stands beside the interval of a test of fixed length. In a world of
    several behaviours their rates and the money they move (with ads the cost of clicks and the value of
    conversions; per visit) stand in a table of their own, with intervals that are clustered by user.

    --set changes the world's rules, which are RUN_A's by default.
    """
    from envs import world_folder
    from envs.data.dataset import Split
    from rl_rec.ab_test import Traffic, analyse, serve_both, user_segments
    from rl_rec.run_folder import RunFolder

    runs = [RunFolder(arm_a), RunFolder(arm_b)]
    rules = runs[0].settings.world.with_overrides(_changes(assignments))
    lengths = {run.settings.world.history_length for run in runs}
    if len(lengths) > 1:
        raise UserError(f"the runs were trained with different world.history_length: {sorted(lengths)}")
    fitted = world_folder.load(simulator_path or runs[0].simulator)
    for run in runs:
        if run.fingerprint not in (None, fitted.dataset.fingerprint):
            console.print(f"[yellow]{shown(run.path)} was trained on other data than this simulator's[/yellow]")
    world = fitted.world([Split[split.upper()]], device)
    first, second = (run.policy(world, rules) for run in runs)
    with reporting("serving") as progress:
        arms = serve_both(
            world, rules, lambda _: first, lambda _: second, Traffic(days, visits, share), seed, progress
        )
    result = {
        "arm_a": str(arm_a),
        "arm_b": str(arm_b),
        "days": days,
        "visits_per_day": visits,
        "share": share,
        "seed": seed,
        "split": split,
        "world": rules.model_dump(mode="json"),
        "data_fingerprint": fitted.dataset.fingerprint,
        **analyse(arms, user_segments(fitted.dataset, arms.user), detect),
    }
    emit(result, as_json, render)


def render(result: Mapping[str, Any]) -> Group:
    """What a person sees."""
    title = (
        f"B {result['arm_b']} against A {result['arm_a']}: {result['visits']:,} visits, {result['split']} users"
    )
    lifts = _table(title, ("metric", "A", "B", "lift", "95%", "may be looked at any time", "p"))
    for metric, row in result["metrics"].items():
        lifts.add_row(metric.replace("_", " "), f"{row['a']:.3f}", f"{row['b']:.3f}", *_lift(row))
    segments = _table("Return by segment", ("users", "visits", "A", "B", "lift", "95%", "", "p"))
    for name, row in result["segments"].items():
        segments.add_row(name, f"{row['visits']:,}", f"{row['a']:.3f}", f"{row['b']:.3f}", *_lift(row))
    outcomes = _table("Behaviours and the money they move, by user", ("metric", "A", "B", "lift", "95%"))
    for name, row in result["outcomes"].items():
        values = f"{row['a']:.4f}", f"{row['b']:.4f}"
        outcomes.add_row(name.replace("_", " "), *values, _percent(row["relative"]), _range(row["relative95"]))
    live, power = result["live"], result["power"]
    said = (
        f"A live test of these visits, {live['visits_b']:,} of them with B, would have seen a lift of "
        f"{_percent(live.get('relative'))} ({_range(live.get('relative95'))}).\n"
        f"To notice a lift of {power['relative_lift']:.1%} in return four times out of five, it takes "
        f"{_count(power['paired_visits'])} visits served with both arms, or {_count(power['live_visits'])} "
        "of a live test.\n"
        "This compares two runs, not two methods: what other seeds of training would give is in no interval."
    )
    shown = (lifts, outcomes, segments) if result["outcomes"] else (lifts, segments)
    return Group(*shown, Text(said))


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, box=None, padding=(0, 1), header_style="bold", title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    return table


def _lift(row: Mapping[str, Any]) -> tuple[str, str, str, str]:
    a = row["a"]
    anytime = [bound / a for bound in row["anytime95"]] if a else None
    return _percent(row["relative"]), _range(row["relative95"]), _range(anytime), f"{row['anytime_p']:.2g}"


def _percent(value: float | None) -> str:
    return _NOTHING if value is None or value != value else f"{value:+.2%}"


def _range(bounds: Sequence[float] | None) -> str:
    return _NOTHING if bounds is None else f"{_percent(bounds[0])} to {_percent(bounds[1])}"


def _count(value: int | None) -> str:
    return _NOTHING if value is None else f"{value:,}"
