"""Faults on a throw-away cluster: the drills that `rl-rec drill` runs, and the verb."""

import json
import pickle
import socket
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from cluster.drill_cli import drill
from cluster.drills import catalogue, runners, s3
from cluster.drills.catalogue import DRILLS, Drill, run_drill
from cluster.drills.s3 import Gate
from cluster.drills.sandbox import DrillFailedError, LeftOutError, check
from cluster.drills.steps import Outcome, check_results

ALWAYS = ("terminated",)
"""Those that `make test` runs; `make test-drills` runs all."""


def run(name: str) -> None:
    entry = run_drill(name)
    if entry["passed"] is None:
        pytest.skip(entry["happened"])
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
def four(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drills that pass, fail, break and are left out, without a cluster."""

    def fails(box: object) -> Outcome:
        check(False, "a process was left behind")
        raise AssertionError("unreachable")

    def breaks(box: object) -> Outcome:
        raise KeyError("num_healthy_workers")

    def lacks(box: object) -> Outcome:
        raise LeftOutError("it needs an S3 server: pip install 'rl-rec[moto]'")

    fine = Drill("a fault", lambda box: Outcome("went on", 1.25, 300))
    others = {"broken": fails, "torn": breaks, "absent": lacks}
    drills = {"fine": fine, **{name: Drill("another", function) for name, function in others.items()}}
    monkeypatch.setattr(catalogue, "DRILLS", drills)


def test_the_table_shows_seconds_and_user_steps_lost(four):
    done = CliRunner().invoke(drill, ["fine"])
    assert done.exit_code == 0
    assert done.stdout.splitlines()[-1].split() == ["fine", "went", "on", "1.2", "300", "passed"]


def test_one_failed_drill_is_a_failure_and_the_others_are_reported(four, tmp_path: Path):
    out = tmp_path / "drills.json"
    done = CliRunner().invoke(drill, ["--json", "--out", str(out)])
    assert done.exit_code == 1
    found = json.loads(out.read_text())
    assert found == json.loads(done.stdout)
    assert (found["fine"]["passed"], found["fine"]["lost_user_steps"]) == (True, 300)
    assert (found["broken"]["passed"], found["broken"]["happened"]) == (False, "a process was left behind")
    assert (found["torn"]["passed"], found["torn"]["happened"]) == (False, "KeyError: 'num_healthy_workers'")
    assert found["absent"]["passed"] is None


def test_what_is_left_out_is_told_and_no_failure(four):
    done = CliRunner().invoke(drill, ["absent"], terminal_width=200)
    assert done.exit_code == 0
    assert "left out: it needs an S3 server" in " ".join(done.stdout.split())
    assert done.stdout.rstrip().endswith("left out")


def test_a_table_in_markdown_has_the_rows_of_the_readme(four, tmp_path: Path):
    out = tmp_path / "drills.md"
    CliRunner().invoke(drill, ["fine", "broken", "--out", str(out)])
    header, _, *rows = out.read_text().splitlines()
    assert header == "| drill | fault | what happened | seconds | user-steps lost |"
    assert rows == [
        "| fine | a fault | went on | 1.2 | 300 |",
        "| broken | another | **failed**: a process was left behind | – | – |",
    ]


def test_an_unknown_drill_is_refused_before_any_runs(four):
    done = CliRunner().invoke(drill, ["fine", "brokn"])
    assert "unknown drill 'brokn'; did you mean 'broken'? (valid: fine, broken, " in str(done.exception)


def test_nothing_of_a_drill_that_fails_stays(monkeypatch: pytest.MonkeyPatch):
    boxes = []

    def hangs(box: object) -> Outcome:
        boxes.append(box)
        box.start("--version")  # type: ignore[attr-defined]
        raise DrillFailedError("it hangs")

    monkeypatch.setattr(catalogue, "DRILLS", {"hangs": Drill("a fault", hangs)})
    assert run_drill("hangs")["happened"] == "it hangs"
    assert not boxes[0].folder.exists() and not boxes[0].processes("")


def report(iteration: int, steps: int, pid: int = 1) -> dict[str, Any]:
    return {"training_iteration": iteration, "num_env_steps_sampled_lifetime": steps, "pid": pid}


@pytest.mark.parametrize(
    ("reports", "problem"),
    [
        ([(1, 100), (2, 200), (3, 300)], None),
        ([(1, 100), (3, 300)], r"\[2\] are missing"),
        ([(1, 100), (2, 150), (3, 300)], "do not fit"),  # user-steps that were counted and lost
        ([(1, 100), (2, 300), (3, 300)], "do not fit"),  # or counted twice
        ([], "no results"),
    ],
)
def test_results_that_a_fault_harmed_are_noticed(tmp_path: Path, reports, problem):
    lines = [json.dumps(report(*numbers)) + "\n" for numbers in reports]
    (tmp_path / "result.json").write_text("".join(lines))
    if problem is None:
        check_results(tmp_path, 300)
        with pytest.raises(DrillFailedError, match="ended after 300 user-steps, not 400"):
            check_results(tmp_path, 400)
        return
    with pytest.raises(DrillFailedError, match=problem):
        check_results(tmp_path)


@pytest.mark.parametrize(("rows", "lost"), [(200, 0), (150, 50)])
def test_user_steps_that_the_replay_lacks_are_lost(tmp_path: Path, monkeypatch, rows, lost):
    state = {"off_policy": {"replay": {"columns": {"user": list(range(rows))}}}}
    (tmp_path / "algorithm_state.pkl").write_bytes(pickle.dumps(state))
    monkeypatch.setattr(runners, "RunFolder", lambda run: SimpleNamespace(checkpoints=lambda: [tmp_path]))
    box = SimpleNamespace(lines=lambda trial: [report(1, 100), report(2, 200)])
    assert runners._lost(box, tmp_path) == lost  # type: ignore[arg-type]
    box.lines = lambda trial: [report(1, 100), report(2, 200, pid=2)]
    with pytest.raises(DrillFailedError, match="began anew"):
        runners._lost(box, tmp_path)  # type: ignore[arg-type]


@pytest.fixture
def echo() -> socket.socket:
    """A server that says what it is told."""
    echo = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        while True:
            client, _ = echo.accept()
            client.sendall(client.recv(10))

    threading.Thread(target=answer, daemon=True).start()
    return echo


def test_a_gate_that_is_shut_refuses_and_drops_and_opens_again(echo):
    gate = Gate(echo.getsockname()[1])

    def ask() -> socket.socket:
        client = socket.create_connection(("127.0.0.1", gate.port), timeout=5)
        client.sendall(b"hello")
        assert client.recv(10) == b"hello"
        return client

    with ask() as before:
        gate.shut()
        assert before.recv(10) == b""  # dropped
    with pytest.raises(ConnectionRefusedError):
        ask()
    gate.open()
    ask().close()
    gate.shut()


def test_a_gate_that_is_mute_accepts_and_never_answers_until_it_opens_again(echo):
    gate = Gate(echo.getsockname()[1])
    with ExitStack() as clients:

        def ask() -> socket.socket:
            client = clients.enter_context(socket.create_connection(("127.0.0.1", gate.port), timeout=0.3))
            client.sendall(b"hello")
            return client

        before = clients.enter_context(socket.create_connection(("127.0.0.1", gate.port), timeout=0.3))
        gate.mute()
        before.sendall(b"hello")
        waiting = [before, ask()]
        for client in waiting:
            with pytest.raises(TimeoutError):
                client.recv(10)
        gate.open()
        assert [client.recv(10) for client in waiting] == [b"", b""]  # dropped
        assert ask().recv(10) == b"hello"
        gate.shut()


def test_without_moto_its_drill_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "moto.server", None)
    with pytest.raises(LeftOutError, match=r"pip install 'rl-rec\[moto\]'"), s3.storage():
        pass
