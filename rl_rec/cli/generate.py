"""`rl-rec data generate`: log files in the formats of public data sets, from a planted world."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from rl_rec.cli.checked import CheckedCommand
from rl_rec.cli.options import (
    FOLDER,
    json_option,
    local_folders,
    overridden,
    overwrite_option,
    refuse_existing,
    seed_option,
    set_option,
)
from rl_rec.cli.output import emit, entries_table
from rl_rec.cli.progress import reporting

if TYPE_CHECKING:
    from envs.data.generators.planted import GeneratorSettings


def _settings(name: str, assignments: Sequence[str], seed: int | None, **_: object) -> "GeneratorSettings":
    from envs.data.generators import default_settings

    return overridden(default_settings(name), assignments, seed)


@click.command(
    cls=CheckedCommand,
    check=_settings,
    epilog="Example: rl-rec data generate kuairand-pure --out downloads/kuairand --set users=2000 --seed 1",
)
@click.argument("name")
@click.option("--out", type=FOLDER, required=True, help="Folder to write the files into.")
@set_option
@seed_option
@overwrite_option
@json_option
@local_folders(writes=("out",))
def generate(
    name: str,
    out: Path,
    assignments: tuple[str, ...],
    seed: int | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write files as the source NAME has them: ml-1m, rl4rs, kuairand-pure, kuairand-1k or own.

    Users and their responses are drawn from a planted world, by default about as many as in the real set;
    truth.json in the folder says what a perfect model would reach on the files.
    """
    from envs.data.generators import generate as generate_files

    settings = _settings(name, assignments, seed)
    refuse_existing(out, overwrite)
    started_s = time.perf_counter()
    with reporting("generating") as progress:
        description = generate_files(name, out, settings, overwrite=overwrite, progress=progress)
    seconds = time.perf_counter() - started_s
    emit({"path": out, **description, "seconds": round(seconds, 3)}, as_json, _table)


def _table(result: Mapping[str, Any]) -> Table:
    first = result["behaviours"][0]["name"]
    logs = {
        log: {"rows": figures["rows"], **figures["behaviours"][first]}
        for log, figures in result["logs"].items()
    }
    return entries_table(
        {
            "folder": str(result["path"]),
            **result["counts"],
            "first behaviour": first,
            **logs,
            "seconds": result["seconds"],
        }
    )
