"""`rl-rec sweep` and `rl-rec report`: options, dry runs, and a sweep that is killed half-way."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rl_rec.cli.main import main
from rl_rec.provenance import describe_run, write_run
from rl_rec.run_folder import read_results
from tuning.study_plan import read_plan
from tuning.sweep_files import find_sweep
from tuning.sweeps import SWEEPS
from tuning.training import only_one, untouched
from tuning.trial import user_steps

STEPS = 600
MINE = """
name: mine
question: Does a larger discount help?
grid:
  agent.gamma: [0.0, 0.5, 0.8, 0.9]
seeds: 2
episodes: 24
"""


@pytest.fixture
def mine(tmp_path: Path, small_run: list[str]) -> Path:
    """A sweep of eight short trials, in a file."""
    path = tmp_path / "mine.yaml"
    path.write_text(f"{MINE}steps: {STEPS}\nset: {json.dumps([*small_run, 'evaluation.every=0'])}\n")
    return path


def test_sweeps_are_listed(capsys):
    assert main(["sweep", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {name: sweep.question for name, sweep in SWEEPS.items()}


def test_a_dry_run_shows_every_trial_and_writes_nothing(mine, simulator, tmp_path, capsys):
    command = ["sweep", str(mine), "--simulator", str(simulator), "--dry-run", "--set", "rollout.runners=2"]
    assert main([*command, "--json"]) == 0
    cost = json.loads(capsys.readouterr().out)
    assert len(cost["trials"]) == 8 and cost["user_steps"] == 8 * STEPS
    assert cost["trials"][0] == {
        "trial": "gamma0-world0-seed0",
        "algorithm": "hac",
        "user_steps": STEPS,
        "cpus": 3,
        "gpus": 0,
    }
    assert main(command) == 0
    assert "8 trials, 4,800 user-steps at most, 2 at once" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--out", "x"], "missing --simulator"),
        (["--simulator", "SIM"], "missing --out"),
        (["--simulator", "nowhere", "--out", "x"], "nowhere"),
        (["--simulator", "SIM", "--out", "x", "--set", "agent.gama=1"], "did you mean 'agent.gamma'"),
        (["--simulator", "SIM", "--out", "x", "--set", "agent.gamma=0.3"], "is what the sweep mine varies"),
    ],
)
def test_bad_options_are_one_line(mine, simulator, tmp_path, monkeypatch, capsys, arguments, problem):
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", str(mine), *(str(simulator) if a == "SIM" else a for a in arguments)]) == 2
    err = capsys.readouterr().err
    assert problem in err and "Traceback" not in err and not (tmp_path / "x").exists()


def test_a_folder_that_exists_is_left_alone(mine, simulator, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "letter.txt").write_text("dear")
    command = ["sweep", str(mine), "--simulator", str(simulator), "--out", str(out)]
    assert main(command) == 2
    assert "give --if-exists resume or restart" in capsys.readouterr().err
    for choice in ("resume", "restart"):
        assert main([*command, "--if-exists", choice]) == 2
        assert "a study" in capsys.readouterr().err
    assert (out / "letter.txt").read_text() == "dear"


def test_what_somebody_trains_is_not_restarted(mine, simulator, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    plan = find_sweep(str(mine)).plan(simulator)
    write_run(out, describe_run(plan.describe(), 0, None))
    command = ["sweep", str(mine), "--simulator", str(simulator), "--out", str(out), "--if-exists", "restart"]
    with only_one(out):
        assert main(command) == 2
    assert "another process is training" in capsys.readouterr().err and (out / "run.json").exists()


def test_what_was_killed_before_it_began_is_no_obstacle(tmp_path):
    (tmp_path / "out").mkdir()
    assert untouched(tmp_path / "out")
    (tmp_path / "out" / ".lock").touch()
    assert untouched(tmp_path / "out") and untouched(tmp_path / "nothing")
    (tmp_path / "out" / "letter.txt").touch()
    assert not untouched(tmp_path / "out")


@pytest.mark.ray
@pytest.mark.slow
def test_killed_half_way_it_resumes_to_the_same_results(ray_session, mine, simulator, tmp_path, capsys):
    command = ["sweep", str(mine), "--simulator", str(simulator), "--parallel", "1", "--json", "--out"]
    straight, out = tmp_path / "straight", tmp_path / "out"
    assert main([*command, str(straight)]) == 0
    said = capsys.readouterr().out
    assert json.loads(said)["report"]["question"] == "Does a larger discount help?"

    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    started = [sys.executable, "-m", "rl_rec.cli.main", *command, str(out)]
    process = subprocess.Popen(started, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 240
    names = [cell.name for cell in read_plan(straight)[0].cells()]
    middle = out / names[4]
    while not (read_results(middle) and user_steps(middle)):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=30) == -signal.SIGKILL
    worker = read_results(middle)[-1]["pid"]
    while Path(f"/proc/{worker}").exists():
        assert time.monotonic() < end
        time.sleep(0.1)
    kept = {name: (out / name / "result.json").stat().st_mtime_ns for name in names[:4]}

    assert main([*command, str(out)]) == 2  # not unasked
    capsys.readouterr()
    assert main([*command, str(out), "--if-exists", "resume"]) == 0
    assert {name: (out / name / "result.json").stat().st_mtime_ns for name in names[:4]} == kept
    for name in ("results.csv", "results.parquet"):
        assert (out / name).read_bytes() == (straight / name).read_bytes()
    for name in ("sweep.csv", "returns.csv"):
        assert (out / "report" / name).read_bytes() == (straight / "report" / name).read_bytes()

    # Other settings are another sweep, and what cannot run replaces nothing.
    capsys.readouterr()
    assert main([*command, str(out), "--if-exists", "resume", "--seeds", "1"]) == 2
    assert "holds another sweep" in capsys.readouterr().err
    bad = ["--if-exists", "restart", "--set", "world.candidates=2"]
    assert main([*command, str(out), *bad]) == 2
    assert "slates of 4 need at least" in capsys.readouterr().err and (out / "study.json").exists()
