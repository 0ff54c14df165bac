"""Reports: statistics of a study by hand, what the answer says, and a page that stands by itself."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from envs.errors import UserError
from rl_rec.cli.main import main
from rl_rec.provenance import describe_run, write_run
from tuning.findings import answer, numeric_axis, read_findings
from tuning.report import write_report
from tuning.sweep import Case, Sweep

REFERENCE = {"random": 1.0, "oracle": 6.0}
Make = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path, simulator: Path) -> Make:
    """A finished sweep of made-up returns: ``folder(sweep, {"variant": [return of each seed]})``."""

    def make(sweep: Sweep, returns: dict[str, list[float]], failed: dict[str, int] | None = None) -> Path:
        out = tmp_path / "sweep"
        seeds = len(next(iter(returns.values())))
        plan = sweep.plan(simulator, seeds=seeds, steps=200)
        write_run(out_made(out), describe_run(plan.describe(), 0, "0123456789abcdef0123"))
        rows: dict[str, Any] = {
            name: row(None, [value], [value - 0.5, value + 0.5]) for name, value in REFERENCE.items()
        }
        for name in plan.variants:
            if name in (failed or {}):
                rows[name] = {"algorithm": "hac", "failed": failed[name], "seeds": []}
                continue
            rows[name] = row(plan.variants[name].agent.name, returns[name], None)
        table = {"world_name": "base", "serve_name": "as trained", "rows": rows}
        (out / "study.json").write_text(json.dumps({"tables": [table], "failed": {}}))
        for cell in plan.cells():
            trial = out / cell.name
            trial.mkdir()
            lines = [
                {
                    "training_iteration": step,
                    "time_this_iter_s": 1.5,
                    "num_env_steps_sampled_lifetime": 100 * step,
                    "env_runners": {"episode_return_mean": 0.5 * step + cell.seed},
                }
                for step in (1, 2)
            ]
            (trial / "result.json").write_text("\n".join(map(json.dumps, lines)))
        return out

    return make


def out_made(path: Path) -> Path:
    path.mkdir()
    return path


def row(algorithm: str | None, returns: list[float], interval: list[float] | None) -> dict[str, Any]:
    low, high = REFERENCE["random"], REFERENCE["oracle"]
    normalised = [(value - low) / (high - low) for value in returns]
    return {
        "algorithm": algorithm,
        "return_mean": sum(returns) / len(returns),
        "return_ci95": interval or [0.0, 0.0],
        "normalised": sum(normalised) / len(normalised),
        "distinct_items": 12.0,
        "returns": returns,
        "seeds": [{"normalised": value} for value in normalised],
    }


def cases(*names: str) -> Sweep:
    made = {name: Case(set=(f"agent.gamma=0.{index}",)) for index, name in enumerate(names, 1)}
    return Sweep(name="letters", question="Which letter?", cases=made)


AXIS = Sweep(name="gammas", question="Which γ?", grid={"agent.gamma": (0.1, 0.5, 0.9)})


def test_rows_have_the_statistics_of_their_seeds(folder):
    found = read_findings(folder(cases("a", "b"), {"a": [1.0, 2.0, 3.0, 4.0], "b": [2.0, 3.0, 4.0, 9.0]}))
    (table,) = found.tables
    a, b = table.variants
    assert (a.mean, a.iqm, a.difference, a.better) == (2.5, 2.5, None, None)
    assert (b.mean, b.iqm) == (4.5, 3.5)
    assert b.difference == 2.0
    low, high = b.difference95  # differences 1, 1, 1, 5: mean 2, standard error 1, t(3) = 3.182446
    assert (low, high) == (pytest.approx(2 - 3.182446), pytest.approx(2 + 3.182446))
    assert not b.differs
    assert b.better == (1 + 0.5 + 2 + 0.5 + 3 + 0.5 + 4) / 16  # of 2 against 1, 2; 3; 4; 9
    assert [reference.name for reference in table.references] == ["random", "oracle"]
    assert a.seconds == 3.0


def test_answer_names_the_best_and_what_is_beyond_noise(folder):
    found = read_findings(folder(cases("a", "b", "c"), {"a": [3.0, 3.1], "b": [4.0, 4.1], "c": [2.0, 2.11]}))
    said = answer(found, found.tables[0])
    assert said.startswith("b earns the highest mean return, 4.05")
    assert "61% of the way" in said and "+1.00" in said and "beyond the noise of 2 seeds" in said
    assert "c (-1.00)" in said.replace("-0.99", "-1.00")


def test_answer_does_not_claim_what_is_noise(folder):
    found = read_findings(folder(cases("a", "b"), {"a": [3.0, 4.0, 5.0], "b": [5.0, 4.0, 3.3]}))
    assert "within the noise of 3 seeds" in answer(found, found.tables[0])
    assert "excludes zero:" not in answer(found, found.tables[0])


def test_answer_where_the_first_is_best(folder):
    found = read_findings(folder(cases("a", "b"), {"a": [4.0, 4.0], "b": [3.0, 4.1]}))
    assert "no difference to a excludes zero" in answer(found, found.tables[0])


@pytest.mark.parametrize("returns", [{"a": [3.0], "b": [5.0]}, {"a": [5.0], "b": [3.0]}])
def test_answer_of_one_seed_claims_nothing_of_noise(folder, returns):
    found = read_findings(folder(cases("a", "b"), returns))
    said = answer(found, found.tables[0])
    assert said.endswith("One seed says nothing of the noise between seeds.")
    assert "within" not in said and "excludes zero" not in said


@pytest.mark.parametrize(
    ("middle", "said"),
    [
        ([5.0, 5.1, 5.2], "Along gamma a middle value wins: 0.5"),
        ([3.0, 5.0, 3.5], "Along gamma a middle value is best, not clearly: 0.5"),
        ([1.0, 1.0, 1.0], "The best gamma lies at the end of the range tried, 0.9"),
    ],
)
def test_answer_says_whether_a_middle_value_wins(folder, middle, said):
    returns = {"gamma0.1": [2.0, 2.1, 2.2], "gamma0.5": middle, "gamma0.9": [3.0, 3.1, 3.3]}
    found = read_findings(folder(AXIS, returns))
    assert numeric_axis(found.plan) == "agent.gamma"
    assert said in answer(found, found.tables[0])


def test_a_variant_that_failed_is_named_and_not_compared(folder, tmp_path):
    out = folder(cases("a", "b"), {"a": [3.0, 4.0], "b": [9.0, 9.0]}, failed={"b": 1})
    found = read_findings(out)
    assert [row.name for row in found.tables[0].variants] == ["a"] and found.tables[0].failed == {"b": 1}
    write_report(out, tmp_path / "report")
    assert "b (1)" in (tmp_path / "report" / "index.html").read_text()


def test_the_verb_says_what_was_found_and_where_the_page_is(folder, capsys):
    out = folder(cases("a", "b"), {"a": [3.0, 4.0, 5.0], "b": [5.0, 4.0, 3.3]})
    assert main(["report", str(out)]) == 0
    found, page = capsys.readouterr().out.splitlines()
    assert found.startswith("b earns the highest mean return, 4.10")
    assert page == f"report: {out}/report/index.html"


def test_the_page_stands_by_itself(folder, tmp_path):
    returns = {"gamma0.1": [2.0, 2.1], "gamma0.5": [5.0, 5.1], "gamma0.9": [3.0, 3.1]}
    result = write_report(folder(AXIS, returns), tmp_path / "report")
    page = (tmp_path / "report" / "index.html").read_text()
    assert "--accent:" in page  # the look that all reports share
    assert "Which γ?" in page and result["answers"]["Result"].split(",")[0] in page
    assert not re.search(r'(src|href)="(?!#)', page.replace("xlink:href", "x"))  # nothing from elsewhere
    assert page.count("<svg") == 4  # along γ, returns, curves, cost
    files = {path.name for path in (tmp_path / "report").iterdir()}
    drawn = {"sweep", "returns", "learning-curves", "cost"}
    assert files == {"index.html", "report.md"} | {f"{n}.{end}" for n in drawn for end in ("svg", "csv")}
    lines = list(csv.DictReader((tmp_path / "report" / "sweep.csv").open()))
    assert [(line["gamma"], float(line["return"])) for line in lines] == [
        ("0.1", 2.05),
        ("0.5", 5.05),
        ("0.9", 3.05),
    ]
    table = (tmp_path / "report" / "report.md").read_text()
    assert "| gamma0.5 | hac | 5.05 |" in table


def test_names_cannot_write_markup(folder, tmp_path):
    sweep = cases("a", "b").model_copy(update={"question": "<script>alert(1)</script>?"})
    write_report(folder(sweep, {"a": [1.0, 2.0], "b": [3.0, 4.0]}), tmp_path / "report")
    assert "<script>" not in (tmp_path / "report" / "index.html").read_text()


def test_what_is_no_finished_study_is_refused(folder, tmp_path):
    with pytest.raises(UserError, match="a study"):
        read_findings(tmp_path)
    out = folder(cases("a"), {"a": [1.0]})
    (out / "study.json").unlink()
    with pytest.raises(UserError, match="is not finished: go on with rl-rec study --resume"):
        read_findings(out)


def test_a_report_is_not_overwritten_unasked(folder, tmp_path):
    out = folder(cases("a"), {"a": [1.0]})
    write_report(out, tmp_path / "report")
    with pytest.raises(UserError, match="exists already"):
        write_report(out, tmp_path / "report")
    write_report(out, tmp_path / "report", overwrite=True)
