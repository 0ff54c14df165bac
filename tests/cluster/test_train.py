"""`rl-rec train`: what a run leaves behind, and every way in which it can end."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rl_rec.cli.main import main
from rl_rec.run_folder import RunFolder

pytestmark = pytest.mark.ray

STEPS = 4000  # enough to be interrupted in


def start(arguments: list[str], folder: Path) -> subprocess.Popen[str]:
    """`rl-rec` as a process with its own Ray, in its own process group, as a terminal would start it."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
        return subprocess.Popen(
            [sys.executable, "-m", "rl_rec.cli.main", *arguments],
            stdout=out,
            stderr=err,
            text=True,
            start_new_session=True,
            env=environment,
        )


def wait_for(what: Callable[[], Any], process: subprocess.Popen[str], seconds: float = 150) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert process.poll() is None, "the process ended too soon"
        assert time.monotonic() < end, "timeout"
        time.sleep(0.02)


def sealed(run: Path) -> set[str]:
    return {path.parent.name for path in run.glob("trial/checkpoint_*/manifest.json")}


def ray_workers(pid: int) -> set[int]:
    """The trials below ``pid``. (Ray's own agents notice the death of a driver more slowly.)"""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
    found, layer = set(), {pid}
    while layer:
        layer = {child for child, parent in parents.items() if parent in layer} - found
        found |= layer
    return {child for child in found if is_worker(child)}


