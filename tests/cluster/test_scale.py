"""`rl-rec scale`: what it measures at a tiny scale, and what it refuses."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cluster.scale_cli import scale
from envs.errors import Terminated, UserError
from rl_rec.algorithm import OffPolicyAlgorithm
from tuning import scaling


def run(simulator: Path, out: Path, *more: str) -> Any:
    return CliRunner().invoke(scale, ["hac", "--simulator", str(simulator), "--out", str(out), *more])


@pytest.fixture
def tiny(small_run: list[str]) -> list[str]:
    assignments = [text for text in small_run if not text.startswith("evaluation")]
    settings = [part for text in [*assignments, "resources.cpus=0.5"] for part in ("--set", text)]
    return [*settings, "--set", "resources.runner_cpus=0.5", "--seconds", "0.5", "--repeats", "1"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--runners", "2,4"], "--runners 2,4: leave 1 among them"),
        (["--runners", "1,1"], "--runners 1,1: give each count once"),
        (["--modes", "fast"], "--modes fast: use sync, async or sync,async"),
        (["--bandwidth", "10"], "--bandwidth 10: give it like 10Gbit"),
        (["--predict", "0,4"], "--predict needs counts from 1 on"),
        (["--set", "rolout.users=4"], "rolout"),
    ],
)
def test_mistakes_end_in_one_line_before_anything_starts(simulator, tmp_path, options, message):
    result = run(simulator, tmp_path / "out", *options)
    assert isinstance(result.exception, UserError)
    assert message in str(result.exception) and "\n" not in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_no_list_of_counts(simulator, tmp_path):
    assert "'two' is no list of whole numbers" in run(simulator, tmp_path / "out", "--runners", "two").output


@pytest.mark.ray
def test_points_that_find_no_place(ray_session, simulator, tmp_path, tiny):
    command = ["--runners", "1,64", "--modes", "async", *tiny]
    refused = run(simulator, tmp_path / "out", *command)
    assert isinstance(refused.exception, UserError)
    assert "a run asks for 32.5 CPU (1 learner × 0.5 CPU, 64 env runners × 0.5 CPU)" in str(refused.exception)

    result = run(simulator, tmp_path / "out", *command, "--skip-unfit", "--json")
    assert result.exception is None, result.output
    document = json.loads((tmp_path / "out" / "scale.json").read_text())
    assert [entry["point"] for entry in document["skipped"]] == ["64 async"]
    assert [row["runners"] for row in document["points"]] == [0, 1]


@pytest.mark.ray
def test_both_modes_are_measured_and_predicted(ray_session, simulator, tmp_path, tiny):
    out = tmp_path / "out"
    result = run(simulator, out, "--runners", "1,2", "--predict", "1,256", *tiny)
    assert result.exception is None, result.output
    assert "predicted beside measured" in result.output

    document = json.loads((out / "scale.json").read_text())
    with (out / "points.csv").open() as file:
        table = list(csv.DictReader(file))
    points = document["points"]
    kinds = [("0", "sync"), ("1", "sync"), ("2", "sync"), ("1", "async"), ("2", "async")]
    assert [(row["runners"], row["mode"]) for row in table] == kinds
    for row, point in zip(table, points, strict=True):
        assert point["ratio_held"] is True and point["user_steps_per_s"] > 0
        assert float(row["user_steps_per_s"]) == pytest.approx(point["user_steps_per_s"])
        assert point["replay_ratio"] == pytest.approx(2.0, rel=0.15)  # of a moment, to a whole update
        shares = [point[name] for name in ("rollout_s", "replay_s", "update_s", "sync_s", "rest")]
        assert sum(shares) == pytest.approx(1.0) and min(shares) >= 0
        assert 0 <= point["learner_idle"] <= 1 and point["predicted"] > 0
        if point["runners"]:
            assert point["sample_latency_s"] >= point["sample_s"] > 0
            assert point["weights_latency_s"] > 0 and point["cpu_runner_us_per_user_step"] > 0
            assert point["fragment_bytes"] > 10 * 5 * 4 and point["weights_bytes"] > 0
    assert points[0]["speedup"] is None and points[1]["speedup"] == points[3]["speedup"] == 1.0
    ratio = points[4]["user_steps_per_s"] / points[3]["user_steps_per_s"]  # of the one turn
    assert points[4]["speedup"] == pytest.approx(ratio) and points[4]["efficiency"] == pytest.approx(ratio / 2)
    assert points[3]["staleness_updates"] > points[1]["staleness_updates"] == 0
    assert [row["runners"] for row in document["curve"]] == [1, 256, 1, 256]
    assert {entry["mode"] for entry in document["knees"]} == {"sync", "async"}
    assert document["hardware"]["cores"] >= 1 and len(document["hardware"]["load_average"]) == 3
    assert (out / "scale.svg").stat().st_size > 1000 and (out / "scale.png").stat().st_size > 1000


@pytest.mark.ray
def test_a_ratio_that_is_off_gives_no_figure(ray_session, simulator, tmp_path, tiny, monkeypatch):
    update = OffPolicyAlgorithm._update

    def lazy(self: Any, clock: Any) -> None:
        if self.updates < 10:
            update(self, clock)

    monkeypatch.setattr(OffPolicyAlgorithm, "_update", lazy)
    out = tmp_path / "out"
    result = run(simulator, out, "--runners", "1", "--modes", "sync", *tiny)
    assert result.exception is None, result.output
    assert "ratio off" in result.output
    points = json.loads((out / "scale.json").read_text())["points"]
    assert [point["user_steps_per_s"] for point in points] == [None, None]


@pytest.mark.ray
@pytest.mark.parametrize(
    ("end", "measured", "kept"),
    [(Terminated, 2, [0, 1]), (Terminated, 1, None), (UserError, 2, [0, 1]), (RuntimeError, 2, [0, 1])],
    ids=["sigterm", "sigterm-at-once", "a-runner-died", "a-learner-died"],
)
def test_what_was_measured_before_the_end_is_kept(
    ray_session, simulator, tmp_path, tiny, monkeypatch, capsys, end, measured, kept
):
    measure, calls = scaling.measure_point, []

    def ended_at_last(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) > measured and end is not Terminated:
            raise end("the process died while it was measured")
        if len(calls) > measured:
            raise SystemError("wait returned a result with an exception set") from Terminated()  # so does Ray
        return measure(*arguments)

    monkeypatch.setattr(scaling, "measure_point", ended_at_last)
    place = simulator.as_uri()  # a URL, as on a cluster
    command = ["hac", "--simulator", place, "--out", str(tmp_path / "out"), "--modes", "sync", *tiny]
    with pytest.raises(end):
        scale.main(command, standalone_mode=False)
    if kept is None:  # not even one runner: nothing to compare with
        assert not (tmp_path / "out").exists()
        told = capsys.readouterr().err
        assert "1 of 3 blocks were measured, none with one env runner to compare with: nothing is" in told
    else:
        assert "stopped: 2 of 3 blocks were measured" in capsys.readouterr().err
        document = json.loads((tmp_path / "out" / "scale.json").read_text())
        assert [row["runners"] for row in document["points"]] == kept
