"""`rl-rec evaluate`: a trained run or a reference policy on held-out users."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.table import Table

from envs.errors import UserError
from envs.files import read_json
from envs.storage.location import Location
from rl_rec.cli.checked import CheckedCommand
from rl_rec.cli.options import (
    FOLDER,
    Choice,
    ValueOrFile,
    device_option,
    json_option,
    local_folders,
    set_option,
)
from rl_rec.cli.output import console, emit, entries_table
from rl_rec.cli.progress import reporting

_SPLITS = ("train", "validation", "test")
_POLICIES = ("random", "popular", "constant", "oracle", "planner")
_FEW_LOGS = 0.25
"""Share of unsupported slots above which a return deserves a warning; of the logs themselves it is 0.05."""


def _is_file(schedule: str) -> bool:
    return "=" not in schedule or schedule.startswith("/") or schedule.endswith(".json")


def _check(
    run_path: Location | None,
    policy: str | None,
    simulator_path: Location | None,
    schedule: str | None,
    assignments: Sequence[str],
    **_: object,
) -> None:
    if (run_path is None) == (policy is None):
        raise UserError("give either --run FOLDER or --policy NAME")
    if policy is not None and simulator_path is None:
        raise UserError("--policy needs --simulator FOLDER (make one with: rl-rec simulator fit)")
    from envs.world_settings import WorldSettings

    known = None if schedule is None or _is_file(schedule) else schedule
    changes = _changes(known, assignments)
    if policy is not None:
        WorldSettings().with_overrides(changes)
    else:  # what they change is in the run's folder
        WorldSettings().check_paths(changes)


def _changes(schedule: str | None, assignments: Sequence[str]) -> list[str]:
    """``--catalogue`` and ``--set``, which has the last word, as assignments to the world's rules."""
    # They may be spelt as for train, world.repeats=allow, or without the prefix.
    own = [assignment.removeprefix("world.") for assignment in assignments]
    return [*([] if schedule is None else _catalogue_changes(schedule)), *own]


@click.command(
    cls=CheckedCommand,
    check=_check,
    epilog="Example: rl-rec evaluate --run runs/hac --simulator worlds/ml-100k --episodes 2048 --seed 1 --json",
)
@click.option("--run", "run_path", type=FOLDER, help="A folder that rl-rec train wrote.")
@click.option("--policy", type=Choice(_POLICIES), help="A reference policy instead of a run.")
@click.option(
    "--simulator",
    "simulator_path",
    type=FOLDER,
    help="A folder that rl-rec simulator fit wrote; a run's own by default.",
)
@click.option(
    "--episodes",
    type=click.IntRange(min=1),
    default=2048,
    show_default=True,
    help="Users served, one episode each; every user of the split comes equally often.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of users and responses: the same for every policy.",
)
@click.option(
    "--split", type=Choice(_SPLITS), default="test", show_default=True, help="Which users are served."
)
@click.option(
    "--catalogue",
    "schedule",
    type=ValueOrFile(_is_file),
    metavar="SCHEDULE",
    help="Change which items are live: NAME=VALUE,... or a JSON file with these names: withheld, rule, churn, "
    "seed, show. Example: --catalogue show=all shows a run that was trained with world.catalogue.withheld=0.2 "
    "the items it never met.",
)
@set_option
@device_option
@json_option
@local_folders(reads=("run_path",))
def evaluate(
    run_path: Path | None,
    policy: str | None,
    simulator_path: Location | None,
    episodes: int,
    seed: int,
    split: str,
    schedule: str | None,
    assignments: Sequence[str],
    device: str,
    as_json: bool,
) -> None:
    """Measure a policy: mean return with a 95% interval, depth, click rate, coverage, diversity, new items.

    `normalised` places the return between the random policy's (0) and the myopic oracle's (1). --set changes
    the world's rules, e.g. --set world.repeats=allow; a run is measured in the world it was trained in by
    default. Where the simulator has an ensemble, `unsupported_share` says how much of what was shown is beyond
    the logs; under world.reward=sweet_point, what an episode can reach is shown as well.
    """
    from envs import world_folder
    from envs.data.dataset import Split
    from envs.world_settings import WorldSettings
    from rl_rec.comparison import Comparison
    from rl_rec.run_folder import RunFolder

    run = RunFolder(run_path) if run_path is not None else None
    rules = (run.settings.world if run else WorldSettings()).with_overrides(_changes(schedule, assignments))
    fitted = world_folder.load(simulator_path or run.simulator)  # type: ignore[union-attr]
    if run is not None and run.fingerprint not in (None, fitted.dataset.fingerprint):
        console.print("[yellow]the run was trained on other data than this simulator was fitted on[/yellow]")
    comparison = Comparison(fitted, Split[split.upper()], rules, episodes, seed, device)
    with reporting("evaluating") as progress:
        if run is not None:
            agent = run.policy(comparison.world, rules)
            result = {"run": str(run_path), **comparison.run(lambda _: agent, progress)}
        else:
            result = {"policy": policy, **comparison.run_reference(policy, progress)}  # type: ignore[arg-type]
    if result.get("unsupported_share", 0.0) > _FEW_LOGS:
        console.print(
            f"[yellow]{result['unsupported_share']:.0%} of the shown items are beyond what the logs support: "
            "the return rests on guesses of the response model (see rl-rec simulator report)[/yellow]",
            soft_wrap=True,
        )
    emit(result, as_json, _table)


def _table(result: Mapping[str, Any]) -> RenderableType:
    """The figures, of the world's rules those that were changed, and below them what an episode can reach."""
    from envs.world_settings import WorldSettings

    changes = WorldSettings.from_mapping(result["world"]).changes()
    figures = {name: value for name, value in result.items() if name != "episode_bounds"}
    entries = entries_table(figures | {"world": "\n".join(changes) or "by default"})
    if "episode_bounds" not in result:
        return entries
    bounds = Table(title="an episode in which every slate gets", title_justify="left", box=None, pad_edge=False)
    for heading in ("clicks", "steps", "return"):
        bounds.add_column(heading, justify="right")
    best = max(bound["total"] for bound in result["episode_bounds"])
    for bound in reversed(result["episode_bounds"]):
        row = (str(bound["clicks"]), str(bound["steps"]), f"{bound['total']:.2f}")
        bounds.add_row(*row, style="bold" if bound["total"] == best else None)
    return Group(entries, "", bounds)


def _catalogue_changes(schedule: str) -> list[str]:
    """``--catalogue`` as assignments to the world's rules.

    Raises:
        UserError: neither NAME=VALUE,... nor a JSON file with one object.
    """
    refusal = f"--catalogue takes NAME=VALUE,... or the path of a JSON file, got {schedule!r}"
    if _is_file(schedule):
        path = Path(schedule)
        if not path.is_file():
            raise UserError(refusal)
        values = read_json(path, "a catalogue schedule")
        if not isinstance(values, dict):
            raise UserError(f'{path}: expected one JSON object such as {{"withheld": 0.2}}')
        parts = [f"{name}={value}" for name, value in values.items()]
    else:
        parts = [part.strip() for part in schedule.split(",")]
        if not all("=" in part for part in parts):
            raise UserError(refusal)
    return [f"catalogue.{part}" for part in parts]
