"""`rl-rec study`: variants of algorithms over seeds, worlds and serving conditions, as tables."""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Group
from rich.table import Table

from cluster.options import address_option, track_option
from envs.counted import counted
from envs.errors import Terminated, UserError
from envs.storage.location import Location, shown
from rl_rec.cli.checked import CheckedCommand
from rl_rec.cli.options import FOLDER, Choice, json_option, local_folders, set_option
from rl_rec.cli.output import console, emit
from rl_rec.cli.progress import reporting

if TYPE_CHECKING:
    from tuning.study_plan import StudyPlan

_DEFAULTS: Mapping[str, Any] = {"seeds": 5, "episodes": 2048, "split": "test"}


def _check_study(
    algorithm: str | None,
    simulator: Location | None,
    out: Location | None,
    resume_path: Location | None,
    variants: Sequence[str],
    worlds: Sequence[str],
    serves: Sequence[str],
    seeds: int | None,
    steps: int | None,
    split: str | None,
    episodes: int | None,
    assignments: Sequence[str],
    **_: object,
) -> None:
    new = {"ALGORITHM": algorithm, "--simulator": simulator, "--out": out}
    chosen = {"seeds": seeds, "episodes": episodes, "split": split}
    if resume_path is not None:
        several = {"--variant": variants, "--world": worlds, "--serve": serves, "--set": assignments}
        extra = {**new, **several, "--steps": steps, **{f"--{name}": value for name, value in chosen.items()}}
        given = [name for name, value in extra.items() if value is not None and value != ()]
        if given:
            raise UserError(f"--resume goes on with the study's own settings: leave out {', '.join(given)}")
    elif missing := [name for name, value in new.items() if value is None]:
        raise UserError(f"missing {', '.join(missing)} (or --resume STUDY)")
    else:
        assert algorithm is not None and simulator is not None
        plan = _plan(algorithm, simulator, variants, worlds, serves, assignments, steps, seeds, episodes, split)
        plan.check_alone()


@click.command(
    cls=CheckedCommand,
    check=_check_study,
    epilog="Example: rl-rec study hac --simulator work/sim --seeds 5 --out work/study --variant hac "
    "--variant supervision@hac:agent.policy_weight=0,agent.alignment_weight=0 "
    "--serve same: --serve short:world.max_steps=10",
)
@click.argument("algorithm", required=False)
@click.option("--simulator", type=FOLDER, help="A folder that rl-rec simulator fit wrote.")
@click.option("--out", type=FOLDER, help="The folder to write.")
@click.option("--resume", "resume_path", type=FOLDER, help="Go on with this study instead.")
@click.option(
    "--variant",
    "variants",
    multiple=True,
    metavar="NAME[@ALGORITHM][:PATH=VALUE,...]",
    help="A name of your own, its algorithm if not ALGORITHM, and the settings that make it differ; may be "
    "repeated. A list stands in brackets: agent.critic_hidden=[128,64]. The others are compared to the first; "
    "by default there is one, ALGORITHM as it is.",
)
@click.option(
    "--world",
    "worlds",
    multiple=True,
    metavar="[NAME:]PATH=VALUE,...",
    help="A world to train and compare them in, e.g. world.repeats=allow; may be repeated. By default the one "
    "of --set.",
)
@click.option(
    "--serve",
    "serves",
    multiple=True,
    metavar="NAME:[PATH=VALUE,...]",
    help="A condition to evaluate in, as changes to the world an agent was trained in, e.g. "
    "short:world.max_steps=10; may be repeated. By default that world itself.",
)
@click.option("--seeds", type=click.IntRange(min=1), help="Seeds 0, 1, ...: how many.  [default: 5]")
@click.option(
    "--steps", type=click.IntRange(min=1), help="User-steps of each run; the configuration's by default."
)
@click.option(
    "--split",
    type=Choice(["test", "validation"]),
    help="Whose users to evaluate on; choose settings on validation.  [default: test]",
)
@click.option("--episodes", type=click.IntRange(min=1), help="Users served per evaluation.  [default: 2048]")
@click.option("--parallel", type=click.IntRange(min=1), default=2, show_default=True, help="Runs at once.")
@address_option
@set_option
@track_option
@json_option
@local_folders(writes=("resume_path",), creates=("out",))
def study(
    algorithm: str | None,
    simulator: Location | None,
    out: Path | None,
    resume_path: Path | None,
    variants: Sequence[str],
    worlds: Sequence[str],
    serves: Sequence[str],
    seeds: int | None,
    steps: int | None,
    split: str | None,
    episodes: int | None,
    parallel: int,
    address: str | None,
    assignments: Sequence[str],
    track: Sequence[str],
    as_json: bool,
) -> None:
    """Compare variants of one or several algorithms on the same budget, seeds, users and random numbers.

    Reports the mean over seeds with a 95% t-interval, beside every reference policy, and the paired difference
    of each variant to the first: one table per training world and serving condition. The folder also gets
    results.csv, with every seed's figures, and learning curves. --set applies to every variant.
    """
    from cluster.ray_session import ray_session
    from tuning import study as studies
    from tuning.study_plan import read_plan
    from tuning.trackers import make_trackers

    if resume_path is not None:
        path = resume_path
        plan, _ = read_plan(path)
        if (done := studies.finished(path)) is not None:
            console.print(f"{shown(path)} is finished already", markup=False, soft_wrap=True)
            emit(done, as_json, render)
            return
    else:
        assert algorithm is not None and simulator is not None and out is not None
        path = out
        plan = _plan(algorithm, simulator, variants, worlds, serves, assignments, steps, seeds, episodes, split)
    if plan.base.idle:
        console.print(f"[yellow]{plan.base.idle}[/yellow]", soft_wrap=True)
    trackers = make_trackers(track, path.name)
    if resume_path is None:  # before Ray starts, which takes seconds
        studies.check(plan, path)
    go_on = f"go on with: rl-rec study --resume {shlex.quote(shown(path))}"
    try:
        with ray_session(plan.reservations, address, at_once=parallel, go_on=go_on):
            if resume_path is not None:
                result = studies.resume(path, parallel, reporting, trackers)
            else:
                result = studies.study(plan, path, parallel, reporting, trackers)
    except (KeyboardInterrupt, Terminated):
        if path.exists():
            console.print(go_on, markup=False, soft_wrap=True)
        raise
    emit(result, as_json, render)
    for trial, problem in result["failed"].items():
        notice = f"error: trial {trial} failed: {problem} (to try it again, {go_on})"
        console.print(notice, markup=False, soft_wrap=True)
    if result["failed"]:
        raise click.exceptions.Exit(1)


