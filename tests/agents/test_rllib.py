"""Every algorithm on RLlib: trained, saved, and resumed bit-equal."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rl_rec.agents import AGENTS, find_agent

pytestmark = pytest.mark.ray

OTHERS = sorted(set(AGENTS) - {"hac", "hsrl"})
"""Those whose own folders do not test this."""


@pytest.fixture
def configure(ray_session: None, simulator: Path, small_run: list[str]) -> Callable[..., Any]:
    """A maker of small configurations: ``configure("td3", "seed=3", ...)``, as with ``--set``."""

    def make(name: str, *overrides: str) -> Any:
        agent = find_agent(name)
        settings = agent.train_settings(steps=10_000).with_overrides([*small_run, *overrides])
        return agent.rllib_config().recommender(str(simulator), settings)

    return make


def weights(algorithm: Any) -> dict[str, torch.Tensor]:
    state = algorithm.learner_group.get_weights()["default_policy"]
    return {name: torch.as_tensor(value).clone() for name, value in state.items()}


@pytest.mark.parametrize("name", OTHERS)
def test_a_resumed_run_ends_bit_equal(configure, tmp_path, name):
    through = configure(name).build_algo()
    try:
        before = weights(through)
        through.train()
        path = through.save_to_path(tmp_path / "checkpoint")
        result = through.train()
        assert result["evaluation"]["episodes"] == 16
        resumed = type(through).from_checkpoint(path)
        try:
            resumed.train()
            one, other = weights(through), weights(resumed)
            assert one.keys() == other.keys() == before.keys()
            assert all(torch.equal(one[key], other[key]) for key in one)
            assert any(not torch.equal(one[key], before[key]) for key in one)
        finally:
            resumed.stop()
    finally:
        through.stop()


@pytest.mark.parametrize("name", ["supervised-offline", "td3", "slateq", "wolpertinger", "ddpg-ra"])
def test_remote_runners(configure, name):
    algorithm = configure(name, "rollout.runners=1").build_algo()
    try:
        algorithm.train()
        assert algorithm.train()["num_env_steps_sampled_lifetime"] >= 200
    finally:
        algorithm.stop()


def test_learning_from_logs_meets_each_logged_slate_in_turn(configure, simulator):
    from envs import world_folder
    from envs.data.dataset import Split

    algorithm = configure("supervised-offline", "replay.capacity=1000").build_algo()
    try:
        dataset = world_folder.load(simulator).dataset
        logged = dataset.sessions_in(Split.TRAIN)
        while algorithm.collected < len(logged):
            algorithm.train()
        rows = algorithm.replay.columns["slate"][: len(logged)]
        seen = sorted(map(tuple, rows.tolist()))
        assert seen == sorted(map(tuple, dataset.session_items[logged].tolist()))
    finally:
        algorithm.stop()


def test_policy_and_targets_of_td3_wait_for_the_critics(configure):
    """One update in three moves more than the critics; also after resuming in between."""
    from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch

    algorithm = configure("td3", "agent.policy_delay=3").build_algo()
    try:
        learner = algorithm.learner_group._learner
        algorithm.train()  # fills the replay
        start = learner._updates
        moved = []
        for update in range(6):
            before = weights(algorithm)
            if update == 2:
                state = learner.get_state()
                learner._updates = 0
                learner.set_state(state)
            rows = algorithm.replay.sample(16)
            batch = MultiAgentBatch({"default_policy": SampleBatch(rows)}, env_steps=16)
            algorithm.learner_group.update(batch=batch, minibatch_size=16)
            after = weights(algorithm)
            moved.append(
                {key.split(".")[1] for key in after if not torch.equal(before[key], after[key])}
                | {key.split(".")[0] for key in after if not torch.equal(before[key], after[key])}
            )
        for update, parts in enumerate(moved):
            with_policy = (start + update + 1) % 3 == 0
            assert "critic" in parts
            assert ("hyper_actor" in parts) == ("targets" in parts) == with_policy
    finally:
        algorithm.stop()