def is_worker(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::HAC")
    except OSError:
        return False


def final_state(run: Path) -> Any:
    """Weights, targets, optimizers, replay, generators and counters of the newest checkpoint."""
    checkpoint = next(RunFolder(run).whole_checkpoints())
    learner = checkpoint / "learner_group/learner"
    module = pickle.loads((learner / "rl_module/default_policy/module_state.pkl").read_bytes())
    rest = pickle.loads((learner / "state.pkl").read_bytes())
    own = pickle.loads((checkpoint / "algorithm_state.pkl").read_bytes())["off_policy"]
    return {"module": module, "optimizer": rest["optimizer"], "noise": rest["noise"], **own}


def assert_equal(one: Any, other: Any, where: str = "") -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for name in one:
            if name not in ("metrics_logger", "metrics", "weights_seq_no"):  # times, and a count of copies
                assert_equal(one[name], other[name], f"{where}.{name}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_equal(a, b, f"{where}[{index}]")
    elif isinstance(one, (np.ndarray, torch.Tensor)):
        assert np.array_equal(np.asarray(one), np.asarray(other)), where
    else:
        assert one == other, where


@pytest.fixture(scope="module")
def straight(command, tmp_path_factory) -> Path:
    """An uninterrupted run, started as a process with --json; its output lies beside it."""
    folder = tmp_path_factory.mktemp("straight")
    process = start([*command(folder / "run", STEPS), "--json"], folder)
    assert process.wait(timeout=240) == 0, (folder / "err").read_text()
    return folder / "run"


def test_the_json_is_all_there_is_on_stdout(straight):
    result = json.loads((straight.parent / "out").read_text())
    assert (result["run"], result["algorithm"], result["seed"]) == (str(straight), "hac", 3)
    assert (result["user_steps"], result["updates"]) == (STEPS, int((STEPS - 50) * 2 / 16))
    assert Path(result["learning_curve"]).read_bytes().startswith(b"\x89PNG")
    assert np.isfinite(result["validation_return"])


def test_a_person_sees_progress_and_nothing_of_tune(straight):
    for line in (straight.parent / "err").read_text().splitlines():
        assert line.startswith(("training; interrupt with Ctrl-C", "user-steps: ")), line


def test_the_run_describes_itself(straight, simulator):
    run = json.loads((straight / "run.json").read_text())
    config = run["config"]
    assert (config["algorithm"], config["simulator"], run["seed"]) == ("hac", str(simulator), 3)
    assert config["settings"]["agent"]["encoder"]["dim"] == 8  # set
    assert config["settings"]["agent"]["tau"] == 0.01  # resolved from the defaults
    assert run["data_fingerprint"] == json.loads((simulator / "simulator.json").read_text())["fingerprint"]
    assert {"python", "torch", "ray"} <= set(run["versions"]) and "git" in run


def test_the_run_holds_results_events_and_checkpoints(straight):
    run = RunFolder(straight)
    results = run.results()
    assert [r["num_env_steps_sampled_lifetime"] for r in results] == list(range(100, STEPS + 1, 100))
    assert sum("evaluation" in r for r in results) == STEPS // 200
    assert list((straight / "trial").glob("events.out.tfevents.*"))
    assert len(run.checkpoints()) == len(list(run.whole_checkpoints())) == 2
    assert run.finished


def test_killed_and_interrupted_it_ends_as_if_it_had_never_stopped(
    ray_session, command, straight, tmp_path, capsys
):
    run = tmp_path / "run"
    process = start(command(run, STEPS), tmp_path)
    wait_for(lambda: len(sealed(run)) > 1 and max(sealed(run)) >= "checkpoint_000002", process)
    workers = ray_workers(process.pid)
    process.kill()
    assert process.wait(timeout=30) == -signal.SIGKILL
    assert workers and not RunFolder(run).finished
    end = time.monotonic() + 20
    while any(map(is_worker, workers)) and time.monotonic() < end:
        time.sleep(0.2)
    assert not any(map(is_worker, workers))
    saved = max(path.name for path in RunFolder(run).whole_checkpoints())

    process = start(["train", "--resume", str(run)], tmp_path)
    wait_for(lambda: max(sealed(run)) > f"checkpoint_{int(saved[-6:]) + 2:06d}", process)
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
    assert process.wait(timeout=60) == 130
    err = (tmp_path / "err").read_text()
    assert f"go on with: rl-rec train --resume {run}" in err
    assert err.splitlines()[-1] == "error: interrupted" and "Traceback" not in err

    newest = next(RunFolder(run).whole_checkpoints())
    (newest / "algorithm_state.pkl").write_bytes(b"torn")  # the older one must do
    capsys.readouterr()
    assert main(["train", "--resume", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["user_steps"] == STEPS
    last = RunFolder(run).results()[-1]
    assert 0 < last["iterations_since_restore"] < last["training_iteration"]  # it did go on
    assert_equal(final_state(run), final_state(straight))


def test_resuming_a_finished_run_returns_at_once(straight, capsys, monkeypatch):
    monkeypatch.setattr("cluster.ray_session.ray_session", lambda *_: pytest.fail("Ray was asked for"))
    assert main(["train", "--resume", str(straight), "--json"]) == 0
    captured = capsys.readouterr()
    assert "is finished already" in captured.err
    assert json.loads(captured.out)["user_steps"] == STEPS


@pytest.mark.parametrize("left", ["nothing", "a torn checkpoint"])
def test_a_run_killed_before_its_first_checkpoint_starts_over(ray_session, command, straight, tmp_path, left):
    run = tmp_path / "run"
    run.mkdir()
    described = json.loads((straight / "run.json").read_text())
    described["config"]["settings"]["steps"] = 100
    (run / "run.json").write_text(json.dumps(described))
    if left == "a torn checkpoint":
        shutil.copy(straight / "tuner.pkl", run)
        (run / "trial/checkpoint_000000").mkdir(parents=True)
        (run / "trial/checkpoint_000000/algorithm_state.pkl").write_bytes(b"torn")
    assert main(["train", "--resume", str(run)]) == 0
    assert [result["training_iteration"] for result in RunFolder(run).results()] == [1]
    assert len(list(RunFolder(run).whole_checkpoints())) == len(RunFolder(run).checkpoints()) == 1


def test_tunes_notes_may_be_torn_too(ray_session, straight, tmp_path):
    """As by a full disk: the newest whole checkpoint is enough, and the results so far stay."""
    run = tmp_path / "run"
    shutil.copytree(straight, run)
    (run / "finished.json").unlink()
    described = json.loads((run / "run.json").read_text())
    described["config"]["settings"]["steps"] = STEPS + 200
    (run / "run.json").write_text(json.dumps(described))
    (state,) = run.glob("experiment_state-*.json")
    state.write_bytes(state.read_bytes()[:1000])
    assert main(["train", "--resume", str(run)]) == 0
    results = RunFolder(run).results()
    assert [result["training_iteration"] for result in results] == list(range(1, (STEPS + 200) // 100 + 1))
    assert results[-1]["iterations_since_restore"] == 2


def test_a_loss_that_is_not_finite_stops_the_run_in_one_line(ray_session, command, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(command(run, 1000, "agent.critic_lr=1e30", "replay.learning_starts=150")) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    problem = captured.err.splitlines()[-1]
    assert problem.startswith("error: training failed: loss/td") and "NaN or infinite" in problem
    assert "its last checkpoint is kept" in problem and "Traceback" not in captured.err
    assert not RunFolder(run).finished
    assert main(["evaluate", "--run", str(run), "--episodes", "4", "--json"]) == 0
    assert np.isfinite(json.loads(capsys.readouterr().out)["return_mean"])


def replaced(arguments: list[str], **options: str) -> list[str]:
    for name, value in options.items():
        arguments[arguments.index(f"--{name}") + 1] = value
    return arguments


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda c: ["train", "hca", *c[2:]], "did you mean 'hac'"),
        (lambda c: [*c, "--set", "agent.gama=0.5"], "did you mean 'agent.gamma'"),
        (lambda c: [*c, "--set", "rollout.mode=async"], "rollout.mode=async needs rollout.runners >= 1"),
        (lambda c: [*c, "--set", "world.history_length=50"], "change candidates, history_length or repeats"),
        (lambda c: replaced(c, simulator="nowhere"), "nowhere is not a simulator"),
        (lambda c: replaced(c, out=f"{c[c.index('--out') + 1]}/../file/run"), "cannot write to"),
        (lambda c: [*c, "--device", "cuda:99"], "say cuda, and CUDA_VISIBLE_DEVICES says which, got 'cuda:99'"),
        (lambda c: ["train", "--simulator", *c[3:]], "missing ALGORITHM"),
        (lambda c: [*c, "--resume", "run"], "leave out ALGORITHM, --simulator, --out"),
        (lambda c: ["train", "--resume", c[c.index("--simulator") + 1]], "does not describe a training run"),
        (lambda c: ["train", "--resume", "nowhere"], "nowhere is not a run"),
    ],
)
def test_bad_input_is_one_line_before_ray_starts_and_leaves_nothing(
    command, tmp_path, capsys, monkeypatch, change, expected
):
    monkeypatch.setattr("cluster.ray_session.ray_session", lambda *_: pytest.fail("Ray was asked for"))
    (tmp_path / "file").write_text("mine")
    assert main([*change(command(tmp_path / "run", 100)), "--json"]) == 2
    captured = capsys.readouterr()
    assert expected in captured.err and captured.err.count("\n") == 1
    assert captured.out == "" and [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_existing_out_is_refused_and_left_alone(command, tmp_path, capsys):
    (tmp_path / "precious.txt").write_text("mine")
    assert main(command(tmp_path, 100)) == 2
    assert "exists already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]
