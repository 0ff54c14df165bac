"""`rl-rec drill`: what each fault of a cluster does to a run, tried out on this machine."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from rl_rec.cli.options import json_option, refuse_existing
from rl_rec.cli.output import emit
from rl_rec.cli.progress import reporting

_VERDICTS = {True: "passed", False: "[red]failed[/red]", None: "[yellow]left out[/yellow]"}


@click.command(epilog="Example: rl-rec drill terminated runner-killed --out drills.json")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="A file to write besides, after every drill: JSON, or a table in Markdown if its name ends in .md.",
)
@click.option("--list", "listing", is_flag=True, help="Show the drills, and run none.")
@json_option
def drill(names: Sequence[str], out: Path | None, listing: bool, as_json: bool) -> None:
    """Bring faults about on a local throw-away cluster, and measure what each costs.

    Kills and stops processes of small runs of its own, never others, and shows for each fault what happened,
    the seconds until training went on, and the user-steps that were collected again. Without NAME all of them,
    which takes about 25 minutes; one that fails does not stop the others. Needs Linux. Without root, disk-full
    is left out; without an S3 server (pip install 'rl-rec[moto]'), those with s3:// are.
    """
    from cluster.drills.catalogue import DRILLS, run_drill
    from envs.files import new_file, write_json
    from envs.lookup import look_up

    for name in names:
        look_up("drill", name, DRILLS)
    if listing:
        emit({name: one.fault for name, one in DRILLS.items()}, as_json)
        return
    if out is not None:
        refuse_existing(out, False)
    found: dict[str, Any] = {}
    wanted = names or list(DRILLS)
    with reporting("drills") as progress:
        for index, name in enumerate(wanted):
            progress(index, len(wanted), name)
            found[name] = run_drill(name)
            if out is None:
                continue
            with new_file(out) as draft:
                if out.suffix == ".md":
                    draft.write_text(markdown(found))
                else:
                    write_json(draft, found)
    emit(found, as_json, render)
    if any(entry["passed"] is False for entry in found.values()):
        raise click.exceptions.Exit(1)


def _figures(entry: Mapping[str, Any], none: str) -> tuple[str, str]:
    """Seconds and user-steps as text."""
    seconds, lost = entry["recovery_s"], entry["lost_user_steps"]
    return none if seconds is None else f"{seconds:.1f}", none if lost is None else f"{lost:,}"


def markdown(found: Mapping[str, Any]) -> str:
    """The table of faults, as README.md has it."""
    lines = ["| drill | fault | what happened | seconds | user-steps lost |", "|---|---|---|---|---|"]
    for name, entry in found.items():
        happened = entry["happened"].replace("|", r"\|")
        failed = "**failed**: " if entry["passed"] is False else ""
        seconds, lost = _figures(entry, "–")
        lines.append(f"| {name} | {entry['fault']} | {failed}{happened} | {seconds} | {lost} |")
    return "\n".join(lines) + "\n"


def render(found: Mapping[str, Any]) -> Table:
    """The table of faults."""
    table = Table(box=None, padding=(0, 1), header_style="bold")
    table.add_column("drill", no_wrap=True)
    table.add_column("what happened")
    table.add_column("seconds", justify="right", no_wrap=True)
    table.add_column("user-steps lost", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for name, entry in found.items():
        table.add_row(name, escape(entry["happened"]), *_figures(entry, "-"), _VERDICTS[entry["passed"]])
    return table
