"""`rl-rec simulator fit` on a small synthetic dataset: what it writes, prints and refuses."""

import json
import shutil
from pathlib import Path

import pytest

from envs import world_folder
from rl_rec.cli.main import main

QUICK = ["--set", "epochs=2", "--set", "model.dim=8", "--set", "model.hidden=8", "--set", "history_length=6"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "data"
    small = ["--set", "synthetic.users=40", "--set", "synthetic.items=30", "--set", "slate_size=4"]
    assert main(["data", "prepare", "synthetic", "--out", str(out), *small]) == 0
    return out


@pytest.fixture
def data(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "data"))


def fit(data: Path, out: Path, *more: str) -> int:
    return main(["simulator", "fit", "--data", str(data), "--out", str(out), *QUICK, *more])


def test_the_json_describes_the_simulator_on_disk(data, tmp_path, capsys):
    assert fit(data, tmp_path / "sim", "--seed", "3", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    fitted = world_folder.load(tmp_path / "sim")
    run = json.loads((tmp_path / "sim" / "run.json").read_text())

    assert result["fingerprint"] == fitted.dataset.fingerprint == run["data_fingerprint"]
    assert (fitted.settings.seed, fitted.settings.model.dim, run["seed"]) == (3, 8, 3)
    assert run["config"] == fitted.settings.model_dump()
    assert set(result["quality"]) == {"model", "base_rate", "popularity", "gradient_boosting"}
    assert set(result["quality"]["model"]) == {"auc", "log_loss", "ece"}
    assert Path(result["reliability_plot"]).read_bytes().startswith(b"\x89PNG")
    assert result["epochs"] == 2 and result["best_epoch"] in (1, 2)


def test_a_person_reads_a_table(data, tmp_path, capsys):
    assert fit(data, tmp_path / "sim") == 0
    out = capsys.readouterr().out
    for word in ("AUC", "log-loss", "ECE", "model", "base rate", "popularity", "gradient boosting", "seconds"):
        assert word in out
    assert "reliability.png" in out


def test_a_fit_that_learned_nothing_says_so_loudly(data, tmp_path, capsys):
    nothing = ["--set", "lr=1e-9"]
    assert fit(data, tmp_path / "sim", *nothing) == 0
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: "))
    assert "the model " in line and "held-out log-loss" in line and "--set model.dim" in line
    assert fit(data, tmp_path / "again", *nothing, "--json") == 0
    assert json.loads(capsys.readouterr().out)["warnings"] == [line.removeprefix("warning: ")]


def test_every_behaviour_has_its_rows(tmp_path, capsys):
    small = ["--set", "advertising.users=60", "--set", "advertising.ads=30"]
    assert main(["data", "prepare", "advertising", "--out", str(tmp_path / "ads"), *small]) == 0
    capsys.readouterr()
    assert fit(tmp_path / "ads", tmp_path / "sim") == 0
    rows = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    for behaviour in ("click", "conversion"):
        assert [behaviour, "model"] in rows and [behaviour, "base"] in rows


def test_the_seed_decides_the_simulator(data, tmp_path, capsys):
    qualities = []
    for index, seed in enumerate(("3", "3", "4")):
        assert fit(data, tmp_path / str(index), "--seed", seed, "--json") == 0
        qualities.append(json.loads(capsys.readouterr().out)["quality"]["model"])
    assert qualities[0] == qualities[1] != qualities[2]


def test_an_existing_output_is_refused_before_the_work(data, tmp_path, capsys, monkeypatch):
    (tmp_path / "sim").mkdir()
    (tmp_path / "sim" / "precious.txt").write_text("mine")
    monkeypatch.setattr("envs.data.dataset.load", lambda *_: pytest.fail("the work started"))
    assert fit(data, tmp_path / "sim") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "sim" / "precious.txt").read_text() == "mine"


def test_overwrite_replaces_the_output(data, tmp_path):
    assert fit(data, tmp_path / "sim", "--seed", "1") == 0
    assert fit(data, tmp_path / "sim", "--seed", "2", "--overwrite") == 0
    assert world_folder.load(tmp_path / "sim").settings.seed == 2


@pytest.mark.parametrize("out", [".", "data"])
def test_the_dataset_is_never_overwritten(data, tmp_path, capsys, out):
    assert fit(data, tmp_path / out, "--overwrite") == 2
    assert "holds the dataset" in capsys.readouterr().err
    assert (data / "dataset.json").exists()


