"""What a study found: a table per training world and serving condition, every figure as CSV and Parquet."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from envs.progress import Progress
from envs.world_folder import FittedWorld
from rl_rec.comparison import REFERENCES, Comparison
from rl_rec.json_values import json_value
from rl_rec.run_folder import newest_weights
from tuning.statistics import interval95
from tuning.study_plan import Cell, StudyPlan

RESULTS_FILE = "results.csv"
PARQUET_FILE = "results.parquet"
_NOT_COLUMNS = ("seed", "world", "data_fingerprint", "return_ci95", "random_return", "oracle_return")


def make_tables(
    plan: StudyPlan, fitted: FittedWorld, out: Path, failed: Mapping[str, str], progress: Progress
) -> list[dict[str, Any]]:
    """Evaluate every trained agent in every serving condition; ``results.csv`` grows with each table.

    Args:
        plan: the study.
        fitted: its simulator.
        out: its folder.
        failed: by trial, why it could not be trained.
        progress: called after each evaluation.

    Returns:
        One entry per training world and serving condition, plain data.
    """
    cells = plan.cells()
    per_table = len(REFERENCES) + len(cells) // len(plan.worlds)
    total, done = per_table * len(plan.worlds) * len(plan.serves), 0
    known: dict[str, tuple[Comparison, dict[str, Any]]] = {}  # by rules: different worlds may serve alike
    tables: list[dict[str, Any]] = []

    def evaluated(name: str) -> None:
        nonlocal done
        done += 1
        progress(done, total, name)

    for world in plan.worlds:
        for serve in plan.serves:
            rules = plan.rules(world, serve)
            key = rules.model_dump_json()
            if key not in known:
                comparison = Comparison(
                    fitted, plan.split, rules, plan.episodes, seed=0, device=plan.base.device
                )
                known[key] = (comparison, {})
            comparison, references = known[key]
            for reference in REFERENCES:
                if reference not in references:
                    references[reference] = comparison.run_reference(reference)
                evaluated(reference)
            figures: dict[str, dict[str, Any]] = {}
            for cell in (cell for cell in cells if cell.world == world):
                if cell.name not in failed:
                    weights = newest_weights(out / cell.name)
                    policy = cell.agent.load_policy(weights, comparison.world, rules, cell.settings.agent)
                    figures[cell.name] = comparison.run(_serving(policy))
                evaluated(cell.name)
            of_world = [cell for cell in cells if cell.world == world]
            tables.append(
                {
                    "world_name": world,
                    "serve_name": serve,
                    "world": plan.rules(world).model_dump(mode="json"),
                    "served": rules.model_dump(mode="json"),
                    "rows": _rows(references, of_world, figures, failed),
                }
            )
            _write_results(tables, out)
    return tables


def _serving(policy: Any) -> Any:
    return lambda _simulator: policy


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


def _write_results(tables: Sequence[Mapping[str, Any]], out: Path) -> None:
    """One row per policy, seed and table, as CSV and Parquet; the seed of a reference policy is empty."""
    rows = []
    for table in tables:
        for name, row in table["rows"].items():
            for figures in row["seeds"]:
                place = {"world": table["world_name"], "serve": table["serve_name"], "variant": name}
                values = {"return" if k == "return_mean" else k: v for k, v in figures.items()}
                rows.append({**place, "algorithm": row["algorithm"], **values})
    first = ("world", "serve", "variant", "algorithm", "seed", "return", "normalised", "distinct_items")
    columns = list(dict.fromkeys([*first, *(name for row in rows for name in row)]))
    plain = json_value(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(plain)
    _replace(out / RESULTS_FILE, text.getvalue().encode())
    whole = io.BytesIO()
    pq.write_table(pa.table({name: [row.get(name) for row in plain] for name in columns}), whole)
    _replace(out / PARQUET_FILE, whole.getvalue())


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}")
    draft.write_bytes(content)
    draft.replace(path)
