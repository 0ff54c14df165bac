"""Trackers: what is refused, and (extras) what arrives."""

import json
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
from ray.tune import Callback

import tuning.trackers as trackers
from envs.errors import UserError
from rl_rec.cli.main import main


def test_none_by_default():
    assert trackers.make_trackers([], "x") == []


def test_an_unknown_tracker_is_refused():
    with pytest.raises(UserError, match="unknown tracker 'wandbe'; use wandb or mlflow"):
        trackers.make_trackers(["wandbe"], "x")


@pytest.mark.parametrize("found", [None, ModuleSpec("wandb", None)])  # the latter: a folder of that name
@pytest.mark.parametrize("name", trackers.TRACKERS)
def test_one_that_is_not_installed_says_how_to_get_it(name, found, monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda _: found)
    with pytest.raises(UserError, match=rf"pip install 'rl-rec\[{name}\]'"):
        trackers.make_trackers([name], "x")


def test_a_tracker_that_fails_costs_its_own_records_alone(caplog):
    class Broken(Callback):
        def on_trial_result(self, *args: Any, **info: Any) -> None:
            raise KeyError("gone")

    guarded = trackers.Guarded("wandb", Broken())
    for _ in range(3):
        guarded.on_trial_result(iteration=1, trials=[], trial=None, result={})
    assert [record.message for record in caplog.records] == [
        "wandb lost results, training goes on: KeyError: 'gone'"
    ]


@pytest.mark.extras
def test_wandb_without_a_key_and_mlflow_without_a_place_stop_before_anything_is_written(
    simulator, tmp_path, monkeypatch, capsys
):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "MLFLOW_ALLOW_FILE_STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # nobody's .netrc
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    command = ["train", "hac", "--simulator", str(simulator), "--out", str(tmp_path / "run"), "--track"]
    assert main([*command, "wandb"]) == 2
    assert "W&B knows no key" in capsys.readouterr().err
    assert main([*command, "mlflow"]) == 2
    assert "MLflow cannot track to file://" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.extras
@pytest.mark.ray
def test_results_arrive(ray_session, simulator, small_run, tmp_path, monkeypatch):
    import mlflow

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    sweep = {"name": "x", "question": "?", "grid": {"agent.gamma": [0.1, 0.2]}, "seeds": 1, "steps": 200}
    path = tmp_path / "x.yaml"
    path.write_text(json.dumps({**sweep, "episodes": 16, "set": small_run}))
    out = tmp_path / "out"
    command = ["sweep", str(path), "--simulator", str(simulator), "--out", str(out)]
    assert main([*command, "--track", "wandb", "--track", "mlflow"]) == 0
    client = mlflow.MlflowClient((tmp_path / "store").as_uri())
    (experiment,) = client.search_experiments(filter_string="name = 'out'")
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.run_name for run in runs} == {"gamma0.1-world0-seed0", "gamma0.2-world0-seed0"}
    for run in runs:
        history = client.get_metric_history(run.info.run_id, "evaluation/return_mean")
        last = json.loads((out / run.info.run_name / "result.json").read_text().splitlines()[-1])
        assert [point.value for point in history] == [last["evaluation"]["return_mean"]]
    recorded = {folder.parent.parent.name for folder in Path(tmp_path).rglob("offline-run-*")}
    assert recorded == {"gamma0.1-world0-seed0", "gamma0.2-world0-seed0"}
