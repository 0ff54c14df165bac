"""A run's description repeats the run, and its file is JSON that any parser reads."""

import json
import platform
import subprocess
from datetime import datetime, timezone

import pytest

from envs.settings import Settings
from rl_rec import provenance
from rl_rec.provenance import commit_name, describe_run, git_state, write_run


class Config(Settings):
    gamma: float = 0.9
    limit: float = float("inf")


def git(folder, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", *identity, "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "checkout"
    folder.mkdir()
    git(folder, "init", "--quiet")
    (folder / "a.txt").write_text("a")
    git(folder, "add", "a.txt")
    git(folder, "commit", "--quiet", "-m", "start")
    return folder


def test_a_run_is_described_and_written(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/rl-rec", "train", "--seed", "3"])
    path = write_run(tmp_path, describe_run(Config(gamma=0.5), seed=3, data_fingerprint="abc"))
    run = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert path == tmp_path / "run.json"
    assert run["config"] == {"gamma": 0.5, "limit": None}
    assert (run["seed"], run["data_fingerprint"]) == (3, "abc")
    assert run["command"] == ["rl-rec", "train", "--seed", "3"]
    assert set(run["versions"]) == {"python", "rl-rec", "torch", "ray", "numpy"}
    assert run["versions"]["python"] == platform.python_version()
    age = datetime.now(timezone.utc) - datetime.fromisoformat(run["started_utc"])
    assert 0 <= age.total_seconds() < 60
    assert run["machine"]["device"] == "cpu" and run["machine"]["cpus"] >= 1


def test_the_description_is_plain_before_it_is_written():
    run = describe_run(Config(), seed=0, data_fingerprint=None)
    assert "limit" in json.dumps(run, allow_nan=False)


def test_the_description_does_not_name_the_machine(monkeypatch):
    monkeypatch.setattr("platform.node", lambda: "host-of-mine")
    monkeypatch.setattr("socket.gethostname", lambda: "host-of-mine")
    assert "host-of-mine" not in json.dumps(describe_run({}, seed=0, data_fingerprint=None))


def test_the_commit_and_its_dirt(checkout):
    commit = git(checkout, "rev-parse", "HEAD")
    assert git_state(checkout) == {"commit": commit, "dirty": False}
    (checkout / "a.txt").write_text("changed")
    assert git_state(checkout) == {"commit": commit, "dirty": True}


def test_results_lying_in_the_checkout_are_no_dirt(checkout):
    (checkout / "run.json").write_text("{}")
    assert git_state(checkout)["dirty"] is False


def test_there_is_no_commit_outside_a_checkout_or_inside_another_ones(checkout, tmp_path):
    inside = checkout / "site-packages"
    inside.mkdir()
    assert git_state(tmp_path) is None
    assert git_state(inside) is None


def test_there_is_no_commit_where_git_is_missing(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert git_state(checkout) is None


@pytest.mark.parametrize("name, dirty", [("abc123", False), ("abc123-dirty", True)])
def test_code_that_travels_without_its_checkout_is_told_its_commit(tmp_path, monkeypatch, name, dirty):
    monkeypatch.setattr(provenance, "_CHECKOUT", tmp_path)
    assert describe_run({}, seed=0, data_fingerprint=None)["git"] is None and commit_name() is None
    monkeypatch.setenv("RL_REC_GIT_COMMIT", name)
    assert describe_run({}, seed=0, data_fingerprint=None)["git"] == {"commit": "abc123", "dirty": dirty}
    assert commit_name() == name


def test_a_checkout_knows_better_than_the_environment(checkout, monkeypatch):
    monkeypatch.setattr(provenance, "_CHECKOUT", checkout)
    monkeypatch.setenv("RL_REC_GIT_COMMIT", "abc123")
    assert commit_name() == git(checkout, "rev-parse", "HEAD")