def without(name: str):
    return lambda data: (data / name).unlink()


def damaged(name: str):
    return lambda data: (data / name).write_bytes((data / name).read_bytes()[:100])


@pytest.mark.parametrize(
    ("damage", "more", "expected"),
    [
        (shutil.rmtree, [], "data is not a dataset (make one with: rl-rec data prepare)"),
        (without("dataset.json"), [], "data is not a dataset"),
        (without("items.parquet"), [], "items.parquet is missing"),
        (damaged("sessions.parquet"), [], "sessions.parquet is not a whole Parquet file"),
        (None, ["--set", "epoch=3"], "did you mean 'epochs'"),
        (None, ["--set", "model.dmi=3"], "did you mean 'model.dim'"),
        (None, ["--set", "model.heads=3"], "heads is 3, expected a divisor of dim (8)"),
        (None, ["--set", "lr=0"], "lr: "),
        (None, ["--set", "lr=1e30"], "diverged in epoch 1: lower lr"),
        (None, ["--seed", "-1"], "--seed"),
        (None, ["--seed", "1", "--set", "seed=2"], "give the seed once"),
        (None, ["--device", "tpu"], "unknown device 'tpu'"),
        (None, ["--device", "cuda:99"], "device 'cuda:99' is not available"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(data, tmp_path, capsys, damage, more, expected):
    if damage:
        damage(data)
    assert fit(data, tmp_path / "sim", *more) == 2
    captured = capsys.readouterr()
    assert expected in captured.err and captured.err.count("\n") == 1
    assert captured.out == ""
    assert [path.name for path in tmp_path.iterdir() if path.name != "data"] == []


@pytest.mark.parametrize(
    "arguments", [["simulator", "-h"], ["simulator", "fit", "-h"], ["simulator", "report", "-h"]]
)
def test_every_help_ends_with_an_example(arguments, capsys):
    assert main(arguments) == 0
    last_paragraph = capsys.readouterr().out.strip().split("\n\n")[-1]
    assert last_paragraph.strip().startswith("Example: rl-rec simulator ")


def test_an_ensemble_lies_beside_the_model(data, tmp_path, capsys):
    assert fit(data, tmp_path / "one", "--json") == 0
    assert "ensemble" not in json.loads(capsys.readouterr().out)
    assert fit(data, tmp_path / "sim", "--set", "ensemble=2", "--json") == 0
    printed = json.loads(capsys.readouterr().out)["ensemble"]
    alone, whole = world_folder.load(tmp_path / "one"), world_folder.load(tmp_path / "sim")
    assert alone.ensemble is None and not (tmp_path / "one" / "ensemble.pt").exists()
    assert whole.ensemble is not None and len(whole.ensemble.models) == 2
    assert (tmp_path / "one" / "response.pt").read_bytes() == (tmp_path / "sim" / "response.pt").read_bytes()
    described = json.loads((tmp_path / "sim" / "simulator.json").read_text())["ensemble"]
    assert described["models"] == 2 and 0 < described["threshold"] < 0.5
    assert printed == {name: described[name] for name in ("models", "threshold")}


def test_the_report_of_a_simulator(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("rl_rec.comparison.search_ranking", lambda _world, _rules, scores, _seed, **_: scores)
    assert fit(data, tmp_path / "sim") == 0
    capsys.readouterr()
    arguments = ["simulator", "report", "--simulator", str(tmp_path / "sim"), "--episodes", "8"]
    arguments += ["--set", "world.history_length=6", "--set", "max_steps=3"]
    assert main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["page"] == str(tmp_path / "sim" / "report" / "index.html") and Path(result["page"]).exists()
    assert result["world"]["max_steps"] == 3 and result["support"] is None
    assert world_folder.load(tmp_path / "sim").ensemble is None, "the report does not hurt the simulator"
    assert main([*arguments, "--out", str(tmp_path / "elsewhere")]) == 0
    assert "- Untested: " in capsys.readouterr().out
    for out, expected in (("sim/report", "--overwrite"), ("sim", "--overwrite")):
        assert main([*arguments, "--out", str(tmp_path / out)]) == 2
        assert expected in capsys.readouterr().err
    assert main([*arguments, "--out", str(tmp_path / "sim"), "--overwrite"]) == 2
    assert "holds the simulator" in capsys.readouterr().err
