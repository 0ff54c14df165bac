"""`rl-rec data`: from raw logs to the dataset that every later stage reads."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from envs.errors import UserError
from rl_rec.cli.checked import CheckedCommand
from rl_rec.cli.generate import generate
from rl_rec.cli.inspect import inspect, source_settings
from rl_rec.cli.options import (
    FOLDER,
    json_option,
    local_folders,
    overwrite_option,
    raw_options,
    refuse_existing,
    seed_option,
    set_option,
)
from rl_rec.cli.output import emit, entries_table
from rl_rec.cli.progress import reporting


@click.group(epilog="Example: rl-rec data prepare synthetic --out data/synthetic")
def data() -> None:
    """Turn raw interaction logs into a columnar dataset."""


@data.command(
    cls=CheckedCommand,
    check=source_settings,
    epilog="Example: rl-rec data prepare ml-1m --raw downloads/ml-1m --out data/ml-1m --seed 1",
)
@click.argument("name")
@raw_options
@click.option("--out", type=FOLDER, required=True, help="Folder of the dataset to write.")
@set_option
@seed_option
@overwrite_option
@json_option
@local_folders(writes=("out",))
def prepare(
    name: str,
    raw: Path | None,
    interactions: tuple[str, ...],
    items: Path | None,
    users: Path | None,
    roles: tuple[str, ...],
    skip_bad_rows: int,
    out: Path,
    assignments: tuple[str, ...],
    seed: int | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Prepare the source NAME.

    NAME is ml-100k, ml-1m, rl4rs, kuairand-pure, kuairand-1k, own, synthetic or advertising.

    Splits the users into training, validation and test, and cuts their logs into slates. Stopped half-way, it
    goes on where it was when started again; what was prepared from the same files and settings stays as it is.
    """
    from envs.data.dataset import describe, save
    from envs.data.prepare import Raw, unchanged
    from envs.data.prepare import prepare as prepare_dataset
    from envs.data.raw.parts import WorkFolder

    settings = source_settings(name, assignments, seed)
    source = Raw(raw, interactions, items, users, roles, skip_bad_rows)
    for path in (raw, items, users, *map(Path, interactions)):
        if path is not None and path.resolve().is_relative_to(out.resolve()):
            raise UserError(
                f"{out} holds the raw files {path}, which would be overwritten: name another folder"
            )
    started_s = time.perf_counter()
    description = None if overwrite else unchanged(out, name, source, settings)
    if description is None:
        refuse_existing(out, overwrite)
        with reporting("preparing") as progress, WorkFolder.beside(out) as work:
            dataset = prepare_dataset(name, source, settings, progress, work)
            save(dataset, out, overwrite=overwrite)
        description, is_new = describe(dataset), True
    else:
        is_new = False
    counts = description["counts"]
    result = {
        "path": out,
        "unchanged": not is_new,
        **description,
        "positive_rate": (counts["likes"] - counts["history_likes"]) / counts["exposures"],
        "seconds": round(time.perf_counter() - started_s, 3),
    }
    emit(result, as_json, _table)


def _table(result: Mapping[str, Any]) -> Table:
    counts = result["counts"]
    shares = " / ".join(f"{counts[f'{split}_users']:,}" for split in ("train", "validation", "test"))
    source = result["source"]
    skipped = [f"{file}: {of['skipped']:,}, first {of['first']}" for file, of in source["bad_rows"].items()]
    columns = {
        f"{place}_columns": ", ".join(f"{column}={role}" for column, role in roles.items())
        for place, roles in source.get("roles", {}).items()
    }
    return entries_table(
        {
            "dataset": str(result["path"]) + (" (unchanged)" if result["unchanged"] else ""),
            "users": counts["users"],
            "train / validation / test": shares,
            "items": counts["items"],
            "sessions": counts["sessions"],
            "slate_size": result["slate_size"],
            "interactions": counts["exposures"],
            "positive_rate": result["positive_rate"],
            **columns,
            **({"bad_rows_skipped": "; ".join(skipped)} if skipped else {}),
            "fingerprint": result["fingerprint"][:16],
            "seconds": result["seconds"],
        }
    )


data.add_command(generate)
data.add_command(inspect)
