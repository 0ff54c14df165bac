"""`rl-rec data inspect`: what raw logs hold and what looks wrong with them, before they are prepared."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from rl_rec.cli.checked import CheckedCommand
from rl_rec.cli.options import (
    FOLDER,
    json_option,
    local_folders,
    overridden,
    raw_options,
    refuse_existing,
    set_option,
)
from rl_rec.cli.output import emit, entries_table
from rl_rec.cli.progress import reporting

if TYPE_CHECKING:
    from envs.data.prepare import PrepareSettings

_COLOURS = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def source_settings(
    name: str, assignments: Sequence[str], seed: int | None = None, **_: object
) -> "PrepareSettings":
    """The settings by which the source ``name`` is prepared.

    Raises:
        UserError: no such source, or a bad assignment.
    """
    from envs.data.prepare import PrepareSettings
    from envs.data.sources import find_source

    find_source(name)
    return overridden(PrepareSettings(), assignments, seed)


@click.command(
    cls=CheckedCommand,
    check=source_settings,
    epilog="Example: rl-rec data inspect own --interactions log.csv --items items.csv --out report",
)
@click.argument("name")
@raw_options
@click.option("--out", type=FOLDER, help="Folder for inspect.json, .md and .png.")
@set_option
@json_option
@local_folders(writes=("out",))
def inspect(
    name: str,
    raw: Path | None,
    interactions: tuple[str, ...],
    items: Path | None,
    users: Path | None,
    roles: tuple[str, ...],
    skip_bad_rows: int,
    out: Path | None,
    assignments: tuple[str, ...],
    as_json: bool,
) -> None:
    """Explain the logs of the source NAME: what was understood, and what looks wrong.

    Takes what `prepare` takes. Rows that do not fit are counted instead of ending the command. Findings change
    nothing in the exit code, which is 2 only for what cannot be read at all.
    """
    from envs.data.inspect import inspect as look_through
    from envs.data.inspect.plots import draw
    from envs.data.inspect.report import markdown
    from envs.data.prepare import Raw
    from envs.files import new_directory, write_json
    from rl_rec.json_values import json_value

    if out is not None:
        refuse_existing(out, overwrite=False)
    settings = source_settings(name, assignments)
    with reporting("inspecting") as progress:
        found = look_through(name, Raw(raw, interactions, items, users, roles), settings, progress)
    if out is not None:
        with new_directory(out) as draft:
            write_json(draft / "inspect.json", json_value(found.result))
            (draft / "inspect.md").write_text(markdown(found.result), encoding="utf-8")
            if found.rows is not None:
                draw(found.rows, found.behaviours, draft / "inspect.png")
    emit({**({"path": out} if out else {}), **found.result}, as_json, _tables)


def _tables(result: Mapping[str, Any]) -> Group:
    span, behaviours = result["time"], result["behaviours"]
    figures = {
        "source": result["source"],
        "rows": result["rows"],
        "rows that do not fit": result["rows_that_do_not_fit"],
        "users": result["users"],
        "items": result["items"],
        "slates": result["slates"],
        "slate size": result["slate_size"],
        "time": f"{span['first']} to {span['last']} ({span['column']}, in {span['unit']})"
        if "first" in span
        else None,
        **{f"rate of {name}": of["rate"] for name, of in behaviours.items()},
        "shown at random": result["random_share"],
        "columns are from": result["sampled"]["columns"],
        **({"report": str(result["path"])} if "path" in result else {}),
    }
    return Group(entries_table(figures), Text(), _columns(result), Text(), *_findings(result))


def _columns(result: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("file", "column", "role", "type", "becomes", "example"):
        table.add_column(name, overflow="fold")
    for name in ("missing", "different"):
        table.add_column(name, justify="right")
    for column in result["columns"]:
        texts = [escape(column[name]) for name in ("file", "column", "role", "type", "becomes", "example")]
        table.add_row(*texts, f"{column['missing']:.1%}", f"{column['different']:,}")
    return table


def _findings(result: Mapping[str, Any]) -> list[Table | Text]:
    if not result["findings"]:
        return [Text("Nothing looks wrong.")]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "what", "what to do"):
        table.add_column(name, overflow="fold")
    for finding in result["findings"]:
        severity = f"[{_COLOURS[finding['severity']]}]{finding['severity']}[/]"
        table.add_row(severity, escape(finding["what"]), escape(finding["advice"]))
    first = [Text(f"  {row}") for row in result["first_bad_rows"]]
    named = [Text(), Text("first rows that do not fit", style="bold"), *first] if first else []
    return [table, *named]
