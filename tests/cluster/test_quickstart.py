"""`rl-rec quickstart`: a table, a picture, and a folder that is either whole or as it was."""

import json
from functools import partial
from pathlib import Path

import pytest

from envs.data.prepare import PrepareSettings
from envs.data.synthetic import SyntheticSettings
from envs.errors import UserError
from envs.fit import FitSettings
from rl_rec.cli.main import main

pytestmark = pytest.mark.ray


def test_a_small_walk_ends_in_a_table_and_a_picture(ray_session, tmp_path, monkeypatch, capsys):
    small = SyntheticSettings(users=60, items=80, sessions_per_user=4)
    monkeypatch.setattr("cluster.quickstart.PrepareSettings", partial(PrepareSettings, synthetic=small))
    monkeypatch.setattr("cluster.quickstart.FitSettings", partial(FitSettings, epochs=1))
    monkeypatch.setattr("cluster.quickstart._EPISODES", 32)
    out = tmp_path / "quick"
    assert main(["quickstart", "--out", str(out), "--steps", "500"]) == 0
    table = capsys.readouterr().out
    assert all(word in table for word in ("random", "popular", "constant", "oracle", "HAC", "normalised"))
    assert (out / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    result = json.loads((out / "result.json").read_text())
    assert list(result["policies"]) == ["random", "popular", "constant", "oracle", "hac"]
    assert [path.name for path in tmp_path.iterdir()] == ["quick"]
    assert main(["evaluate", "--run", str(out / "run"), "--episodes", "32", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["return_mean"] == result["policies"]["hac"]["return_mean"]


@pytest.mark.parametrize("problem", [UserError("no"), KeyboardInterrupt(), RuntimeError("no")])
@pytest.mark.parametrize("before", [None, "mine"])
def test_a_walk_that_fails_leaves_everything_as_it_was(tmp_path, monkeypatch, problem, before):
    def fail(*_):
        (tmp_path / "quick" / "half").write_text("done")
        raise problem

    monkeypatch.setattr("cluster.quickstart.prepare", fail)
    if before:
        (tmp_path / "quick").mkdir()
        (tmp_path / "quick" / "precious.txt").write_text(before)
    assert main(["quickstart", "--out", str(tmp_path / "quick"), "--overwrite"]) != 0
    left = [path.relative_to(tmp_path) for path in tmp_path.rglob("*")]
    assert sorted(left) == ([Path("quick"), Path("quick/precious.txt")] if before else [])


def test_an_existing_folder_is_refused_before_the_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("cluster.quickstart.prepare", lambda *_: pytest.fail("the work started"))
    (tmp_path / "precious.txt").write_text("mine")
    assert main(["quickstart", "--out", str(tmp_path)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["quickstart", "--out", str(tmp_path / "precious.txt" / "deeper")]) == 2
    assert "cannot make" in capsys.readouterr().err
