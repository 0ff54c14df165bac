"""HSRL on RLlib: resuming bit-equal, in a catalogue that changes too, and remote runners."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from envs.errors import UserError
from rl_rec.hsrl.config import HSRLSettings
from rl_rec.train_settings import TrainSettings

pytestmark = pytest.mark.ray

BASE = {
    "steps": 10_000,
    "report_every": 100,
    "world": {"history_length": 4, "max_steps": 5},
    "rollout": {"users": 10, "fragment": 5},
    "replay": {"learning_starts": 50, "batch_size": 16, "capacity": 250},
    "evaluation": {"every": 200, "episodes": 16},
    "agent": {
        "sid_levels": 2,
        "sid_codebook": 4,
        "encoder": {"dim": 8, "heads": 2, "feedforward": 8},
        "item_hidden": 4,
        "critic_hidden": [8],
        "gamma": 0.9,
        "credit_unit": "slate",
    },
}


def config(simulator: Path, *overrides: str) -> Any:
    from rl_rec.hsrl.algorithm import HSRLConfig

    settings = TrainSettings[HSRLSettings].from_mapping(BASE).with_overrides(overrides)
    return HSRLConfig().recommender(str(simulator), settings)


def weights(algorithm: Any) -> dict[str, torch.Tensor]:
    state = algorithm.learner_group.get_weights()["default_policy"]
    return {name: torch.as_tensor(value) for name, value in state.items()}


@pytest.mark.parametrize("catalogue", [(), ("world.catalogue.withheld=0.3", "world.catalogue.churn=0.1")])
def test_a_resumed_run_ends_bit_equal(ray_session, simulator, tmp_path, catalogue):
    through = config(simulator, *catalogue).build_algo()
    try:
        through.train()
        path = through.save_to_path(tmp_path / "checkpoint")
        through.train()
        resumed = type(through).from_checkpoint(path)
        try:
            resumed.train()
            one, other = weights(through), weights(resumed)
            assert one.keys() == other.keys() and "sid_tokens" in one
            assert all(torch.equal(one[name], other[name]) for name in one)
        finally:
            resumed.stop()
    finally:
        through.stop()


def test_a_remote_runner_serves_the_learner_s_policy(ray_session, simulator):
    algorithm = config(simulator, "rollout.runners=1").build_algo()
    try:
        assert algorithm.train()["num_env_steps_sampled_lifetime"] >= 100
        result = algorithm.train()
        assert "evaluation" in result
    finally:
        algorithm.stop()


def saved_with_other_tokens(algorithm: Any) -> dict[str, Any]:
    """What a run would have saved that began with semantic IDs in another order."""
    state: dict[str, Any] = algorithm.get_module().get_state()
    tokens = torch.as_tensor(state["sid_tokens"]).clone()
    tokens[1:] = tokens[1:].flip(0)
    return {**state, "sid_tokens": tokens.numpy(), "sid_digest": np.array(1)}


def test_a_resumed_run_explores_in_the_tree_it_began_with(ray_session, simulator):
    """Also where this machine would have built another one."""
    algorithm = config(simulator).build_algo()
    try:
        state = algorithm.get_state()
        learned = saved_with_other_tokens(algorithm)
        algorithm.get_module().set_state(learned)
        before = algorithm.env_runner._policy.trie.path.clone()
        algorithm.set_state({name: part for name, part in state.items() if name != "learner_group"})
        after = algorithm.env_runner._policy.trie.path
        assert torch.equal(after, algorithm.get_module().trie.path) and not torch.equal(after, before)
    finally:
        algorithm.stop()


def test_a_runner_with_other_semantic_ids_is_refused(ray_session, simulator):
    algorithm = config(simulator).build_algo()
    try:
        spec = algorithm.config.get_multi_rl_module_spec(
            spaces=algorithm.env_runner.get_spaces(), inference_only=True
        )
        of_runner = spec.build()["default_policy"]
        state = algorithm.get_module().get_state(inference_only=True)
        assert "sid_tokens" not in state
        of_runner.set_state(state)
        with pytest.raises(UserError, match="rl-rec sids build"):
            of_runner.set_state({**state, "sid_digest": np.array(1)})
    finally:
        algorithm.stop()
