"""The page: one self-contained HTML file, the same as Markdown, all figures as JSON, each picture as SVG."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from envs.data.dataset import Split
from envs.data.sessions import Origin
from envs.files import new_directory, write_json
from envs.progress import Progress, silent
from envs.world_folder import FittedWorld
from envs.world_settings import WorldSettings
from rl_rec.json_values import json_value
from rl_rec.pages import templates
from rl_rec.simulator_report.findings import is_off, sentences
from rl_rec.simulator_report.measure import LogFound, measure
from rl_rec.simulator_report.pictures import draw_gaps, draw_reliability, draw_support
from rl_rec.simulator_report.policies import PoliciesFound, serve_references

PAGE, MARKDOWN, FIGURES = "index.html", "report.md", "figures.json"
_TEMPLATES = {PAGE: "page.html", MARKDOWN: "page.md"}
_KINDS = {Origin.LOGGED: "logged slates", Origin.RANDOM: "randomly drawn slates"}


class Row(NamedTuple):
    """Of a table."""

    cells: Sequence[str]
    off: bool = False
    """Wrong beyond chance: it stands out."""


@dataclass(frozen=True)
class Table:
    """One table of the page."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Row]
    note: str


def write_report(
    simulator: Path,
    fitted: FittedWorld,
    rules: WorldSettings,
    out: Path,
    *,
    episodes: int,
    seed: int = 0,
    device: torch.device | str = "cpu",
    overwrite: bool = False,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measure a simulator and write the folder ``out``.

    Args:
        simulator: where it was loaded from.
        fitted: what was loaded.
        rules: of the world in which the reference policies serve.
        out: the folder to write.
        episodes: users served by each reference policy.
        seed: of users, responses and the search for the best constant slate.
        device: where to compute.
        overwrite: replace ``out`` if it exists.
        progress: of the reference policies.

    Returns:
        Everything that was found, plain data; ``findings`` are the sentences, ``page`` the HTML file.

    Raises:
        UserError: ``out`` exists and ``overwrite`` is off, or the rules do not fit the world.
    """
    world = fitted.world([Split.TEST], device)
    with new_directory(out, overwrite=overwrite) as draft:
        logs = measure(fitted, world)
        policies = serve_references(fitted, world, rules, episodes, seed, progress)
        logged = logs[Origin.LOGGED].uncertainty
        support = policies.support(logged)
        pictures = [draw_reliability(logs), draw_gaps(logs)]
        if logged is not None:
            pictures.append(draw_support(logged, policies))
        ensemble = fitted.ensemble
        found = {
            "simulator": str(simulator),
            "dataset": fitted.dataset.name,
            "data_fingerprint": fitted.dataset.fingerprint,
            "findings": sentences(logs, policies, support),
            "logs": {origin.name.lower(): found.to_json() for origin, found in logs.items()},
            "policies": policies.to_json(),
            "headroom": policies.headroom,
            "support": support,
            "threshold": None if ensemble is None else ensemble.threshold,
            "world": rules.model_dump(mode="json"),
            "episodes": episodes,
            "seed": seed,
        }
        content = {
            "dataset": fitted.dataset.name,
            "findings": found["findings"],
            "tables": [
                _quality_table(logs),
                *(_group_table(one) for one in logs.values()),
                _policy_table(policies, support),
            ],
            "pictures": pictures,
            "facts": {
                "simulator": simulator,
                "data": fitted.dataset.fingerprint[:16],
                "held-out responses": ", ".join(
                    f"{one.overall.responses:,} to {_KINDS[origin]} of {one.overall.users:,} users"
                    for origin, one in logs.items()
                ),
                "reference policies": f"{episodes:,} episodes of test users, seed {seed}",
                "ensemble": "none" if ensemble is None else f"{len(ensemble.models)} further models",
            },
        }
        environment = templates("rl_rec.simulator_report", ".")
        for file, template in _TEMPLATES.items():
            (draft / file).write_text(environment.get_template(template).render(content), encoding="utf-8")
        for picture in pictures:
            (draft / f"{picture.name}.svg").write_text(picture.svg, encoding="utf-8")
            (draft / f"{picture.name}.csv").write_text(picture.csv, encoding="utf-8")
        write_json(draft / FIGURES, json_value(found))
    return {"page": str(Path(out) / PAGE), **found}


def _quality_table(logs: Mapping[Origin, LogFound]) -> Table:
    rows = [
        Row([_KINDS[origin], behaviour, name.replace("_", " "), *(f"{figure:.4f}" for figure in figures)])
        for origin, found in logs.items()
        for behaviour, predictors in found.quality.items()
        for name, figures in (
            (name, (quality.auc, quality.log_loss, quality.ece)) for name, quality in predictors.items()
        )
    ]
    note = (
        "Held-out users. The predictors beside the model know the training users' logged slates and nothing "
        "else. ECE: expected calibration error over 15 equally populated bins. A behaviour that needs another "
        "is asked where that happened."
    )
    return Table("Predictions", ["slates", "behaviour", "predictor", "AUC", "log-loss", "ECE"], rows, note)


def _group_table(found: LogFound) -> Table:
    rows = []
    for group in found.groups:
        low, high = group.bias.interval()
        cells = [
            group.kind,
            group.label,
            f"{group.bias.responses:,}",
            f"{group.bias.predicted:.3f}",
            f"{group.bias.observed:.3f}",
            f"{group.bias.gap:+.3f}",
            f"{low:+.3f} to {high:+.3f}",
            f"{group.bias.ece:.3f}",
            f"{group.bias.chance_ece:.3f}",
        ]
        rows.append(Row(cells, is_off(group.bias, len(found.groups))))
    headings = ("group", "", "responses", "predicted", "observed", "gap", "95% interval", "ECE", "by chance")
    note = (
        "Gap: predicted less observed, its interval over users. Bold: beyond 0.02 and beyond chance, counting "
        "how many groups were looked at. By chance: the mean ECE of perfect probabilities with as many "
        "responses. A user's likes are those of the other half of their slates, not of the ones measured."
    )
    return Table(f"Calibration by group, {_KINDS[found.origin]}", headings, rows, note)


def _policy_table(policies: PoliciesFound, support: Mapping[str, Mapping[str, float]] | None) -> Table:
    headings = ["policy", "", "return", "95% interval", "normalised", "click rate", "items"]
    if support is not None:
        headings += ["uncertainty: mean", "median", "95%", "unsupported"]
    figures: Mapping[str, Any] = policies.to_json()
    rows = []
    for name, reached in figures.items():
        low, high = reached["return_ci95"]
        cells = [name, "", f"{reached['return_mean']:.2f}", f"{low:.2f} to {high:.2f}"]
        cells += [
            f"{reached['normalised']:.2f}",
            f"{reached['click_rate']:.3f}",
            f"{reached['distinct_items']:,}",
        ]
        rows.append(Row([*cells, *_support_cells(support, name)]))
    if support is not None:
        rows.append(Row(["logged exposures", "", "", "", "", "", "", *_support_cells(support, "logged")]))
    note = (
        f"(oracle − best constant) / (oracle − random) = {policies.headroom:.2f}. Uncertainty: standard "
        "deviation of the response probability over the ensemble; unsupported: share of shown items above 95% "
        "of the logged exposures."
    )
    return Table("Reference policies", headings, rows, note)


def _support_cells(support: Mapping[str, Mapping[str, float]] | None, name: str) -> list[str]:
    if support is None:
        return []
    figures = support[name]
    return [f"{figures[key]:.3f}" for key in ("mean", "q50", "q95")] + [f"{figures['unsupported']:.1%}"]
