"""The measurement of Tune's overhead: it measures what it says."""

import json
import time

import pytest

from rl_rec.algorithm import OffPolicyAlgorithm
from rl_rec.cli.main import main

pytestmark = pytest.mark.ray


def test_both_ways_train_the_whole_run(ray_session, simulator, small_run, capsys):
    settings = [part for text in [*small_run, "evaluation.every=0"] for part in ("--set", text)]
    command = ["bench", "tune", "--simulator", str(simulator), "--steps", "300", "--repeats", "1", "--json"]
    assert main([*command, *settings]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["user_steps"], result["reports"], result["checkpoints"]) == (300, 3, 3)
    assert result["overhead"] == pytest.approx(result["tune_s"] / result["loop_s"] - 1)
    assert min(result[name] for name in ("loop_s", "tune_s", "start_s", "end_s")) > 0


def test_a_slow_loop_is_seen(ray_session, simulator, small_run, capsys, monkeypatch):
    train = OffPolicyAlgorithm.train

    def slower(self):  # in this process, where the plain loop runs
        time.sleep(2.0)
        return train(self)

    monkeypatch.setattr(OffPolicyAlgorithm, "train", slower)
    settings = [part for text in [*small_run, "evaluation.every=0"] for part in ("--set", text)]
    command = ["bench", "tune", "--simulator", str(simulator), "--steps", "200", "--repeats", "1", "--json"]
    assert main([*command, *settings]) == 0
    assert json.loads(capsys.readouterr().out)["loop_s"] > 4
