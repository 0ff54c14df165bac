"""A study of variants: intervals by hand, and a small one on Tune."""

import json
import math
from pathlib import Path

import pytest
from click.testing import CliRunner

from envs.errors import UserError
from tuning.intervals import interval95
from tuning.study import study


def test_interval_is_students_over_seeds():
    # mean 2, standard error 1/sqrt(3), t(0.975, 2 degrees of freedom) = 4.302653
    low, high = interval95([1.0, 2.0, 3.0])
    assert (low, high) == (pytest.approx(2 - 4.302653 / 3**0.5), pytest.approx(2 + 4.302653 / 3**0.5))


def test_interval_of_one_seed_is_unknown():
    assert all(math.isnan(bound) for bound in interval95([1.0]))


def test_a_misspelt_variant_is_refused_before_anything_is_written(tmp_path: Path, simulator: Path):
    from rl_rec.agents import find_agent

    agent = find_agent("hac")
    arguments = (agent, simulator, agent.train_settings(), {"a": ["agent.gama=0.5"]}, [[]], 1, 8)
    with pytest.raises(UserError, match=r"agent\.gamma"):
        study(*arguments, tmp_path / "study")
    assert not (tmp_path / "study").exists()


@pytest.mark.ray
def test_a_study_trains_every_variant_in_every_world(
    tmp_path: Path, simulator: Path, small_run: list[str], ray_session: None
):
    from cluster.study_cli import study as command

    out = tmp_path / "study"
    sets = [argument for setting in small_run for argument in ("--set", setting)]
    variants = ["--variant", "hac", "--variant", "supervision:agent.policy_weight=0"]
    worlds = ["--world", "world.repeats=forbid", "--world", "world.repeats=allow"]
    size = ["--seeds", "1", "--steps", "200", "--episodes", "24", "--parallel", "2"]
    arguments = [
        "hac",
        "--simulator",
        str(simulator),
        "--out",
        str(out),
        *size,
        *variants,
        *worlds,
        *sets,
    ]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "paired difference" in result.output

    written = json.loads((out / "study.json").read_text())
    forbid, allow = written["tables"]
    assert (forbid["world"]["repeats"], allow["world"]["repeats"]) == ("forbid", "allow")
    rows = forbid["rows"]
    assert rows["random"]["normalised"] == 0 and rows["oracle"]["normalised"] == 1
    (first,), (other,) = rows["hac"]["returns"], rows["supervision"]["returns"]
    assert rows["hac"]["difference_to_first"] == 0
    assert rows["supervision"]["difference_to_first"] == pytest.approx(other - first)
    # The variants' settings and the second world's rules reached their trials.
    trained = {trial.name: trial / "params.json" for trial in out.glob("*-world*-seed0")}
    settings = {name: json.loads(path.read_text())["settings"] for name, path in trained.items()}
    assert {name: values["world"]["repeats"] for name, values in settings.items()} == {
        "hac-world0-seed0": "forbid",
        "supervision-world0-seed0": "forbid",
        "hac-world1-seed0": "allow",
        "supervision-world1-seed0": "allow",
    }
    assert settings["supervision-world1-seed0"]["agent"]["policy_weight"] == 0
    assert (out / "run.json").exists()
    assert (out / "learning_curves_world1.png").stat().st_size > 1000


def test_equal_variants_are_refused(tmp_path: Path, simulator: Path):
    from rl_rec.agents import find_agent

    agent = find_agent("hac")
    variants: dict[str, list[str]] = {"hac": [], "again": ["agent.gamma=0.9"]}  # the default
    with pytest.raises(UserError, match="'again' has the same settings"):
        study(agent, simulator, agent.train_settings(), variants, [[]], 1, 8, tmp_path / "study")


def test_a_variant_with_another_budget_is_refused(tmp_path: Path, simulator: Path):
    from rl_rec.agents import find_agent

    agent = find_agent("hac")
    variants: dict[str, list[str]] = {"hac": [], "longer": ["steps=200000"]}
    with pytest.raises(UserError, match="'longer' changes the budget or the world"):
        study(agent, simulator, agent.train_settings(), variants, [[]], 1, 8, tmp_path / "study")
