"""Asking for more than there is, and for what cannot be reached: one line, and nothing starts."""

import socket
from types import SimpleNamespace

import pytest

from cluster.ray_session import ray_session as session
from envs.errors import UserError
from rl_rec.resources import Processes

pytestmark = pytest.mark.ray

ONE = [Processes("learner", 1, 1)]


def enter(*reservations, **arguments) -> str:
    with pytest.raises(UserError) as problem, session(reservations, **arguments):
        pytest.fail("the job started")
    assert "\n" not in str(problem.value)
    return str(problem.value)


def test_more_cpus_than_there_are(ray_session):
    problem = enter(ONE, [*ONE, Processes("env runners", 4, 1)])
    assert "asks for 5 CPU (1 learner × 1 CPU, 4 env runners × 1 CPU); the cluster has 2 CPU" in problem
    assert "on 1 node and no place for 3 env runners × 1 CPU: lower rollout.runners" in problem


def test_more_gpus_than_there_are(ray_session):
    problem = enter([Processes("learner", 1, 1, 1)])
    assert "asks for 1 CPU and 1 GPU" in problem and "no place for 1 learner × 1 CPU + 1 GPU" in problem


def test_what_an_autoscaler_may_add_counts(ray_session, monkeypatch):
    import ray

    asked = [*ONE, Processes("env runners", 4, 1)]

    def scaling_to(count: int) -> None:
        group = SimpleNamespace(resources={"CPU": 1}, max_count=count)
        config = SimpleNamespace(node_group_configs=[group])
        monkeypatch.setattr(ray._private.state.state, "get_cluster_config", lambda: config)

    scaling_to(2)
    assert "the cluster has 4 CPU and 0 GPU on 3 nodes and no place for 1 env runners" in enter(asked)
    for count in (3, -1):
        scaling_to(count)
        with session([asked]):
            pass


def test_a_running_ray_is_used_and_left_running(ray_session):
    import ray

    with session([[Processes("learner", 1, 2)]]):
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
    monkeypatch.setattr("cluster.ray_session._check_answers", lambda _: None)  # somebody answers
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    refused = enter(ONE, address="nowhere:1")
    assert refused.startswith("Ray cannot reach nowhere:1: nobody there (is it up") and "\n" not in refused
    assert asked["address"] == "nowhere:1"
    assert asked["runtime_env"]["env_vars"] == {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    enter(ONE)
    assert asked["address"] == "local"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")  # as inside a Ray job
    assert "10.0.0.1:6379" in enter(ONE)


def test_a_gpu_is_looked_for_where_ray_will_run(monkeypatch):
    import ray
    import torch

    asked = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **arguments: asked.append(arguments) or 1 / 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("cluster.ray_session._check_answers", lambda _: None)  # somebody answers
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    gpu = [Processes("learner", 1, 1, 1)]
    assert "torch sees no CUDA device" in enter(gpu) and not asked
    with pytest.raises(ZeroDivisionError), session([gpu], address="10.0.0.1:6379"):  # a cluster may have one
        pass


def test_an_address_where_nobody_answers_is_told_before_ray_tries(monkeypatch):
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray tries for minutes"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    problem = enter(ONE, address=address)
    assert f"no Ray cluster answers at {address} (Connection refused): give its head's address" in problem
