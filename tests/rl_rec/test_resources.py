"""What a run reserves, counted by hand, and whether nodes hold it."""

import pytest

from envs.errors import UserError
from rl_rec.agents import find_agent
from rl_rec.resources import Processes, arithmetic, left_over, total


def settings(*assignments: str):
    return find_agent("hac").train_settings().with_overrides(assignments)


@pytest.mark.parametrize(
    ("assignments", "cpus", "gpus"),
    [
        ((), 1, 0),
        (("device=cuda",), 1, 1),
        (("device=cuda", "resources.gpus=0.25"), 1, 0.25),
        (("rollout.runners=8",), 9, 0),
        (("device=cuda", "rollout.runners=8", "resources.runner_cpus=2", "resources.cpus=3"), 19, 1),
        # The replay's process has no GPU where others learn.
        (("device=cuda", "rollout.runners=8", "resources.runner_gpus=0.25", "resources.learners=2"), 11, 4),
        (("rollout.runners=2", "resources.learners=2", "resources.learner_cpus=0.5"), 4, 0),
    ],
)
def test_the_sum_of_a_layout(assignments, cpus, gpus):
    assert total(settings(*assignments).reservation) == (cpus, gpus)


def test_the_replay_is_on_the_cpu_where_remote_learners_have_the_gpus():
    assert settings("device=cuda").main_device == "cuda"
    assert settings("device=cuda", "resources.learners=1").main_device == "cpu"


@pytest.mark.parametrize(
    ("assignments", "problem"),
    [
        (("rollout.runners=2", "resources.runner_gpus=0.5"), "resources.runner_gpus=0.5 needs device=cuda"),
        (("device=cuda", "resources.runner_gpus=0.5"), "needs rollout.runners >= 1"),
        (("rollout.mode=async",), "rollout.mode=async needs rollout.runners >= 1"),
        (("rollout.sync_every=5",), "rollout.sync_every=5 needs rollout.runners >= 1"),
        (("resources.learners=3",), "replay.batch_size=64 must be a multiple of resources.learners=3"),
        (("device=cuda:1",), "say cuda, and CUDA_VISIBLE_DEVICES says which"),
        (("device=tpu",), "use cpu or cuda, got 'tpu'"),
    ],
)
def test_layouts_that_contradict_themselves(assignments, problem):
    with pytest.raises(UserError, match=problem):
        settings(*assignments)


def test_the_arithmetic_is_spelt_out():
    asked = [Processes("learner", 1, 1, 0.5), Processes("env runners", 8, 2)]
    assert arithmetic(asked) == "17 CPU and 0.5 GPU (1 learner × 1 CPU + 0.5 GPU, 8 env runners × 2 CPU)"


def test_every_process_needs_its_share_of_one_node():
    runners = Processes("env runners", 3, 2)
    assert left_over([runners], [(6, 0)]) is None
    assert left_over([runners], [(4, 0), (2, 0)]) is None
    # Six CPUs, but in halves that hold one runner each.
    assert left_over([runners], [(3, 0), (3, 0)]) == Processes("env runners", 1, 2)
    assert left_over([Processes("learner", 1, 1, 1)], [(8, 0)]) == Processes("learner", 1, 1, 1)


def test_what_needs_a_gpu_is_placed_first():
    # The runners would fill the node with the GPU, were they first.
    asked = [Processes("env runners", 4, 1), Processes("learner", 1, 1, 1)]
    assert left_over(asked, [(4, 1), (1, 0)]) is None


def test_thirds_of_a_gpu():
    assert left_over([Processes("trials", 3, 1, 1 / 3)], [(3, 1)]) is None
