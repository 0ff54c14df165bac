"""Learners in processes of their own: the same training as beside the replay."""

from typing import Any

import pytest
import torch

from tests.rl_rec.test_algorithm import build, configure, differences, start, train  # noqa: F401 (fixtures)

pytestmark = pytest.mark.ray

REMOTE = ("resources.learner_cpus=0.5", "rollout.users=10")
ONE_UPDATE_A_ROUND = "replay.ratio=0.32"  # 16 of 50 transitions


def weights(algorithm: Any) -> list[dict[str, Any]]:
    """Networks, targets and Adam's state of every learner."""

    def own(learner: Any) -> dict[str, Any]:
        module = learner.module["default_policy"].unwrapped()
        state = {name: value.clone() for name, value in module.state_dict().items()}
        for group, optimizer in learner.get_optimizers_for_module("default_policy"):
            for index, moments in optimizer.state_dict()["state"].items():
                state[f"adam.{group}.{index}"] = moments["exp_avg"].clone()
        return state

    return [answer.get() for answer in algorithm.learner_group.foreach_learner(own)]


def distance(changes: list[torch.Tensor]) -> float:
    """The length of all together: some weights (keys' biases) have no gradient but rounding."""
    return float(torch.cat([change.flatten() for change in changes]).norm())


@pytest.mark.parametrize("learners", [1, 2])
def test_remote_learners_train_as_the_local_one_does(build, learners):  # noqa: F811
    """Two learners halve every batch and average their gradients: the same step but for rounding."""
    overrides = (ONE_UPDATE_A_ROUND, "agent.policy_weight=0", *REMOTE)  # and some parameters get no gradient
    local, remote = build(*overrides), build(*overrides, f"resources.learners={learners}")
    begin = weights(local)[0]
    results = [train(algorithm, 2) for algorithm in (local, remote)]
    assert local.updates == remote.updates == 3
    (expected,) = weights(local)
    found = weights(remote)
    assert len(found) == learners
    for copy in found:
        assert copy.keys() == expected.keys()
        assert differences(copy, found[0]) == []  # learners never drift apart
        for part in (
            "networks.",
            "targets.",
            "adam.",
        ):
            names = [name for name in expected if name.startswith(part)]
            moved = distance([expected[name] - begin.get(name, 0.0) for name in names])
            assert moved > 0
            assert distance([copy[name] - expected[name] for name in names]) <= 1e-2 * moved, part
    figures = [result["learners"]["default_policy"] for result in results]
    for name in figures[0]:
        if name.startswith("loss/"):
            assert figures[1][name] == pytest.approx(figures[0][name], rel=1e-4), name


@pytest.mark.parametrize("learners", [1, 2])
def test_runners_and_learners_apart_resume_bit_equal(build, start, configure, tmp_path, learners):  # noqa: F811
    overrides = (*REMOTE, "rollout.users=5", "agent.encoder.dropout=0.2", f"resources.learners={learners}")
    overrides = (*overrides, "rollout.runners=1")
    algorithm = build(*overrides)
    train(algorithm, 2)
    assert algorithm.updates == int((algorithm.collected - 50) * 1.7 / 16)
    path = algorithm.save_to_path(tmp_path / "checkpoint")
    train(algorithm, 1)
    expected = weights(algorithm), algorithm.replay.state_dict()
    evaluated = algorithm.evaluate_validation()
    algorithm.stop()  # its CPUs are needed
    resumed = start(configure(*overrides))
    resumed.restore_from_path(path)
    train(resumed, 1)
    assert differences(list(expected), [weights(resumed), resumed.replay.state_dict()]) == []
    assert resumed.evaluate_validation() == evaluated
