"""`rl-rec simulator`: from a dataset to a calibrated simulator of its users."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Group
from rich.table import Table
from rich.text import Text

from envs.errors import UserError
from envs.storage.location import Location
from rl_rec.cli.checked import CheckedCommand
from rl_rec.cli.options import (
    FOLDER,
    device_option,
    json_option,
    local_folders,
    overridden,
    overwrite_option,
    refuse_existing,
    seed_option,
    set_option,
)
from rl_rec.cli.output import console, emit, entries_table
from rl_rec.cli.progress import reporting

if TYPE_CHECKING:
    from envs.fit import FitSettings
    from envs.world_settings import WorldSettings


def _fit_settings(assignments: Sequence[str], seed: int | None, **_: object) -> "FitSettings":
    from envs.fit import FitSettings

    return overridden(FitSettings(), assignments, seed)


def _rules(assignments: Sequence[str], **_: object) -> "WorldSettings":
    from envs.world_settings import WorldSettings

    return WorldSettings().with_overrides([assignment.removeprefix("world.") for assignment in assignments])


@click.group(epilog="Example: rl-rec simulator fit --data data/ml-1m --out simulators/ml-1m")
def simulator() -> None:
    """Fit the user simulator to a dataset, and say how far it may be trusted."""


@simulator.command(
    cls=CheckedCommand,
    check=_fit_settings,
    epilog="Example: rl-rec simulator fit --data data/ml-1m --out simulators/ml-1m --set model.dim=64 --seed 1",
)
@click.option(
    "--data",
    type=FOLDER,
    required=True,
    help="Folder of the dataset, from rl-rec data prepare.",
)
@click.option("--out", type=FOLDER, required=True, help="Folder of the simulator to write.")
@set_option
@seed_option
@device_option
@overwrite_option
@json_option
@local_folders(reads=("data",), writes=("out",))
def fit(
    data: Path,
    out: Path,
    assignments: tuple[str, ...],
    seed: int | None,
    device: str,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Fit the user response model and measure it on held-out users.

    Writes the simulator, its held-out quality beside that of simpler predictors, and a reliability plot.
    """
    from envs import world_folder
    from envs.data.dataset import load
    from envs.fit import fit as fit_response
    from envs.fit_ensemble import fit_ensemble
    from rl_rec.provenance import describe_run

    settings = _fit_settings(assignments, seed)
    refuse_existing(out, overwrite)
    if data.resolve().is_relative_to(out.resolve()):
        raise UserError(f"{out} holds the dataset {data}, which would be overwritten: name another folder")
    started_s = time.perf_counter()
    dataset = load(data)
    run = describe_run(settings, settings.seed, dataset.fingerprint, device)
    with reporting("fitting") as progress:
        model, report = fit_response(dataset, settings, device, progress)
        ensemble = fit_ensemble(dataset, model, settings, device, progress) if settings.ensemble else None
        world_folder.save(
            out, data, dataset, model, settings, report, run, overwrite=overwrite, ensemble=ensemble
        )
    result = {
        "path": out,
        "dataset": dataset.name,
        "fingerprint": dataset.fingerprint,
        **report.to_json(),
        "epochs": len(report.validation_log_loss),
        "best_epoch": report.best_epoch,
        "reliability_plot": out / world_folder.RELIABILITY_PLOT,
        **({"ensemble": {"models": len(ensemble.models), "threshold": ensemble.threshold}} if ensemble else {}),
        "seconds": round(time.perf_counter() - started_s, 3),
    }
    emit(result, as_json, _table)
    for warning in report.warnings:
        console.print(Text(f"warning: {warning}", style="bold red"), soft_wrap=True)


@simulator.command(
    cls=CheckedCommand,
    check=_rules,
    epilog="Example: rl-rec simulator report --simulator simulators/ml-1m --out report",
)
@click.option(
    "--simulator",
    "path",
    type=FOLDER,
    required=True,
    help="Folder of the simulator, from rl-rec simulator fit.",
)
@click.option("--out", type=FOLDER, help="Folder of the report to write; SIMULATOR/report by default.")
@click.option(
    "--episodes",
    type=click.IntRange(min=1),
    default=2048,
    show_default=True,
    help="Test users served by each reference policy.",
)
@set_option
@seed_option
@device_option
@overwrite_option
@json_option
def report(
    path: Location,
    out: Location | None,
    episodes: int,
    assignments: tuple[str, ...],
    seed: int | None,
    device: str,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Say how far a simulator may be trusted, on held-out users: a page, Markdown, pictures and figures.json.

    Predictions beside simpler predictors, on logged and on randomly drawn slates; calibration by item
    popularity and kind of user; what the reference policies earn; and, where the simulator was fitted with
    --set ensemble=4, how far the logs support what they show. --set changes the rules of the world in which
    they serve, e.g. --set world.reward=sweet_point.
    """
    _report(
        path=path,
        out=out or path / "report",
        episodes=episodes,
        assignments=assignments,
        seed=seed or 0,
        device=device,
        overwrite=overwrite,
        as_json=as_json,
    )


@local_folders(reads=("path",), writes=("out",))
def _report(
    path: Path,
    out: Path,
    episodes: int,
    assignments: tuple[str, ...],
    seed: int,
    device: str,
    overwrite: bool,
    as_json: bool,
) -> None:
    from envs import world_folder
    from rl_rec.simulator_report.page import write_report

    rules = _rules(assignments)
    refuse_existing(out, overwrite)
    fitted = world_folder.load(path)
    if path.resolve().is_relative_to(out.resolve()):
        raise UserError(f"{out} holds the simulator {path}, which would be overwritten: name another folder")
    with reporting("reference policies") as progress:
        found = write_report(
            path, fitted, rules, out,
            episodes=episodes, seed=seed, device=device, overwrite=overwrite, progress=progress,
        )  # fmt: skip
    emit(found, as_json, _findings)


def _findings(found: Mapping[str, Any]) -> Group:
    sentences = (Text(f"- {sentence}") for sentence in found["findings"])
    return Group(*sentences, "", Text(f"report: {found['page']}"))


def _table(result: Mapping[str, Any]) -> Group:
    quality = Table(box=None, pad_edge=False)
    quality.add_column("behaviour", no_wrap=True)
    quality.add_column("held-out users", no_wrap=True)
    for heading in ("AUC", "log-loss", "ECE"):
        quality.add_column(heading, justify="right")
    first, *others = result["behaviours"]
    predictors = {first: result["quality"]} | {
        name: {"model": result["behaviours"][name], "base_rate": result["base_rates"][name]} for name in others
    }
    for behaviour, of_behaviour in predictors.items():
        for name, figures in of_behaviour.items():
            row = (f"{figures[key]:.4f}" for key in ("auc", "log_loss", "ece"))
            style = "bold" if name == "model" else None
            quality.add_row(behaviour, name.replace("_", " "), *row, style=style)
    entries = {
        "simulator": str(result["path"]),
        "dataset": result["dataset"],
        "held_out_responses": result["held_out_responses"],
        "epochs": f"{result['epochs']} (best: {result['best_epoch']})",
        "reliability_plot": str(result["reliability_plot"]),
        **({"ensemble": result["ensemble"]} if "ensemble" in result else {}),
        "seconds": result["seconds"],
    }
    return Group(quality, "", entries_table(entries))
