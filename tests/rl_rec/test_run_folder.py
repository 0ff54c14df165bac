"""A run on disk, read without Ray: foreign folders, torn checkpoints, half-written results, foreign worlds."""

import json
import pickle
from pathlib import Path

import pytest
import torch

from envs.errors import UserError
from envs.simulator import Simulator
from envs.world_settings import WorldSettings
from rl_rec.agents import find_agent
from rl_rec.checkpoint import seal
from rl_rec.hac.config import HACSettings
from rl_rec.hac.networks import HACNetworks
from rl_rec.run_folder import RunFolder

WEIGHTS = "learner_group/learner/rl_module/default_policy/module_state.pkl"
RULES = WorldSettings(history_length=6)
AGENT = HACSettings.from_mapping({"encoder": {"dim": 8, "heads": 2}, "item_hidden": 4, "critic_hidden": [4]})


def describe(folder: Path, **changes: object) -> None:
    settings = find_agent("hac").train_settings(world=RULES).model_copy(update={"agent": AGENT})
    config = {"algorithm": "hac", "simulator": "somewhere", "settings": settings.model_dump(mode="json")}
    (folder / "run.json").write_text(json.dumps({"config": {**config, **changes}, "data_fingerprint": "f"}))


def save(run: Path, number: int, bias: float, profile_features: int = 5) -> Path:
    """A whole checkpoint of networks whose weights are all ``bias``."""
    networks = HACNetworks(profile_features, 6, RULES.history_length, AGENT)
    checkpoint = run / "trial" / f"checkpoint_{number:06d}"
    (checkpoint / WEIGHTS).parent.mkdir(parents=True)
    weights = {
        f"networks.{name}": torch.full_like(w, bias).numpy() for name, w in networks.state_dict().items()
    }
    (checkpoint / WEIGHTS).write_bytes(pickle.dumps(weights))
    seal(checkpoint)
    return checkpoint


def tear(checkpoint: Path) -> None:
    (checkpoint / WEIGHTS).write_bytes((checkpoint / WEIGHTS).read_bytes()[:50])


@pytest.fixture
def path(tmp_path):
    describe(tmp_path)
    return tmp_path


def first_weight(run: RunFolder) -> float:
    return float(next(iter(run.weights().values())).flat[0])


def refused(call) -> str:
    with pytest.raises(UserError) as problem:
        call()
    assert "\n" not in str(problem.value)
    return str(problem.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "is not a run (make one with: rl-rec train)"),
        ("", "run.json:1: malformed JSON"),
        ('{"config": ', "run.json:1: malformed JSON"),
        ("[]", "does not describe a training run"),
        ("null", "does not describe a training run"),
        ('{"config": {"epochs": 3}}', "does not describe a training run"),
        ('{"config": []}', "does not describe a training run"),
        (
            '{"config": {"algorithm": "hac", "simulator": "s", "settings": 3}}',
            "does not describe a training run",
        ),
        (
            '{"config": {"algorithm": "hac", "simulator": null, "settings": {}}}',
            "does not describe a training run",
        ),
        (
            '{"config": {"algorithm": 3, "simulator": "s", "settings": {}}}',
            "does not describe a training run",
        ),
        ('{"config": {"algorithm": "hca", "simulator": "s", "settings": {}}}', "did you mean 'hac'"),
    ],
)
def test_what_is_not_a_run_is_refused(tmp_path, content, expected):
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    assert expected in refused(lambda: RunFolder(tmp_path))


def test_a_missing_folder_and_a_file_are_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    for name in ("missing", "file"):
        assert "is not a run" in refused(lambda name=name: RunFolder(tmp_path / name))


def test_settings_of_another_release_name_the_key(path):
    describe(path, settings={"stpes": 3, "agent": {}})
    assert "did you mean" in refused(lambda: RunFolder(path))


def test_the_description_is_read_back(path):
    run = RunFolder(path)
    assert (run.agent.name, run.simulator, run.fingerprint) == ("hac", Path("somewhere"), "f")
    assert (run.settings.world, run.settings.agent) == (RULES, AGENT)


def test_a_run_without_checkpoint_says_so(path):
    run = RunFolder(path)
    assert "has not saved a checkpoint yet" in refused(run.weights)
    assert not run.finished


def test_the_newest_whole_checkpoint_counts(path):
    checkpoints = [save(path, number, float(number)) for number in (1, 2, 10)]
    run = RunFolder(path)
    assert first_weight(run) == 10.0
    tear(checkpoints[2])
    assert first_weight(run) == 2.0
    assert list(run.whole_checkpoints()) == checkpoints[1::-1]


def test_when_all_are_torn_the_first_problem_found_is_told(path):
    for number in (1, 2):
        tear(save(path, number, 0.0))
    message = refused(RunFolder(path).weights)
    assert "has no policy to load" in message and "checkpoint_" in message and "damaged" in message


def test_a_whole_checkpoint_whose_weights_are_no_pickle_is_passed_over(path):
    save(path, 1, 1.0)
    foreign = save(path, 2, 2.0)
    (foreign / WEIGHTS).write_bytes(b"not a pickle")
    seal(foreign)
    assert first_weight(RunFolder(path)) == 1.0


def test_finished_needs_the_note_and_a_policy(path):
    run = RunFolder(path)
    run.mark_finished()
    assert not run.finished
    save(path, 1, 1.0)
    assert run.finished


def test_results_survive_a_half_written_line_and_repeated_iterations(path):
    assert RunFolder(path).results() == []
    (path / "trial").mkdir()
    lines = [
        '{"training_iteration": 1, "value": "a"}',
        '{"training_iteration": 2, "value": "old"}',
        '{"training_iteration": 3, "val',
        "",
        "3",
        "{}",
        '{"training_iteration": 2, "value": "new"}',
        '{"training_iteration": 4, "value": "last"',
    ]
    (path / "trial" / "result.json").write_text("\n".join(lines))
    found = [(result["training_iteration"], result["value"]) for result in RunFolder(path).results()]
    assert found == [(1, "a"), (2, "new")]


def test_a_half_written_character_does_not_hide_the_results(path):
    (path / "trial").mkdir()
    whole = b'{"training_iteration": 1}\n'
    (path / "trial" / "result.json").write_bytes(whole + '{"name": "é'.encode()[:-1])
    assert [result["training_iteration"] for result in RunFolder(path).results()] == [1]


def test_the_policy_serves_the_world_it_fits(path, small_world):
    save(path, 1, 0.1)
    world = small_world()
    policy = RunFolder(path).policy(world, RULES)
    slate = policy.act(Simulator(world, RULES, 3, seed=0).observation).slate
    assert slate.shape == (3, 4) and slate.min() >= 1


@pytest.mark.parametrize(
    ("features", "rules"),
    [({"profile_features": 9}, RULES), ({"item_features": 9}, RULES), ({}, WorldSettings(history_length=5))],
)
def test_weights_of_other_features_are_one_line(path, small_world, features, rules):
    save(path, 1, 0.1)
    message = refused(lambda: RunFolder(path).policy(small_world(**features), rules))
    assert "do not fit" in message
