"""Training and studies whose folders are URLs: one node that could be many, which share nothing but the URL."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rl_rec.cli.main import main
from rl_rec.run_folder import RunFolder

pytestmark = pytest.mark.ray


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Each call makes this a machine that has seen nothing."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("RL_REC_CACHE", str(cache))
    monkeypatch.setattr("envs.storage.lease.SETTLE_S", 0.0)

    def fresh() -> None:
        shutil.rmtree(cache, ignore_errors=True)

    return fresh


def urls(arguments: list[str]) -> list[str]:
    """The same command with every folder behind a URL."""
    return [f"file://{text}" if text.startswith("/") else text for text in arguments]


def test_a_run_goes_on_elsewhere_from_what_lies_behind_its_url(
    ray_session, machine, command, tmp_path, capsys, caplog, monkeypatch
):
    bucket = tmp_path / "bucket"
    run = bucket / "run"
    seen: list[Any] = []

    def stop(
        self: Any, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        seen.append(result["training_iteration"])
        if len(seen) == 1:  # the next checkpoint cannot be stored: a file is in its place
            (run / "trial" / "checkpoint_000001").write_text("in the way")
        if len(seen) == 4:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr("tuning.training._ReportProgress.on_trial_result", stop)
        assert main(urls(command(run, 1000))) != 0
    captured = capsys.readouterr()
    assert f"go on with: rl-rec train --resume file://{run}" in captured.err
    assert "goes on at 300 user-steps without having stored its latest checkpoint" in caplog.text
    assert not (bucket / "run" / ".lock").exists()
    left = RunFolder(run)
    saved = next(left.whole_checkpoints()).name
    assert not left.finished

    machine()
    assert main(["train", "--resume", f"file://{run}", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["run"], result["user_steps"]) == (f"file://{run}", 1000)
    assert result["learning_curve"].startswith(f"file://{run}/")
    done = RunFolder(run)
    assert done.finished and (run / "learning_curve.png").exists()
    assert done.results()[-1]["iterations_since_restore"] < 10  # it did go on
    assert next(done.whole_checkpoints()).name > saved
    assert {type(done.simulator).__name__, str(done.simulator)[:7]} == {"Url", "file://"}

    machine()
    assert main(["train", "--resume", f"file://{run}", "--json"]) == 0
    assert "is finished already" in capsys.readouterr().err
    assert main(["evaluate", "--run", f"file://{run}", "--episodes", "8", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run"] == f"file://{run}"
    assert main(urls(command(run, 1000))) == 2
    assert f"file://{run} exists already" in capsys.readouterr().err
    assert not list((tmp_path / "cache" / "work").iterdir())


def test_a_study_goes_on_elsewhere_and_finds_what_a_local_one_finds(
    ray_session, machine, simulator, small_run, tmp_path, capsys, monkeypatch
):
    run = [text for setting in small_run for text in ("--set", setting)]
    asked = ["study", "hac", "--seeds", "2", "--steps", "300", "--episodes", "8", "--parallel", "1", *run]
    place = ["--simulator", str(simulator), "--out"]
    bucket = tmp_path / "bucket" / "study"
    begun: list[str] = []

    def stop(
        self: Any, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        begun.append(str(trial))
        if len(begun) == 5:  # in the second trial
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr("tuning.trials.TotalProgress.on_trial_result", stop)
        assert main(urls([*asked, *place, str(bucket)])) != 0
    assert f"go on with: rl-rec study --resume file://{bucket}" in capsys.readouterr().err
    assert len(set(begun)) == 2 and not (bucket / "study.json").exists()

    machine()
    assert main(["study", "--resume", f"file://{bucket}", "--parallel", "1", "--json"]) == 0
    captured = capsys.readouterr()
    assert not json.loads(captured.out)["failed"]
    trials = sorted(path for path in bucket.glob("hac-*"))
    assert [len(list(RunFolder(trial).whole_checkpoints())) for trial in trials] == [1, 1]
    assert [[r["training_iteration"] for r in RunFolder(trial).results()] for trial in trials] == [
        [1, 2, 3]
    ] * 2
    assert list(bucket.glob("learning_curves_*.png")) and not list(bucket.rglob("start"))

    assert main([*asked, *place, str(tmp_path / "study"), "--json"]) == 0
    local = json.loads(capsys.readouterr().out)
    assert json.loads(captured.out)["tables"] == local["tables"]

    machine()
    assert main(["report", f"file://{bucket}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["page"] == f"file://{bucket}/report/index.html"
    assert (bucket / "report" / "index.html").exists()
