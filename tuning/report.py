"""`report/`: one self-contained HTML page, the same as Markdown, and a CSV and an SVG for every picture."""

import math
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from envs.counted import counted
from envs.files import new_directory, read_json
from rl_rec.pages import templates
from rl_rec.pictures import Picture
from rl_rec.provenance import RUN_FILE
from tuning.findings import Findings, Interval, Row, Table, answer, read_findings
from tuning.report_figures import pictures
from tuning.search_report import search_section
from tuning.search_run import FINALS, is_search

PAGE = "index.html"
MARKDOWN = "report.md"


def write_report(folder: Path, out: Path, overwrite: bool = False) -> dict[str, Any]:
    """Write the report of the finished study, sweep or search in ``folder`` to the folder ``out``.

    Returns:
        The page's path, the question, and the answer for every table.

    Raises:
        UserError: ``folder`` is not a finished study, or ``out`` exists and ``overwrite`` is off.
    """
    searched = search_section(folder) if is_search(folder) else None
    if searched is None:
        findings = read_findings(folder)
    else:
        run = read_json(Path(folder) / RUN_FILE, "a search")
        findings = replace(read_findings(Path(folder) / FINALS), run=run)
    sections = [_section(findings, table, index) for index, table in enumerate(findings.tables)]
    if searched is not None:
        sections[0]["answer"] += searched["found"]
    content = {**_head(findings, searched is not None), "sections": sections, "searched": searched}
    environment = templates("tuning", "templates")
    with new_directory(out, overwrite=overwrite) as draft:
        for name in (PAGE, MARKDOWN):
            (draft / name).write_text(environment.get_template(name).render(content), encoding="utf-8")
        drawn = [(section["prefix"], picture) for section in sections for picture in section["pictures"]]
        drawn += [("", picture) for picture in (searched["pictures"] if searched else ())]
        for prefix, picture in drawn:
            (draft / f"{prefix}{picture.name}.svg").write_text(picture.svg, encoding="utf-8")
            (draft / f"{prefix}{picture.name}.csv").write_text(picture.csv, encoding="utf-8")
    return {
        "page": str(Path(out) / PAGE),
        "question": findings.plan.question,
        "answers": {section["title"]: section["answer"] for section in sections},
    }


def _head(findings: Findings, searched: bool) -> dict[str, Any]:
    plan, run = findings.plan, findings.run
    git = run.get("git") or {}
    machine = run.get("machine") or {}
    commit = str(git.get("commit") or "unknown")[:12] + (" with changes" if git.get("dirty") else "")
    versions = ", ".join(f"{name} {number}" for name, number in (run.get("versions") or {}).items() if number)
    return {
        "name": plan.name,
        "question": plan.question or "How do these variants compare?",
        "command": shlex.join(run.get("command") or []),
        "facts": {
            "budget": ("second stage: " if searched else "")
            + f"{plan.base.steps:,} user-steps a trial, {counted(plan.seeds, 'seed')}, "
            f"{len(plan.cells())} trials; {plan.episodes:,} episodes of {plan.split.name.lower()} users",
            "data": str(run.get("data_fingerprint"))[:16],
            "code": commit,
            "versions": versions,
            "machine": f"{machine.get('cpus', '?')} CPUs ({machine.get('system', 'unknown')}), "
            f"{machine.get('device', '?')}",
            "begun": str(run.get("started_utc", "unknown")),
        },
    }


def _section(findings: Findings, table: Table, index: int) -> dict[str, Any]:
    several = len(findings.tables) > 1
    drawn: list[Picture] = pictures(findings, table)
    rows = [*table.references, *table.variants]
    return {
        "title": f"{table.world}, {table.serve}" if several else "Result",
        "prefix": f"{index}-" if several else "",
        "answer": answer(findings, table),
        "first": table.variants[0].name if table.variants else "",
        "rows": [_cells(row) for row in rows],
        "failed": dict(table.failed),
        "pictures": drawn,
    }


def _cells(row: Row) -> Mapping[str, Any]:
    return {
        "name": row.name,
        "algorithm": row.algorithm or "reference",
        "agent": row.algorithm is not None,
        "mean": f"{row.mean:.2f}",
        "mean95": _range(row.mean95),
        "iqm": _number(row.iqm),
        "iqm95": _range(row.iqm95),
        "normalised": f"{row.normalised:.2f}",
        "difference": "" if row.difference is None else f"{row.difference:+.2f}",
        "difference95": _range(row.difference95, "+.2f"),
        "differs": row.differs,
        "better": "" if row.better is None else f"{row.better:.0%}",
        "better95": _range(row.better95, ".0%"),
        "items": f"{row.distinct_items:,.0f}",
    }


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}"


def _range(interval: Interval, form: str = ".2f") -> str:
    low, high = interval
    return "" if low is None or math.isnan(low) else f"{low:{form}} to {high:{form}}"
