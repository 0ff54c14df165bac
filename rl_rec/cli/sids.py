"""`rl-rec sids`: from a dataset to semantic IDs of its items."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Group
from rich.table import Table

from envs.errors import UserError
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
    from rl_rec.sids.codebook import SidSettings

_SHOWN = 8
"""First-level clusters that a person sees."""

data_option = click.option(
    "--data",
    type=FOLDER,
    required=True,
    help="Folder of the dataset, from rl-rec data prepare, or of a simulator, which holds one.",
)


def _settings(assignments: Sequence[str], seed: int | None, **_: object) -> "SidSettings":
    from rl_rec.sids.codebook import SidSettings

    return overridden(SidSettings(), assignments, seed)


@click.group(epilog="Example: rl-rec sids build --data data/ml-1m --out sids/ml-1m")
def sids() -> None:
    """Give the items semantic IDs: codebook, table, report."""


@sids.command(
    cls=CheckedCommand,
    check=_settings,
    epilog="Example: rl-rec sids build --data data/ml-1m --out sids/ml-1m --set levels=3 "
    "--set codebook_size=64",
)
@data_option
@click.option("--out", type=FOLDER, required=True, help="Folder of the SIDs to write.")
@set_option
@seed_option
@overwrite_option
@json_option
@local_folders(reads=("data",), writes=("out",))
def build(
    data: Path,
    out: Path,
    assignments: tuple[str, ...],
    seed: int | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Fit residual k-means to the items.

    Writes codebook, table, report and plot. The error is what each level leaves of the standardised
    vectors; items that share an ID collide.
    """
    from rl_rec.provenance import describe_run
    from rl_rec.sids import folder
    from rl_rec.sids.build import build_sids
    from rl_rec.sids.vectors import load_dataset

    settings = _settings(assignments, seed)
    refuse_existing(out, overwrite)
    if data.resolve().is_relative_to(out.resolve()):
        raise UserError(f"{out} holds the dataset {data}, which would be overwritten: name another folder")
    started_s = time.perf_counter()
    dataset = load_dataset(data)
    run = describe_run(settings, settings.seed, dataset.fingerprint)
    with reporting("fitting") as progress:
        built, report = build_sids(dataset, settings, progress)
        folder.save(out, built, report, run, overwrite=overwrite)
    result = {
        "path": out,
        "dataset": dataset.name,
        "fingerprint": dataset.fingerprint,
        "sizes": list(built.table.sizes),
        **report,
        "plot": out / folder.PLOT,
        "seconds": round(time.perf_counter() - started_s, 3),
    }
    emit(result, as_json, _report)


@sids.command(
    epilog="Example: rl-rec sids encode --sids sids/ml-1m --data data/newer --out tokens.parquet",
)
@click.option(
    "--sids",
    "source",
    type=FOLDER,
    required=True,
    help="Folder of the SIDs, from rl-rec sids build.",
)
@data_option
@click.option(
    "--out", type=click.Path(path_type=Path), help="Parquet file of item, item_id and tokens to write."
)
@overwrite_option
@json_option
@local_folders(reads=("source", "data"))
def encode(source: Path, data: Path, out: Path | None, overwrite: bool, as_json: bool) -> None:
    """Give other items tokens of a codebook.

    The other dataset needs the same features. Items are the same where their ids are, and keep their
    tokens; new ones get their nearest centres. Columns learned from likes must come from the same
    factorisation. Without --out the JSON holds the tokens.
    """
    from rl_rec.sids import folder
    from rl_rec.sids.build import encode_dataset, write_tokens
    from rl_rec.sids.vectors import load_dataset

    if out is not None and out.exists() and (out.is_dir() or not overwrite):
        raise UserError(
            f"{out} exists already; name another file{'' if out.is_dir() else ' or add --overwrite'}"
        )
    loaded, dataset = folder.load(source), load_dataset(data)
    encoded = encode_dataset(loaded, dataset)
    tokens = encoded.pop("tokens")
    result = {"sids": source, "dataset": dataset.name, **encoded}
    if out is not None:
        write_tokens(out, dataset, tokens)
        result["tokens_file"] = out
    elif as_json:
        result["tokens"] = tokens.tolist()
    emit(result, as_json)


def _report(result: Mapping[str, Any]) -> Group:
    levels = Table(box=None, pad_edge=False)
    levels.add_column("level", no_wrap=True)
    for heading in ("tokens", "used", "perplexity", "most items", "error", "of variance"):
        levels.add_column(heading, justify="right")
    for number, level in enumerate(result["levels"], start=1):
        error = (f"{level['error']:.3f}", f"{level['error_share']:.1%}") if "error" in level else ("-", "-")
        counts = (f"{level[key]:,}" for key in ("tokens", "used"))
        levels.add_row(str(number), *counts, f"{level['perplexity']:.1f}", f"{level['largest']:,}", *error)
    entries: dict[str, Any] = {
        "sids": str(result["path"]),
        "dataset": result["dataset"],
        "items": result["items"],
        "distinct_ids": result["buckets"],
        "items_that_share_one": f"{result['collisions']:,} ({result['collision_share']:.1%})",
        "largest_bucket": result["largest_bucket"],
    }
    if "error_to_plain" in result["levels"][0]:
        ratios = (level.get("error_to_plain") for level in result["levels"])
        entries["error_to_unbalanced"] = ", ".join(f"{ratio:.3f}" for ratio in ratios if ratio is not None)
    entries |= {"plot": str(result["plot"]), "seconds": result["seconds"]}
    parts: list[Any] = [levels, "", entries_table(entries)]
    if result["examples"]:
        clusters = Table(box=None, pad_edge=False)
        clusters.add_column("first token", justify="right", no_wrap=True, min_width=11)
        clusters.add_column("items", justify="right", no_wrap=True, min_width=5)
        clusters.add_column("nearest to the centre", overflow="ellipsis", no_wrap=True)
        for cluster in result["examples"][:_SHOWN]:
            clusters.add_row(str(cluster["token"]), f"{cluster['items']:,}", " | ".join(cluster["nearest"]))
        parts += ["", clusters]
    return Group(*parts)
