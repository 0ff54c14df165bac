"""A study of variants: intervals by hand, plans that are refused, and a small one on Tune."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from envs.data.dataset import Split
from envs.errors import UserError
from envs.progress import silent
from rl_rec.agents import AGENTS
from rl_rec.checkpoint import seal
from rl_rec.provenance import describe_run, write_run
from rl_rec.run_folder import read_results
from tuning.study import _train as train_what_is_left
from tuning.study import check, finished, study
from tuning.study_plan import StudyPlan, make_variants, read_plan, split_assignments
from tuning.training import only_one
from tuning.trial import prepare, tidy, user_steps

HAC = AGENTS["hac"]
TWIN = replace(HAC, name="twin")  # another algorithm, as far as a study can tell
STEPS = 1500  # enough to be killed in


@pytest.fixture
def plan(simulator: Path, small_run: list[str]) -> Callable[..., StudyPlan]:
    """``plan({"name": (agent, changes)}, worlds=..., ...)``: a small plan."""

    def make(wanted: dict[str, Any], *more: str, **fields: Any) -> StudyPlan:
        variants = make_variants(wanted, [*small_run, "steps=200", *more])
        rest = {"worlds": {"base": []}, "serves": {"same": []}, "seeds": 1, "episodes": 24, "split": Split.TEST}
        return StudyPlan(simulator=simulator, variants=variants, **{**rest, **fields})

    return make


def test_commas_in_brackets_belong_to_a_value():
    text = "agent.critic_hidden=[128,64],agent.gamma=0.5,agent.score_hidden=[]"
    assert split_assignments(text) == [
        "agent.critic_hidden=[128,64]",
        "agent.gamma=0.5",
        "agent.score_hidden=[]",
    ]
    assert split_assignments("") == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("agent.critic_hidden=128,64", "a list stands in brackets"),
        ("agent.critic_hidden=[128,agent.gamma=0.5", "bracket without its pair"),
    ],
)
def test_an_assignment_without_value_is_refused(text: str, problem: str):
    with pytest.raises(UserError, match=problem):
        split_assignments(text)


def test_what_all_share_reaches_every_algorithm(plan):
    made = plan({"a": (HAC, ["agent.gamma=0.5"]), "b": (TWIN, [])}, "agent.tau=0.25").variants
    assert [made[name].settings.agent.tau for name in ("a", "b")] == [0.25, 0.25]
    assert [made[name].settings.agent.gamma for name in ("a", "b")] == [0.5, 0.9]
    assert [made[name].agent.name for name in ("a", "b")] == ["hac", "twin"]


def test_a_setting_that_one_algorithm_lacks_goes_into_the_variants_that_have_it():
    other = replace(HAC, name="other", settings="rl_rec.encoder_settings:EncoderSettings")
    with pytest.raises(UserError, match=r"other has no agent\.gamma: .* --variant NAME@hac:agent\.gamma="):
        make_variants({"a": (HAC, []), "b": (other, [])}, ["agent.gamma=0.5"])
    with pytest.raises(UserError, match=r"unknown setting 'agent\.gama'"):  # none has it
        make_variants({"a": (HAC, []), "b": (other, [])}, ["agent.gama=0.5"])


@pytest.mark.parametrize(
    ("wanted", "fields", "problem"),
    [
        ({"hac": (HAC, []), "again": (HAC, ["agent.gamma=0.9"])}, {}, "'again' has the same settings as 'hac'"),
        ({"hac": (HAC, []), "longer": (HAC, ["steps=2000"])}, {}, "'longer' changes steps"),
        ({"hac": (HAC, []), "other": (HAC, ["world.repeats=allow"])}, {}, "'other' changes world"),
        ({"random": (HAC, [])}, {}, "a reference policy is"),
        ({"hac": (HAC, [])}, {"worlds": {"w": ["steps=2000"]}}, r"settings under world\., got 'steps=2000'"),
        ({"hac": (HAC, [])}, {"serves": {"s": ["agent.gamma=1"]}}, r"settings under world\."),
        ({"hac": (HAC, [])}, {"serves": {"s": ["world.history_length=3"]}}, "part of a trained network"),
        ({"hac": (HAC, [])}, {"serves": {"s": ["world.candidates=2"]}}, "slates of 4 need at least"),
        ({"hac": (HAC, [])}, {"serves": {"s": ["world.repeat=allow"]}}, "did you mean 'world.repeats'"),
    ],
)
def test_a_plan_is_refused_before_anything_is_written(
    tmp_path: Path, plan, wanted: dict[str, Any], fields: dict[str, Any], problem: str
):
    with pytest.raises(UserError, match=problem):
        check(plan(wanted, **fields), tmp_path / "study")
    assert not list(tmp_path.iterdir())


def test_two_algorithms_may_have_equal_settings(tmp_path: Path, plan):
    check(plan({"a": (HAC, []), "b": (TWIN, [])}), tmp_path / "study")


def test_every_variant_meets_every_world_with_every_seed(plan):
    worlds = {"forbid": ["world.repeats=forbid"], "allow": ["world.repeats=allow"]}
    cells = plan({"a": (HAC, []), "b": (TWIN, ["agent.tau=0.25"])}, worlds=worlds, seeds=2).cells()
    made = {cell.name: (cell.settings.world.repeats, cell.settings.agent.tau, cell.seed) for cell in cells}
    assert made == {
        "a-world0-seed0": ("forbid", 0.01, 0),
        "a-world0-seed1": ("forbid", 0.01, 1),
        "b-world0-seed0": ("forbid", 0.25, 0),
        "b-world0-seed1": ("forbid", 0.25, 1),
        "a-world1-seed0": ("allow", 0.01, 0),
        "a-world1-seed1": ("allow", 0.01, 1),
        "b-world1-seed0": ("allow", 0.25, 0),
        "b-world1-seed1": ("allow", 0.25, 1),
    }


def test_a_plan_comes_back_from_its_folder(tmp_path: Path, plan, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(AGENTS, "twin", TWIN)
    wanted = {"a": (HAC, ["agent.critic_hidden=[8,4]"]), "b": (TWIN, [])}
    made = plan(wanted, worlds={"w": ["world.repeats=allow"]}, serves={"s": ["world.max_steps=3"]})
    write_run(tmp_path, describe_run(made.describe(), 0, "of the data"))
    assert read_plan(tmp_path) == (replace(made, simulator=made.simulator.resolve()), "of the data")
    write_run(tmp_path, {"config": {"algorithm": "hac"}})
    with pytest.raises(UserError, match="does not describe a study"):
        read_plan(tmp_path)


def checkpoint(folder: Path, user_steps: int, torn: bool = False) -> None:
    folder.mkdir(parents=True)
    (folder / "progress.json").write_text(json.dumps({"user_steps": user_steps}))
    seal(folder)
    if torn:
        (folder / "progress.json").write_text(json.dumps({"user_steps": user_steps + 1}))


def test_a_trial_goes_on_from_its_newest_whole_checkpoint(tmp_path: Path):
    trial = tmp_path / "trial"
    checkpoint(trial / "checkpoint_000000", 100)
    checkpoint(trial / "checkpoint_000001", 200)
    checkpoint(trial / "checkpoint_000002", 300, torn=True)
    (trial / "error.txt").touch()
    assert user_steps(trial) == 200
    prepare(trial)
    assert [path.name for path in trial.iterdir()] == ["start"] and user_steps(trial) == 200
    prepare(trial)  # it stopped again before it saved anything
    assert user_steps(trial) == 200
    checkpoint(trial / "checkpoint_000000", 300)
    prepare(trial)
    assert [path.name for path in trial.iterdir()] == ["start"] and user_steps(trial) == 300


def test_results_before_an_interruption_are_kept(tmp_path: Path):
    """Interrupted twice: Tune begins result.json anew each time."""
    trial = tmp_path / "trial"
    for part, steps in enumerate(((1, 2), (3,), (4, 5))):
        checkpoint(trial / "checkpoint_000000", 100 * (part + 1))
        lines = [json.dumps({"training_iteration": step, "part": part}) for step in steps]
        torn = '{"training_iter' if part < 2 else ""  # a killed process left it half-written
        (trial / "result.json").write_text("\n".join(lines) + "\n" + torn)
        if part < 2:
            prepare(trial)
    tidy(trial)
    kept = [(result["training_iteration"], result["part"]) for result in read_results(trial)]
    assert kept == [(1, 0), (2, 0), (3, 1), (4, 2), (5, 2)]
    assert sorted(path.name for path in trial.iterdir()) == ["checkpoint_000000", "result.json"]


def test_a_trial_that_ended_before_an_interruption_is_tidied_by_the_next_start(tmp_path: Path, plan):
    trial = tmp_path / "a-world0-seed0"
    checkpoint(trial / "start", 100)
    checkpoint(trial / "checkpoint_000000", 200)
    (trial / "earlier.json").write_text(json.dumps({"training_iteration": 1}) + "\n")
    (trial / "result.json").write_text(json.dumps({"training_iteration": 2}) + "\n")
    assert train_what_is_left(plan({"a": (HAC, [])}), tmp_path, 1, silent, []) == {}
    assert sorted(path.name for path in trial.iterdir()) == ["checkpoint_000000", "result.json"]
    assert [result["training_iteration"] for result in read_results(trial)] == [1, 2]


def test_a_trial_with_no_whole_checkpoint_starts_over(tmp_path: Path):
    trial = tmp_path / "trial"
    checkpoint(trial / "checkpoint_000000", 100, torn=True)
    (trial / "result.json").write_text("{}")
    assert user_steps(trial) == 0
    prepare(trial)
    assert not trial.exists()


@pytest.fixture(scope="module")
def twin() -> Iterator[None]:
    """A second algorithm in the registry."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(AGENTS, "twin", TWIN)
        yield