def _plan(
    algorithm: str,
    simulator: Location,
    variants: Sequence[str],
    worlds: Sequence[str],
    serves: Sequence[str],
    assignments: Sequence[str],
    steps: int | None,
    seeds: int | None,
    episodes: int | None,
    split: str | None,
) -> "StudyPlan":
    from envs.data.dataset import Split
    from rl_rec.agents import find_agent
    from tuning.study_plan import AS_TRAINED, SAME_WORLD, StudyPlan, make_variants, split_assignments

    wanted = []
    for text in variants or [algorithm]:
        match = re.fullmatch(r"(?P<name>[\w-]+)(@(?P<algorithm>[^:=]+))?(:(?P<changes>.*))?", text)
        if match is None:
            raise UserError(f"--variant takes NAME[@ALGORITHM][:PATH=VALUE,...], got {text!r}")
        agent = find_agent(match["algorithm"] or algorithm)
        wanted.append((match["name"], (agent, split_assignments(match["changes"] or ""))))
    conditions = []
    for option, texts in (("--world", worlds), ("--serve", serves)):
        named = []
        for text in texts:
            match = re.fullmatch(r"((?P<name>[^:=,]+):)?(?P<changes>.*)", text)
            if match is None or (match["name"] is None and (option == "--serve" or not text)):
                takes = "NAME:[PATH=VALUE,...]" if option == "--serve" else "[NAME:]PATH=VALUE,..."
                raise UserError(f"{option} takes {takes}, got {text!r}")
            named.append((match["name"] or text, split_assignments(match["changes"])))
        conditions.append(_unique(named, option))
    budget = [] if steps is None else [f"steps={steps}"]
    return StudyPlan(
        simulator=simulator,
        variants=make_variants(_unique(wanted, "--variant"), [*assignments, *budget]),
        worlds=conditions[0] or SAME_WORLD,
        serves=conditions[1] or AS_TRAINED,
        seeds=_DEFAULTS["seeds"] if seeds is None else seeds,
        episodes=_DEFAULTS["episodes"] if episodes is None else episodes,
        split=Split[(split or _DEFAULTS["split"]).upper()],
    )


def _unique(named: Sequence[tuple[str, Any]], option: str) -> dict[str, Any]:
    by_name = dict(named)
    if len(by_name) < len(named):
        names = [name for name, _ in named]
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"two {option} have the same name, {twice!r}")
    return by_name


def render(result: Mapping[str, Any]) -> Group:
    """One table per training world and serving condition."""
    return Group(*(_table(result, table) for table in result["tables"]))


def _table(result: Mapping[str, Any], content: Mapping[str, Any]) -> Table:
    rows = content["rows"]
    several = len({entry["algorithm"] for entry in result["variants"].values()}) > 1
    with_share = any(row.get("new_item_share") is not None for row in rows.values())
    budget = f"{result['steps']:,} user-steps, {counted(result['seeds'], 'seed')}, {result['split']} users"
    title = f"world {content['world_name']}, served {content['serve_name']}: {budget}"
    table = Table(title=title, box=None, padding=(0, 1), header_style="bold")
    columns = ["policy", *(["algorithm"] if several else []), "return", "95% interval", "norm.", "items"]
    for column in [*columns, *(["new items"] if with_share else [])]:
        left = column in ("policy", "algorithm")
        table.add_column(column, justify="left" if left else "right", no_wrap=True)
    table.add_column("paired difference", justify="right")  # gives way in a narrow terminal
    compared = False
    for name, row in rows.items():
        cells = [name, *([row["algorithm"] or ""] if several else [])]
        if "failed" in row:
            table.add_row(*cells, "failed", f"{row['failed']} of {counted(len(row['seeds']), 'seed')}")
            compared = True
            continue
        low, high = row["return_ci95"]
        cells += [f"{row['return_mean']:.2f}", _between(low, high, "–"), _figure(row["normalised"], ".3f")]
        cells.append(f"{row['distinct_items']:.0f}")
        if with_share:
            cells.append(_figure(row.get("new_item_share"), ".1%"))
        if compared and "difference_ci95" in row:  # the first is what the others are compared to
            low, high = row["difference_ci95"]
            cells.append(f"{row['difference_to_first']:+.2f} ({_between(low, high, ' to ', '+.2f')})")
        compared = compared or row["algorithm"] is not None
        table.add_row(*cells)
    return table


def _between(low: float | None, high: float | None, separator: str, form: str = ".2f") -> str:
    """An interval; one seed has none."""
    return "-" if low is None or high is None else f"{low:{form}}{separator}{high:{form}}"


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"
