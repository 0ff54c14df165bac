"""`rl-rec evaluate` on a small world: what it prints and refuses, and that it needs no Ray."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from envs import world_folder
from envs.fit_ensemble import FittedEnsemble
from rl_rec.cli.main import main

RULES = ["--set", "history_length=6", "--set", "max_steps=6"]
FIELDS = {
    "return_mean",
    "return_ci95",
    "normalised",
    "depth_mean",
    "click_rate",
    "coverage",
    "intra_list_diversity",
    "new_item_share",
    "episodes",
    "seed",
    "split",
    "world",
    "data_fingerprint",
}


@pytest.fixture(scope="module")
def simulator(fitted_simulator: Path) -> Path:
    return fitted_simulator


@pytest.fixture(scope="module")
def run(make_run: Callable[..., Path]) -> Path:
    """A run folder as training leaves it, with networks that never learned."""
    return make_run()


def figures(capsys, *arguments: str) -> dict:
    capsys.readouterr()
    assert main(["evaluate", *arguments, "--episodes", "32", "--json"]) == 0
    return json.loads(capsys.readouterr().out)  # fails if anything else is there


@pytest.mark.parametrize("policy", ["random", "popular", "constant", "oracle"])
def test_a_reference_policy(simulator, capsys, policy):
    result = figures(capsys, "--policy", policy, "--simulator", str(simulator), "--seed", "3", *RULES)
    assert set(result) >= FIELDS
    low, high = result["return_ci95"]
    assert low < result["return_mean"] < high
    assert (result["policy"], result["episodes"], result["seed"], result["split"]) == (policy, 32, 3, "test")
    assert 1 <= result["depth_mean"] <= 6 and 0 <= result["click_rate"] <= 1
    if policy in ("random", "oracle"):
        assert result["normalised"] == (policy == "oracle")


def test_a_run_in_the_world_it_was_trained_in(run, simulator, capsys):
    result = figures(capsys, "--run", str(run))
    assert set(result) >= FIELDS
    assert result["run"] == str(run)
    assert (result["world"]["history_length"], result["world"]["max_steps"]) == (6, 6)
    random = figures(capsys, "--policy", "random", "--simulator", str(simulator), *RULES)
    assert result["random_return"] == random["return_mean"]  # paired across calls


def test_set_changes_the_rules_of_a_run(run, capsys):
    assert figures(capsys, "--run", str(run), "--set", "max_steps=2")["depth_mean"] <= 2


def test_a_schedule_changes_the_catalogue(run, capsys, tmp_path):
    assert figures(capsys, "--run", str(run))["new_item_share"] is None
    held = figures(capsys, "--run", str(run), "--catalogue", "withheld=0.5,rule=newest,show=withheld")
    assert held["new_item_share"] == 1.0 and held["distinct_items"] <= 20
    assert held["world"]["catalogue"] == {
        "withheld": 0.5, "rule": "newest", "churn": 0.0, "seed": 0, "show": "withheld",
    }  # fmt: skip
    (tmp_path / "schedule.json").write_text('{"withheld": 0.5, "rule": "newest", "show": "withheld"}')
    assert figures(capsys, "--run", str(run), "--catalogue", str(tmp_path / "schedule.json")) == held
    changed = figures(
        capsys, "--run", str(run), "--catalogue", "withheld=0.5", "--set", "world.catalogue.churn=0.1"
    )
    assert (changed["world"]["catalogue"]["withheld"], changed["world"]["catalogue"]["churn"]) == (0.5, 0.1)
    assert 0 < changed["new_item_share"] < 1


def test_a_schedule_file_of_another_kind_is_refused_in_one_line(run, tmp_path, capsys):
    for text, expected in (
        ("[0.2]", 'expected one JSON object such as {"withheld": 0.2}'),
        ("{", "malformed JSON"),
    ):
        (tmp_path / "schedule.json").write_text(text)
        assert main(["evaluate", "--run", str(run), "--catalogue", str(tmp_path / "schedule.json")]) == 2
        error = capsys.readouterr().err
        assert expected in error and error.count("\n") == 1


def test_a_schedule_changes_the_run_s_own(run, tmp_path, capsys):
    (tmp_path / "trial").symlink_to(run / "trial")
    described = json.loads((run / "run.json").read_text())
    described["config"]["settings"]["world"]["catalogue"] = {"withheld": 0.5, "churn": 0.1}
    (tmp_path / "run.json").write_text(json.dumps(described))
    own = figures(capsys, "--run", str(tmp_path))["world"]["catalogue"]
    changed = figures(capsys, "--run", str(tmp_path), "--catalogue", "seed=7")["world"]["catalogue"]
    assert (own["withheld"], own["churn"]) == (0.5, 0.1) and changed == {**own, "seed": 7}
    assert main(["evaluate", "--run", str(tmp_path), "--catalogue", "show=all"]) == 2
    assert "show=all is a catalogue that stays as it is: set churn=0" in capsys.readouterr().err


def test_the_split_decides_who_is_served(simulator, capsys):
    arguments = ["--policy", "popular", "--simulator", str(simulator), *RULES]
    results = [figures(capsys, *arguments, "--split", split) for split in ("train", "validation", "test")]
    assert len({result["return_mean"] for result in results}) == 3


def test_a_person_reads_a_table_of_figures_and_of_what_was_changed(simulator, capsys):
    command = ["evaluate", "--policy", "random", "--simulator", str(simulator), "--episodes", "8"]
    assert main([*command, *RULES, "--set", "start_history=empty"]) == 0
    out = capsys.readouterr().out
    for word in ("return mean", "normalised", "click rate", "coverage", "intra list diversity"):
        assert word in out
    *_, last = out.partition("\nworld ")
    assert last.split()[:3] == ["start_history=empty", "history_length=6", "max_steps=6"]
    assert "repeats" not in out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "give either --run FOLDER or --policy NAME"),
        (["--run", "{run}", "--policy", "random"], "give either --run FOLDER or --policy NAME"),
        (["--policy", "random"], "--policy needs --simulator"),
        (["--policy", "best", "--simulator", "{sim}"], "'oracle', 'planner'. See: "),
        (["--policy", "planer", "--simulator", "{sim}"], "'oracle', 'planner'. Did you mean 'planner'? See: "),
        (["--policy", "random", "--simulator", "nowhere"], "nowhere is not a simulator"),
        (["--run", "{run}", "--simulator", "nowhere"], "nowhere is not a simulator"),
        (["--run", "nowhere"], "nowhere is not a run"),
        (["--run", "{sim}"], "does not describe a training run"),
        (["--run", "{run}", "--set", "max_stpes=3"], "did you mean 'max_steps'"),
        (["--run", "{run}", "--set", "max_steps=0"], "max_steps"),
        (
            ["--run", "{run}", "--set", "history_length=5"],
            "do not fit this simulator's features or history_length=5",
        ),
        (["--run", "{run}", "--set", "candidates=3"], "change candidates"),
        (["--run", "{run}", "--catalogue", "chrun=0.1"], "did you mean 'catalogue.churn'"),
        (["--run", "{run}", "--catalogue", "churn=0.1"], "lower churn or raise withheld"),
        (["--run", "{run}", "--catalogue", "withheld=much"], "catalogue.withheld: "),
        (["--run", "{run}", "--catalogue", "withheld=0.9"], "of a catalogue of 40 of which 4 are live"),
        (["--run", "{run}", "--catalogue", "nowhere.json"], "NAME=VALUE,... or the path of a JSON file"),
        (["--run", "{run}", "--catalogue", "{run}/run.json"], "unknown setting 'catalogue.config'"),
        (["--run", "{run}", "--episodes", "0"], "--episodes"),
        (["--run", "{run}", "--device", "tpu"], "unknown device 'tpu'"),
        (["--run", "{run}", "--device", "cuda:99"], "device 'cuda:99' is not available"),
    ],
)
def test_bad_input_is_one_line(run, simulator, capsys, arguments, expected):
    capsys.readouterr()
    given = [argument.format(run=run, sim=simulator) for argument in arguments]
    assert main(["evaluate", *given, "--json"]) == 2
    captured = capsys.readouterr()
    assert expected in captured.err and captured.err.count("\n") == 1
    assert captured.out == ""


def test_a_run_whose_simulator_moved_away_says_which(run, tmp_path, capsys):
    config = json.loads((run / "run.json").read_text())
    config["config"]["simulator"] = str(tmp_path / "gone")
    (tmp_path / "run.json").write_text(json.dumps(config))
    assert main(["evaluate", "--run", str(tmp_path)]) == 2
    assert "gone is not a simulator" in capsys.readouterr().err


def test_a_run_without_checkpoint_says_so(run, tmp_path, capsys):
    (tmp_path / "run.json").write_text((run / "run.json").read_text())
    assert main(["evaluate", "--run", str(tmp_path)]) == 2
    assert "has not saved a checkpoint yet" in capsys.readouterr().err


def test_a_run_is_evaluated_without_ray(run):
    program = (
        "import sys; from rl_rec.cli.main import main\n"
        "code = main(['evaluate', '--run', sys.argv[1], '--episodes', '4', '--json'])\n"
        "sys.exit('ray was imported' if 'ray' in sys.modules else code)"
    )
    command = [sys.executable, "-c", program, str(run)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) >= FIELDS


def test_the_help_ends_with_an_example(capsys):
    assert main(["evaluate", "-h"]) == 0
    last_paragraph = capsys.readouterr().out.strip().split("\n\n")[-1]
    assert last_paragraph.strip().startswith("Example: rl-rec evaluate ")


def test_sweet_point_shows_what_an_episode_can_reach(simulator, capsys):
    arguments = ["--policy", "oracle", "--simulator", str(simulator), *RULES, "--set", "reward=sweet_point"]
    result = figures(capsys, *arguments)
    assert [bound["clicks"] for bound in result["episode_bounds"]] == [0, 1, 2, 3, 4]
    assert result["episode_bounds"][4]["total"] == pytest.approx(6 * 0.9)  # cut off after 6 steps
    assert {"deliberate_miss_share", "one_short_share"} < set(result)
    assert main(["evaluate", *arguments, "--episodes", "8"]) == 0
    assert "an episode in which every slate gets" in " ".join(capsys.readouterr().out.split())


def test_a_policy_beyond_the_logs_is_warned_about(simulator, capsys, monkeypatch):
    arguments = ["evaluate", "--policy", "random", "--simulator", str(simulator), "--episodes", "8", *RULES]
    assert main(arguments) == 0
    assert "beyond what the logs support" not in capsys.readouterr().err
    load = world_folder.load

    def with_ensemble(path):
        fitted = load(path)
        fitted.ensemble = FittedEnsemble(lambda: [fitted.model], threshold=-1.0)  # everything is above it
        return fitted

    monkeypatch.setattr(world_folder, "load", with_ensemble)
    assert main([*arguments, "--json"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert (result["unsupported_share"], result["uncertainty_mean"]) == (1.0, 0.0)
    assert "100% of the shown items are beyond what the logs support" in captured.err