@pytest.fixture(scope="module")
def straight(
    simulator: Path,
    small_run: list[str],
    tmp_path_factory: pytest.TempPathFactory,
    ray_session: None,
    twin: None,
) -> Path:
    """A study that nobody interrupted: two algorithms in two conditions, and a variant that fails."""
    wanted = {
        "hac": (HAC, []),
        "supervision": (TWIN, ["agent.policy_weight=0"]),
        "broken": (HAC, ["agent.critic_lr=1e30"]),
    }
    whole = StudyPlan(
        simulator=simulator,
        variants=make_variants(wanted, [*small_run, f"steps={STEPS}"]),
        worlds={"forbid": ["world.repeats=forbid"]},
        serves={"same": [], "short": ["world.max_steps=1"]},
        seeds=1,
        episodes=24,
        split=Split.VALIDATION,
    )
    out, said = tmp_path_factory.mktemp("straight") / "study", []

    @contextmanager
    def reporting(label: str) -> Iterator[Any]:
        yield lambda done, total, message="": said.append((label, done, total))

    result = study(whole, out, 2, reporting)
    assert json.loads((out / "study.json").read_text()) == result
    assert ("evaluating", 12, 12) in said and ("user-steps", 2 * STEPS, 3 * STEPS) in said
    return out


@pytest.mark.ray
def test_each_variant_is_trained_once_and_served_in_every_condition(straight: Path, simulator: Path):
    tables = json.loads((straight / "study.json").read_text())["tables"]
    assert [(t["world_name"], t["serve_name"]) for t in tables] == [("forbid", "same"), ("forbid", "short")]
    for table in tables:
        rows = table["rows"]
        assert rows["random"]["normalised"] == 0 and rows["oracle"]["normalised"] == 1
        (first,), (other,) = rows["hac"]["returns"], rows["supervision"]["returns"]
        assert rows["hac"]["difference_to_first"] == 0
        assert rows["supervision"]["difference_to_first"] == pytest.approx(other - first)
        assert [rows[name]["algorithm"] for name in ("random", "hac", "supervision")] == [None, "hac", "twin"]
        assert all(row["seeds"][0]["split"] == "validation" for row in rows.values() if "failed" not in row)
    # One step earns 1 at most, and the references were served one step as well.
    assert all(row["return_mean"] <= 1 for row in tables[1]["rows"].values() if "failed" not in row)
    assert tables[0]["rows"]["oracle"]["return_mean"] > 1
    # The settings of variants and world reached their trials, one for both conditions.
    trained = {trial.name: trial / "params.json" for trial in straight.glob("*-world*-seed*")}
    settings = {name: json.loads(path.read_text())["trial"]["settings"] for name, path in trained.items()}
    assert sorted(settings) == ["broken-world0-seed0", "hac-world0-seed0", "supervision-world0-seed0"]
    assert {values["world"]["repeats"] for values in settings.values()} == {"forbid"}
    assert settings["supervision-world0-seed0"]["agent"]["policy_weight"] == 0
    assert (straight / "learning_curves_world0.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.ray
def test_every_figure_is_a_line_of_the_csv(straight: Path):
    lines = list(csv.DictReader((straight / "results.csv").open()))
    tables = json.loads((straight / "study.json").read_text())["tables"]
    assert len(lines) == 2 * (4 + 3)
    line = next(line for line in lines if (line["serve"], line["variant"]) == ("short", "supervision"))
    assert (line["world"], line["algorithm"], line["seed"]) == ("forbid", "twin", "0")
    assert float(line["return"]) == tables[1]["rows"]["supervision"]["returns"][0]


@pytest.mark.ray
def test_a_trial_that_fails_leaves_the_others_alone(straight: Path):
    written = json.loads((straight / "study.json").read_text())
    assert list(written["failed"]) == ["broken-world0-seed0"]
    assert "NaN or infinite" in written["failed"]["broken-world0-seed0"]
    row = written["tables"][0]["rows"]["broken"]
    assert row["failed"] == 1 and "return_mean" not in row
    assert finished(straight) is None  # it can be tried again


BEGIN = """
import dataclasses, sys
from pathlib import Path
from cluster.ray_session import ray_session
from rl_rec.agents import AGENTS
from rl_rec.resources import Processes
from tuning.study import study
from tuning.study_plan import read_plan

AGENTS["twin"] = dataclasses.replace(AGENTS["hac"], name="twin")
with ray_session([[Processes("learner", 1, 1)]]):
    study(read_plan(Path(sys.argv[1]))[0], Path(sys.argv[2]), parallel=1)
"""


@pytest.mark.ray
@pytest.mark.slow
def test_killed_it_goes_on_to_the_same_tables(
    straight: Path, tmp_path: Path, twin: None, capsys: pytest.CaptureFixture[str]
):
    from rl_rec.cli.main import main

    out = tmp_path / "study"
    trial = out / "hac-world0-seed0"
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    process = subprocess.Popen([sys.executable, "-c", BEGIN, straight, out], env=environment)
    end = time.monotonic() + 120
    while not (read_results(trial) and user_steps(trial)):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    process.kill()
    assert process.wait(timeout=30) == -signal.SIGKILL
    worker = read_results(trial)[-1]["pid"]
    while Path(f"/proc/{worker}").exists():
        assert time.monotonic() < end
        time.sleep(0.1)
    assert 0 < user_steps(trial) < STEPS
    capsys.readouterr()

    with only_one(out):
        assert main(["study", "--resume", str(out)]) == 2
    assert "another process is training" in capsys.readouterr().err
    assert main(["study", "--resume", str(out)]) == 1  # one of its variants fails
    err = capsys.readouterr().err.splitlines()
    assert sum("error: trial broken-world0-seed0 failed: loss/td" in line for line in err) == 1
    results = read_results(trial)
    assert [result["training_iteration"] for result in results] == list(range(1, STEPS // 100 + 1))
    last = results[-1]
    assert 0 < last["iterations_since_restore"] < last["training_iteration"] == STEPS // 100  # it did go on
    assert (out / "results.csv").read_text() == (straight / "results.csv").read_text()
    tables = [json.loads((folder / "study.json").read_text())["tables"] for folder in (out, straight)]
    assert tables[0] == tables[1]


@pytest.mark.ray
@pytest.mark.slow
def test_a_trial_whose_process_dies_goes_on_by_itself(
    straight: Path, tmp_path: Path, twin: None, ray_session: None
):
    """And ends with the same figures."""
    plan, _ = read_plan(straight)
    alone = replace(plan, variants={"hac": plan.variants["hac"]})
    trial, killed = tmp_path / "study" / "hac-world0-seed0", []

    def kill() -> None:
        end = time.monotonic() + 120
        while time.monotonic() < end:
            if user_steps(trial) and (results := read_results(trial)):
                os.kill(results[-1]["pid"], signal.SIGKILL)
                killed.append(results[-1]["training_iteration"])
                return
            time.sleep(0.02)

    killer = threading.Thread(target=kill)
    killer.start()
    result = study(alone, tmp_path / "study", 1)
    killer.join()
    assert killed and result["failed"] == {}
    assert 0 < read_results(trial)[-1]["iterations_since_restore"] < STEPS // 100
    expected = json.loads((straight / "study.json").read_text())["tables"]
    for table, whole in zip(result["tables"], expected, strict=True):
        assert table["rows"]["hac"]["returns"] == whole["rows"]["hac"]["returns"]
