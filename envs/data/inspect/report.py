"""Raw logs looked through: their figures, columns and findings, as plain data and as a page of text."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from envs.data import movielens
from envs.data.behaviours import pack
from envs.data.inspect.bad import CountedRows
from envs.data.inspect.columns import ColumnFacts, column_facts
from envs.data.inspect.files import SourceFile, source_files
from envs.data.inspect.findings import find, top_share
from envs.data.inspect.leaks import find_leaks
from envs.data.inspect.rows import PartRows, RowFigures, figures_of
from envs.data.logs import Logs
from envs.data.prepare_settings import PrepareSettings
from envs.data.raw.interactions import SLATE_SIZE, part_table
from envs.data.raw.job import Job, Raw
from envs.data.raw.parts import WorkFolder
from envs.data.raw.reading import Reading
from envs.data.sources import check_raw, find_source
from envs.errors import UserError
from envs.progress import Progress, silent

_YEAR_1990_MS = 631_152_000_000
_DAY_MS = 86_400_000


@dataclass(frozen=True)
class Inspection:
    """What was found: ``result`` as plain data, ``rows`` for pictures (None if no row could be read)."""

    result: Mapping[str, Any]
    rows: RowFigures | None
    behaviours: tuple[str, ...]


def inspect(
    name: str,
    raw: Raw,
    settings: PrepareSettings | None = None,
    progress: Progress = silent,
    work: WorkFolder | None = None,
    reading: Reading | None = None,
) -> Inspection:
    """Look through the files of the source ``name`` as ``prepare`` would read them.

    Rows that do not fit are counted, whatever ``raw.skip_bad_rows`` says; so is what ``prepare`` would refuse
    after it has read them.

    Args:
        name: of a source that is read from files.
        raw: what to read.
        settings: as of ``prepare``; defaults if None.
        progress: called as the stages finish.
        work: where rows lie meanwhile; a temporary folder by default.
        reading: threads and block size.

    Raises:
        UserError: files that cannot be read at all, or own columns whose meaning is not clear.
    """
    check_raw(name, raw)
    source = find_source(name)
    if name == "synthetic":
        raise UserError("synthetic is drawn, not read: there are no files to inspect")
    if work is None:
        with WorkFolder() as temporary:
            return inspect(name, raw, settings, progress, temporary, reading)
    settings = source.resolve(raw, settings or PrepareSettings())
    reading = reading or Reading()
    progress(0, 4, "sampling columns")
    files = source_files(name, raw, settings, reading)
    bad = CountedRows()
    job = Job(raw, settings, bad, work, reading, progress)
    logs, refusal = _read(name, job)
    progress(2, 4, "counting rows")
    behaviours = tuple(b.name for b in logs.behaviours) if logs else _behaviours(files)
    parts = [_movielens_rows(files[0], logs, settings)] if name.startswith("ml-") and logs else None
    now_ms = int(time.time() * 1000) + _DAY_MS  # a clock may be off, but not by more than a day
    rows = figures_of(parts or PartRows(job.parts, None), len(behaviours), now_ms, _YEAR_1990_MS)
    progress(3, 4, "looking for columns that tell the response")
    names = (*logs.item_feature_names, *logs.user_feature_names) if logs else ()
    columns = [facts for file in files for facts in column_facts(file, names)]
    unshown = len(logs.item_ids) - len(rows.item_ids) if logs else 0
    slate_size = logs.sessions.items.shape[1] if logs else job.settings.slate_size or SLATE_SIZE
    findings = find(
        rows if rows.rows else None,
        behaviours,
        columns,
        find_leaks(files, settings.positive_above),
        bad,
        slate_size,
        max(unshown, 0),
        refusal,
        name == "own",
    )
    progress(4, 4, f"{len(findings)} findings")
    counts = {
        severity: sum(f.severity == severity for f in findings) for severity in ("error", "warning", "note")
    }
    result = {
        "source": name,
        "rows": rows.rows,
        "rows_that_do_not_fit": bad.count,
        "first_bad_rows": bad.first,
        "users": len(rows.user_ids),
        "items": len(rows.item_ids),
        "items_listed_but_never_shown": max(unshown, 0),
        "slate_size": slate_size,
        "slates": len(logs.sessions.user) if logs else None,
        "time": _time(files, rows),
        "behaviours": {
            name: {"happened": int(count), "rate": count / max(rows.rows, 1)}
            for name, count in zip(behaviours, rows.behaviours.tolist(), strict=True)
        },
        "random_share": rows.random / max(rows.rows, 1),
        "rows_of_the_top_tenth_of_items": top_share(rows),
        "sampled": {
            "columns": "all rows"
            if all(file.sample.whole for file in files)
            else "up to 200,000 rows of each file",
            "users_side_by_side": rows.sampled_share,
        },
        "columns": [facts._asdict() for facts in columns],
        "findings": [finding._asdict() for finding in findings],
        "counts": counts,
    }
    return Inspection(result, rows if rows.rows else None, behaviours)


def _read(name: str, job: Job) -> tuple[Logs | None, str | None]:
    """The logs, or why ``prepare`` refuses them although their rows could be read."""
    try:
        return find_source(name).read(job), None
    except UserError as error:
        if not job.parts:
            raise
        return None, str(error)


def _movielens_rows(log: SourceFile, logs: Logs, settings: PrepareSettings) -> pa.Table:
    """The ratings as they stand in the file: the slates have lost their times."""
    _, separator = movielens.columns("ml-100k" if log.path.name == "u.data" else "ml-1m")[log.path.name]
    ratings = movielens.read_ratings(log.path, separator, CountedRows()).table
    liked = ratings["rating"].to_numpy() > settings.positive_above
    user, item = (
        ratings[name].cast(pa.string()).combine_chunks().dictionary_encode() for name in ("user", "item")
    )
    milliseconds = ratings["timestamp"].to_numpy() * 1000
    return part_table(user, item, pack(liked[:, None]), milliseconds)


def _behaviours(files: Sequence[SourceFile]) -> tuple[str, ...]:
    """The names of the behaviours in the order in which own files are packed."""
    roles = files[0].roles
    first = [
        ("like" if role == "rating" else column)
        for column, role in roles.items()
        if role in ("positive", "rating")
    ]
    further = [role.split(":")[1].split("@")[0] for role in roles.values() if role.startswith("behaviour:")]
    return (*first, *further)


def _time(files: Sequence[SourceFile], rows: RowFigures) -> dict[str, Any]:
    column, role = next(
        (column, role) for column, role in files[0].roles.items() if role.partition(":")[0] == "time"
    )
    if not rows.rows:
        return {"column": column}
    first, last = (
        str(np.datetime64(moment // 1000, "s")).replace("T", " ") for moment in (rows.first_ms, rows.last_ms)
    )
    shown = files[0].sample.table[column].combine_chunks()
    return {
        "column": column,
        "unit": role.partition(":")[2] or _unit(shown, rows),
        "first": first,
        "last": last,
        "days": len(rows.days),
    }


def _unit(shown: pa.Array, rows: RowFigures) -> str:
    """The unit that makes of the written times those that were read."""
    text = next((value for value in shown.to_pylist() if value), "")
    try:
        written = abs(float(text))
    except ValueError:
        return "dates"
    middle = (rows.first_ms + rows.last_ms) / 2
    factors = {"s": 1e3, "ms": 1.0, "us": 1e-3, "ns": 1e-6}
    return min(factors, key=lambda unit: abs(np.log(max(written * factors[unit], 1) / max(middle, 1))))


def markdown(result: Mapping[str, Any]) -> str:
    """The page: findings, figures, columns."""
    span = result["time"]
    lines = [
        f"# Logs of {result['source']}",
        "",
        "![rows per day, rows per user and item, rates, histories](inspect.png)",
        "",
    ]
    lines += ["## Findings", ""]
    lines += ["| | what | what to do |", "|---|---|---|"] if result["findings"] else ["Nothing looks wrong."]
    lines += [f"| {f['severity']} | {_cell(f['what'])} | {_cell(f['advice'])} |" for f in result["findings"]]
    if result["first_bad_rows"]:
        lines += ["", "The first rows that do not fit:", ""]
        lines += [f"- `{_cell(row)}`" for row in result["first_bad_rows"]]
    lines += ["", "## Figures", "", "| | |", "|---|---|"]
    lines += [
        f"| {name} | {result[name]:,} |"
        for name in ("rows", "users", "items", "slates")
        if result[name] is not None
    ]
    if "first" in span:
        lines.append(f"| time ({span['column']}, in {span['unit']}) | {span['first']} to {span['last']} |")
    lines += [f"| rate of {name} | {of['rate']:.4f} |" for name, of in result["behaviours"].items()]
    lines += [f"| shown at random | {result['random_share']:.1%} |", "", "## Columns", ""]
    lines.append(f"From {result['sampled']['columns']}.")
    lines += [
        "",
        "| file | column | role | type | becomes | example | missing | different |",
        "|---|---|---|---|---|---|--:|--:|",
    ]
    for column in (ColumnFacts(**entry) for entry in result["columns"]):
        cells = [column.file, column.column, column.role, column.type, column.becomes, column.example]
        figures = [f"{column.missing:.1%}", f"{column.different:,}"]
        lines.append("| " + " | ".join([*map(_cell, cells), *figures]) + " |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
