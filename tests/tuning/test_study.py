"""A study of variants: intervals by hand, plans that are refused, and a small one on Tune."""

import csv
import json
import math
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from envs.data.dataset import Split
from envs.errors import UserError
from rl_rec.agents import AGENTS
from tuning.intervals import interval95
from tuning.study import check, study
from tuning.study_plan import StudyPlan, make_variants, read_plan, split_assignments

HAC = AGENTS["hac"]
TWIN = replace(HAC, name="twin")  # another algorithm, as far as a study can tell


@pytest.fixture
def plan(simulator: Path, small_run: list[str]) -> Callable[..., StudyPlan]:
    """``plan({"name": (agent, changes)}, worlds=..., ...)``: a small plan."""

    def make(wanted: dict[str, Any], *more: str, **fields: Any) -> StudyPlan:
        variants = make_variants(wanted, [*small_run, "steps=200", *more])
        rest = {"worlds": {"base": []}, "serves": {"same": []}, "seeds": 1, "episodes": 24, "split": Split.TEST}
        return StudyPlan(simulator=simulator, variants=variants, **{**rest, **fields})

    return make


def test_interval_is_students_over_seeds():
    # mean 2, standard error 1/sqrt(3), t(0.975, 2 degrees of freedom) = 4.302653
    low, high = interval95([1.0, 2.0, 3.0])
    assert (low, high) == (pytest.approx(2 - 4.302653 / 3**0.5), pytest.approx(2 + 4.302653 / 3**0.5))


def test_interval_of_one_seed_is_unknown():
    assert all(math.isnan(bound) for bound in interval95([1.0]))


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


@pytest.mark.ray
def test_a_study_trains_each_variant_once_and_serves_it_in_every_condition(
    tmp_path: Path, simulator: Path, plan, ray_session: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(AGENTS, "twin", TWIN)
    out, said = tmp_path / "study", []
    small = plan(
        {"hac": (HAC, []), "supervision": (TWIN, ["agent.policy_weight=0"])},
        worlds={"forbid": ["world.repeats=forbid"], "allow": ["world.repeats=allow"]},
        serves={"same": [], "short": ["world.max_steps=1"]},
    )

    @contextmanager
    def reporting(label: str):
        yield lambda done, total, message="": said.append((label, done, total))

    result = study(small, out, 2, reporting)
    assert json.loads((out / "study.json").read_text()) == result
    tables = result["tables"]
    assert [(t["world_name"], t["serve_name"]) for t in tables] == [
        ("forbid", "same"),
        ("forbid", "short"),
        ("allow", "same"),
        ("allow", "short"),
    ]
    for table in tables:
        rows = table["rows"]
        assert rows["random"]["normalised"] == 0 and rows["oracle"]["normalised"] == 1
        (first,), (other,) = rows["hac"]["returns"], rows["supervision"]["returns"]
        assert rows["hac"]["difference_to_first"] == 0
        assert rows["supervision"]["difference_to_first"] == pytest.approx(other - first)
        assert rows["hac"]["seeds"][0]["return_mean"] == first
        assert [rows[name]["algorithm"] for name in ("random", "hac", "supervision")] == [None, "hac", "twin"]
    # One step earns 1 at most, and the references were served one step as well.
    assert all(row["return_mean"] <= 1 for row in tables[1]["rows"].values())
    assert tables[0]["rows"]["oracle"]["return_mean"] > 1
    # The variants' settings and the second world's rules reached their trials, one for both conditions.
    trained = {trial.name: trial / "params.json" for trial in out.glob("*-world*-seed0")}
    settings = {name: json.loads(path.read_text())["trial"]["settings"] for name, path in trained.items()}
    assert {name: values["world"]["repeats"] for name, values in settings.items()} == {
        "hac-world0-seed0": "forbid",
        "supervision-world0-seed0": "forbid",
        "hac-world1-seed0": "allow",
        "supervision-world1-seed0": "allow",
    }
    assert settings["supervision-world1-seed0"]["agent"]["policy_weight"] == 0
    assert (out / "learning_curves_world1.png").stat().st_size > 1000

    lines = list(csv.DictReader((out / "results.csv").open()))
    assert len(lines) == 4 * (4 + 2)
    last = lines[-1]
    assert [last[k] for k in ("world", "serve", "variant", "algorithm", "seed")] == [
        "allow",
        "short",
        "supervision",
        "twin",
        "0",
    ]
    assert float(last["return"]) == tables[-1]["rows"]["supervision"]["returns"][0]
    assert ("user-steps", 800, 800) in said and ("evaluating", 24, 24) in said

    again, fingerprint = read_plan(out)  # what a resumed study would do
    assert again == replace(small, simulator=simulator.resolve())
    assert fingerprint is not None
