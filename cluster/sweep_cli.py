"""`rl-rec sweep` and `rl-rec report`: a question answered with Ray Tune, and the page that answers it."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Group
from rich.table import Table
from rich.text import Text

from cluster.options import address_option, track_option
from envs.errors import Terminated, UserError
from envs.storage.location import Location, shown
from rl_rec.cli.checked import CheckedCommand
from rl_rec.cli.options import (
    FOLDER,
    Choice,
    ValueOrFile,
    json_option,
    local_folders,
    overwrite_option,
    set_option,
)
from rl_rec.cli.output import console, emit
from rl_rec.cli.progress import reporting

if TYPE_CHECKING:
    from tuning.search import SearchPlan
    from tuning.study_plan import StudyPlan


def _is_file(name: str) -> bool:
    from tuning.sweep_files import is_file

    return is_file(name)


def _is_data_here(name: str) -> bool:
    """Whether a file can be read before it travels: under the path that it has there, and no code."""
    path = Path(name)
    return path.suffix != ".py" and path.is_file()


def _check_sweep(
    name: str | None,
    simulator: Location | None,
    out: Location | None,
    seeds: int | None,
    steps: int | None,
    episodes: int | None,
    split: str,
    dry_run: bool,
    assignments: Sequence[str],
    **_: object,
) -> None:
    if name is None:
        return
    needed = {"--simulator": simulator} if dry_run else {"--simulator": simulator, "--out": out}
    if missing := [option for option, value in needed.items() if value is None]:
        raise UserError(f"missing {', '.join(missing)}")
    if not _is_file(name) or _is_data_here(name):
        assert simulator is not None
        _plan(name, simulator, split, assignments, seeds, steps, episodes).check_alone()


def _plan(
    name: str,
    simulator: Location,
    split: str,
    assignments: Sequence[str],
    seeds: int | None,
    steps: int | None,
    episodes: int | None,
) -> "StudyPlan | SearchPlan":
    from envs.data.dataset import Split
    from tuning.sweep_files import find_sweep

    fields = {"seeds": seeds, "steps": steps, "episodes": episodes}
    given = {field: value for field, value in fields.items() if value is not None}
    return find_sweep(name).plan(simulator, Split[split.upper()], assignments, **given)


@click.command(
    cls=CheckedCommand,
    check=_check_sweep,
    epilog="Example: rl-rec sweep exploration-variance --simulator work/sim --out work/sigma --seeds 5",
)
@click.argument("name", required=False, metavar="[NAME|FILE]", type=ValueOrFile(_is_file))
@click.option("--simulator", type=FOLDER, help="A folder that rl-rec simulator fit wrote.")
@click.option("--out", type=FOLDER, help="The folder to write.")
@click.option("--seeds", type=click.IntRange(min=1), help="Seeds 0, 1, ...: how many; the sweep's by default.")
@click.option("--steps", type=click.IntRange(min=1), help="User-steps of each trial; the sweep's by default.")
@click.option(
    "--episodes", type=click.IntRange(min=1), help="Users served per evaluation; the sweep's by default."
)
@click.option(
    "--split",
    type=Choice(["test", "validation"]),
    default="test",
    show_default=True,
    help="Whose users to evaluate on; choose settings on validation.",
)
@click.option("--parallel", type=click.IntRange(min=1), default=2, show_default=True, help="Trials at once.")
@address_option
@click.option(
    "--if-exists",
    type=Choice(["fail", "resume", "restart"]),
    default="fail",
    show_default=True,
    help="Where --out exists: stop, go on with what is there, or delete it and begin again.",
)
@click.option("--dry-run", is_flag=True, help="Show trials, budget and resources, and train nothing.")
@set_option
@track_option
@json_option
@local_folders(writes=("out",))
def sweep(
    name: str | None,
    simulator: Location | None,
    out: Path | None,
    seeds: int | None,
    steps: int | None,
    episodes: int | None,
    split: str,
    parallel: int,
    address: str | None,
    if_exists: str,
    dry_run: bool,
    assignments: Sequence[str],
    track: Sequence[str],
    as_json: bool,
) -> None:
    """Answer a question: train every variant with every seed, evaluate, and write a report.

    NAME is a sweep that comes with the package (without it, they are listed), FILE one of your own: YAML with
    name, question, and cases, a grid or a space to search, or Python that defines SWEEP. A sweep that was
    killed goes on with --if-exists resume. The report is the page OUT/report/index.html.
    """
    if name is None:
        from tuning.sweeps import SWEEPS

        emit({known: one.question for known, one in SWEEPS.items()}, as_json, _listing)
        return
    assert simulator is not None

    from envs import world_folder

    plan = _plan(name, simulator, split, assignments, seeds, steps, episodes)
    if dry_run:
        plan.check(world_folder.load(simulator.resolve()))
        emit(_cost(plan, parallel), as_json, _trials)
        return
    assert out is not None
    _run(plan, out, parallel, address, if_exists, track, as_json)


def _run(
    plan: "StudyPlan | SearchPlan",
    out: Path,
    parallel: int,
    address: str | None,
    if_exists: str,
    track: Sequence[str],
    as_json: bool,
) -> None:
    from cluster.ray_session import ray_session
    from cluster.study_cli import render
    from envs import world_folder
    from rl_rec.json_values import json_value
    from tuning import search_run, study
    from tuning.report import write_report
    from tuning.search import SearchPlan
    from tuning.study_plan import read_plan
    from tuning.trackers import make_trackers
    from tuning.training import only_one, untouched

    if plan.base.idle:
        console.print(f"[yellow]{plan.base.idle}[/yellow]", soft_wrap=True)
    trackers, resumed = make_trackers(track, out.name), False
    there = not untouched(out)
    if there and if_exists != "fail":
        # Nothing but a study or a search is deleted or gone on with.
        before = search_run.read_search(out)[0] if search_run.is_search(out) else read_plan(out)[0]
        plan.check(world_folder.load(plan.simulator.resolve()))
        resumed = if_exists == "resume"
        if resumed and json_value(before.describe()) != json_value(plan.describe()):
            raise UserError(
                f"{out} holds another sweep or other settings: name another folder, or give --if-exists restart"
            )
        if not resumed:
            with only_one(out):  # nobody is training it
                shutil.rmtree(out)
    elif there:
        raise UserError(f"{out} exists already: name another folder, or give --if-exists resume or restart")
    elif isinstance(plan, SearchPlan):
        search_run.check(plan, out)
    else:
        study.check(plan, out)
    go_on = "go on with the same command and --if-exists resume"
    try:
        with ray_session(plan.reservations, address, at_once=parallel, go_on=go_on):
            if isinstance(plan, SearchPlan):
                result = (
                    search_run.resume(out, parallel, reporting, trackers)
                    if resumed
                    else search_run.search(plan, out, parallel, reporting, trackers)
                )
            elif resumed:
                result = study.resume(out, parallel, reporting, trackers)
            else:
                result = study.study(plan, out, parallel, reporting, trackers)
    except (KeyboardInterrupt, Terminated):
        if out.exists():
            console.print(go_on, soft_wrap=True)
        raise
    report = write_report(out, out / "report", overwrite=True)
    emit({**result, "report": report}, as_json, render)
    console.print(_answered({**report, "page": shown(report["page"])}), soft_wrap=True)
    for trial, problem in result["failed"].items():
        console.print(f"error: trial {trial} failed: {problem}", markup=False, soft_wrap=True)
    if result["failed"]:
        raise click.exceptions.Exit(1)


def _answered(report: Mapping[str, Any]) -> Text:
    """What the page says first, and where it is."""
    return Text("\n".join([*report["answers"].values(), f"report: {report['page']}"]))


def _cost(plan: "StudyPlan | SearchPlan", parallel: int) -> dict[str, Any]:
    from tuning.search import SearchPlan

    study = plan
    trials, looks = [], 0
    if isinstance(plan, SearchPlan):
        search, settings = plan.search, plan.base
        listed = search.candidates() if search.searcher == "random" else [{} for _ in range(search.trials)]
        trials = [
            _trial(f"trial-{index:03d}", plan.agent.name, settings) | {"values": values}
            for index, values in enumerate(listed)
        ]
        looks = search.trials * (search.steps // search.interval) * search.validation_episodes
        study = plan.finals(listed[: search.finalists] if search.searcher == "random" else [])
    assert not isinstance(study, SearchPlan)
    trials += [_trial(cell.name, cell.agent.name, cell.settings) for cell in study.cells()]
    return {
        "question": plan.question,
        "trials": trials,
        "user_steps": sum(trial["user_steps"] for trial in trials),
        "evaluations": looks + (len(study.cells()) + 4) * study.episodes,
        "at_once": parallel,
    }


def _trial(name: str, algorithm: str, settings: Any) -> dict[str, Any]:
    from rl_rec.resources import total

    cpus, gpus = total(settings.reservation)
    return {"trial": name, "algorithm": algorithm, "user_steps": settings.steps, "cpus": cpus, "gpus": gpus}


def _trials(cost: Mapping[str, Any]) -> Table:
    title = (
        f"{cost['question']}\n{len(cost['trials'])} trials, {cost['user_steps']:,} user-steps at most, "
        f"{cost['at_once']} at once, {cost['evaluations']:,} episodes of evaluation"
    )
    table = Table(title=title, box=None, padding=(0, 1), header_style="bold", title_justify="left")
    for column in ("trial", "algorithm", "user-steps", "CPUs", "GPUs"):
        table.add_column(column, justify="left" if column in ("trial", "algorithm") else "right", no_wrap=True)
    for trial in cost["trials"]:
        figures = (f"{trial['user_steps']:,}", f"{trial['cpus']:g}", f"{trial['gpus']:g}")
        table.add_row(trial["trial"], trial["algorithm"], *figures)
    return table


def _listing(questions: Mapping[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="bold")
    table.add_column("sweep", no_wrap=True)
    table.add_column("question")
    for name, question in questions.items():
        table.add_row(name, str(question))
    return table


@click.command(epilog="Example: rl-rec report work/sigma --out work/sigma-report")
@click.argument("folders", type=FOLDER, nargs=-1, required=True, metavar="FOLDER...")
@click.option("--out", type=FOLDER, help="The folder to write; FOLDER/report by default.")
@overwrite_option
@json_option
def report(folders: tuple[Location, ...], out: Location | None, overwrite: bool, as_json: bool) -> None:
    """Write the report of a finished sweep or study: one HTML page, Markdown, pictures and their numbers.

    Several FOLDERs hold the same variants in other worlds (simulators fitted with other seeds or shapes): says
    whether they rank alike, with Kendall's tau and its interval over seeds; --out keeps it as agreement.json.
    """
    if out is None and len(folders) == 1:
        out = folders[0] / "report"
    _report(folders=folders, out=out, overwrite=overwrite, as_json=as_json)


@local_folders(reads=("folders",), writes=("out",))
def _report(folders: tuple[Path, ...], out: Path | None, overwrite: bool, as_json: bool) -> None:
    if len(folders) == 1:
        from tuning.report import write_report

        assert out is not None
        emit(write_report(folders[0], out, overwrite), as_json, _answered)
        return
    from envs.files import new_directory, write_json
    from rl_rec.json_values import json_value
    from tuning.agreement import agreement

    result = agreement(folders)
    if out is not None:
        with new_directory(out, overwrite=overwrite) as draft:
            write_json(draft / "agreement.json", json_value(result))
    emit(result, as_json, _agreement)


def _agreement(result: Mapping[str, Any]) -> Group:
    worlds = result["worlds"]
    ranking = Table(title="rank and normalised return", title_justify="left", box=None, header_style="bold")
    ranking.add_column("variant", no_wrap=True)
    for world in worlds:
        ranking.add_column(world, justify="right")
    order = sorted(result["variants"].items(), key=lambda entry: entry[1]["ranks"][worlds[0]])
    for name, row in order:
        ranking.add_row(name, *(f"{row['ranks'][world]}  ({row['normalised'][world]:.3f})" for world in worlds))
    pairs = Table(title="Kendall's tau", title_justify="left", box=None, header_style="bold")
    for heading in ("world", "other world", "tau", "95% interval over seeds"):
        pairs.add_column(heading, justify="right" if heading == "tau" else "left")
    for pair in result["pairs"]:
        low, high = pair["tau95"]
        between = "-" if low != low else f"{low:.2f} to {high:.2f}"
        pairs.add_row(*pair["worlds"], f"{pair['tau']:.2f}", between)
    left_out = f"failed somewhere, and left out: {', '.join(result['left_out'])}" if result["left_out"] else ""
    return Group(ranking, "", pairs, left_out)
