"""What a study found: one table per training world and serving condition, and one CSV of every figure."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from envs.progress import Progress
from rl_rec.comparison import REFERENCES
from rl_rec.json_values import json_value
from tuning.intervals import interval95
from tuning.study_evaluator import Job, evaluations
from tuning.study_plan import Cell, StudyPlan

RESULTS_FILE = "results.csv"
_NOT_COLUMNS = ("seed", "world", "data_fingerprint", "return_ci95", "random_return", "oracle_return")


def make_tables(
    plan: StudyPlan, out: Path, failed: Mapping[str, str], parallel: int, progress: Progress
) -> list[dict[str, Any]]:
    """Evaluate every trained agent in every serving condition; ``results.csv`` grows with each table.

    Needs a running Ray.

    Args:
        plan: the study.
        out: its folder.
        failed: by trial, why it could not be trained.
        parallel: policies to evaluate at once.
        progress: called after each evaluation.

    Returns:
        One entry per training world and serving condition, plain data.
    """
    cells = plan.cells()
    # Different worlds may be served alike: a reference policy is evaluated once under the same rules.
    rules = {(world, serve): plan.rules(world, serve) for world, serve in product(plan.worlds, plan.serves)}
    first: dict[tuple[str, str], Job] = {}
    jobs: list[Job] = []
    for (world, serve), served in rules.items():
        for name in REFERENCES:
            job = first.setdefault((served.model_dump_json(), name), Job(world, serve, name))
            if job.world == world and job.serve == serve:
                jobs.append(job)
        jobs += [Job(world, serve, c.name) for c in cells if c.world == world and c.name not in failed]
    evaluated: dict[Job, dict[str, Any]] = {}
    remaining = evaluations(plan, out, jobs, parallel)
    tables: list[dict[str, Any]] = []
    for (world, serve), served in rules.items():
        of_world = [cell for cell in cells if cell.world == world]
        references = {name: first[served.model_dump_json(), name] for name in REFERENCES}
        agents = {cell.name: Job(world, serve, cell.name) for cell in of_world if cell.name not in failed}
        while not evaluated.keys() >= {*references.values(), *agents.values()}:
            job, figures = next(remaining)
            evaluated[job] = figures
            progress(len(evaluated), len(jobs), job.policy)
        tables.append(
            {
                "world_name": world,
                "serve_name": serve,
                "world": plan.rules(world).model_dump(mode="json"),
                "served": served.model_dump(mode="json"),
                "rows": _rows(
                    {name: evaluated[job] for name, job in references.items()},
                    of_world,
                    {name: evaluated[job] for name, job in agents.items()},
                    failed,
                ),
            }
        )
        _write_results(tables, out / RESULTS_FILE)
    return tables


def _rows(
    references: Mapping[str, Mapping[str, Any]],
    cells: Sequence[Cell],
    figures: Mapping[str, Mapping[str, Any]],
    failed: Mapping[str, str],
) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for name, reached in references.items():
        rows[name] = {
            "algorithm": None,
            "return_mean": reached["return_mean"],
            "return_ci95": reached["return_ci95"],
            "normalised": reached["normalised"],
            "distinct_items": reached["distinct_items"],
            "new_item_share": reached.get("new_item_share"),
            "seeds": [{"seed": None, **_plain(reached)}],
        }
    baseline: list[float] | None = None
    for name in dict.fromkeys(cell.variant for cell in cells):
        of_name = [cell for cell in cells if cell.variant == name]
        seeds: list[dict[str, Any]] = [
            {"seed": cell.seed, "failed": failed[cell.name]}
            if cell.name in failed
            else {"seed": cell.seed, **_plain(figures[cell.name])}
            for cell in of_name
        ]
        row: dict[str, Any] = {"algorithm": of_name[0].agent.name, "seeds": seeds}
        if any("failed" in seed for seed in seeds):
            # A mean over the seeds that survived would flatter the variant.
            row["failed"] = sum("failed" in seed for seed in seeds)
            rows[name] = row
            baseline = baseline or []
            continue
        returns = [seed["return_mean"] for seed in seeds]
        baseline = returns if baseline is None else baseline
        row |= {
            "return_mean": float(np.mean(returns)),
            "return_ci95": list(interval95(returns)),
            "normalised": float(np.mean([seed["normalised"] for seed in seeds])),
            "distinct_items": float(np.mean([seed["distinct_items"] for seed in seeds])),
            "new_item_share": _mean_of_known([seed.get("new_item_share") for seed in seeds]),
            "returns": returns,
        }
        if baseline:
            difference = [value - other for value, other in zip(returns, baseline, strict=True)]
            row["difference_to_first"] = float(np.mean(difference))
            row["difference_ci95"] = list(interval95(difference))
        rows[name] = row
    return rows


def _plain(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in figures.items() if name not in _NOT_COLUMNS}


def _mean_of_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return float(np.mean(known)) if known else None


def _write_results(tables: Sequence[Mapping[str, Any]], path: Path) -> None:
    """One line per policy, seed and table; the seed of a reference policy is empty."""
    lines = []
    for table in tables:
        for name, row in table["rows"].items():
            for figures in row["seeds"]:
                place = {"world": table["world_name"], "serve": table["serve_name"], "variant": name}
                values = {"return" if k == "return_mean" else k: v for k, v in figures.items()}
                lines.append({**place, "algorithm": row["algorithm"], **values})
    first = ("world", "serve", "variant", "algorithm", "seed", "return", "normalised", "distinct_items")
    columns = dict.fromkeys([*first, *(name for line in lines for name in line)])
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(json_value(lines))
    draft = path.with_name(f".{path.name}")
    draft.write_text(text.getvalue())
    draft.replace(path)
