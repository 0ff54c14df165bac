"""Asking for more than there is, and for what cannot be reached: one line, and nothing starts."""

import pytest

from cluster.ray_session import ray_session as session
from envs.errors import UserError

pytestmark = pytest.mark.ray


def enter(**asked) -> str:
    with pytest.raises(UserError) as problem, session(**asked):
        pytest.fail("the job started")
    assert "\n" not in str(problem.value)
    return str(problem.value)


def test_more_cpus_than_there_are(ray_session):
    assert "asks for 3 CPU, the cluster has 2" in enter(cpus=3)


def test_more_gpus_than_there_are(ray_session):
    assert "asks for 1000 GPU, the cluster has" in enter(cpus=1, gpus=1000)


def test_a_running_ray_is_used_and_left_running(ray_session):
    import ray

    with session(cpus=2):
        pass
    assert ray.is_initialized()


def test_workers_are_told_not_to_spin_and_an_unreachable_cluster_is_one_line(monkeypatch):
    import ray

    asked = {}

    def init(**arguments):
        asked.update(arguments)
        raise ConnectionError("nobody\nthere")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert enter(cpus=1, address="ray://nowhere:1") == "Ray cannot start or reach ray://nowhere:1: nobody there"
    assert asked["address"] == "ray://nowhere:1"
    assert asked["runtime_env"]["env_vars"] == {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    enter(cpus=1)
    assert asked["address"] == "local"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")  # as inside a Ray job
    assert "10.0.0.1:6379" in enter(cpus=1)
