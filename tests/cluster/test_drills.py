"""Faults on a throw-away cluster: the drills that `rl-rec drill` runs, and the verb."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from cluster.drill_cli import drill
from cluster.drills import catalogue
from cluster.drills.catalogue import DRILLS, Drill, Outcome, run_drill
from cluster.drills.sandbox import DrillFailedError, check

ALWAYS = ("terminated",)
"""Those that `make test` runs; `make test-drills` runs all."""


def run(name: str) -> None:
    entry = run_drill(name)
    assert entry["passed"], entry["happened"]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("name", ALWAYS)
def test_a_fault_costs_no_more_than_it_must(name):
    run(name)


@pytest.mark.ray
@pytest.mark.drills
@pytest.mark.parametrize("name", [name for name in DRILLS if name not in ALWAYS])
def test_every_other_drill(name):
    run(name)


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    """A drill that passes and one that fails, without a cluster."""

    def fails(box: object) -> Outcome:
        check(False, "a process was left behind")
        raise AssertionError("unreachable")

    fine = Drill("a fault", lambda box: Outcome("went on", 1.25, 300))
    monkeypatch.setattr(catalogue, "DRILLS", {"fine": fine, "broken": Drill("another", fails)})


def test_the_table_shows_seconds_and_user_steps_lost(two):
    done = CliRunner().invoke(drill, ["fine"])
    assert done.exit_code == 0
    assert done.stdout.splitlines()[-1].split() == ["fine", "went", "on", "1.2", "300", "passed"]


def test_one_failed_drill_is_a_failure_and_the_others_are_reported(two, tmp_path: Path):
    out = tmp_path / "drills.json"
    done = CliRunner().invoke(drill, ["--json", "--out", str(out)])
    assert done.exit_code == 1
    found = json.loads(out.read_text())
    assert found == json.loads(done.stdout)
    assert (found["fine"]["passed"], found["fine"]["lost_user_steps"]) == (True, 300)
    assert (found["broken"]["passed"], found["broken"]["happened"]) == (False, "a process was left behind")


def test_an_unknown_drill_is_refused_before_any_runs(two):
    done = CliRunner().invoke(drill, ["fine", "brokn"])
    assert "'brokn' is no drill: fine, broken" in str(done.exception)


def test_nothing_of_a_drill_that_fails_stays(monkeypatch: pytest.MonkeyPatch):
    boxes = []

    def hangs(box: object) -> Outcome:
        boxes.append(box)
        box.start("--version")  # type: ignore[attr-defined]
        raise DrillFailedError("it hangs")

    monkeypatch.setattr(catalogue, "DRILLS", {"hangs": Drill("a fault", hangs)})
    assert run_drill("hangs")["happened"] == "it hangs"
    assert not boxes[0].folder.exists() and not boxes[0].processes("")
