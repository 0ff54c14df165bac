"""The batched env runner: what RLlib asks of it, on one runner in this process."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from rl_rec.hac.config import HACSettings
from rl_rec.train_settings import TrainSettings

pytestmark = pytest.mark.ray  # no session, but the import

USERS, FRAGMENT, SLATE, HISTORY, ITEMS = 8, 3, 4, 5, 30


@pytest.fixture
def make_runner(small_world: Callable[..., Any]) -> Callable[..., Any]:
    """A maker of runners; settings as with ``--set``."""
    # Importing RLlib takes seconds: only here.
    from rl_rec.env_runner import BatchedEnvRunner
    from rl_rec.hac.algorithm import HACConfig

    def make(
        *overrides: str, worker_index: int = 0, users: int = 200, logits: list[float] | None = None
    ) -> Any:
        values = {
            "world": {"history_length": HISTORY, "max_steps": 6},
            "rollout": {"users": USERS, "fragment": FRAGMENT},
            "agent": {"encoder": {"dim": 8, "heads": 2, "feedforward": 8}, "critic_hidden": [8]},
        }
        settings = TrainSettings[HACSettings].from_mapping(values).with_overrides(overrides)
        config = HACConfig().recommender("", settings)
        rules = settings.world.model_dump(mode="json")
        config.env_config = {"world": small_world(users=users, logits=logits), "settings": rules}
        return BatchedEnvRunner(config=config, worker_index=worker_index)

    return make


def sample(runner: Any, **arguments: Any) -> dict[str, Any]:
    (columns,) = runner.sample(**arguments)
    return columns.columns


def peek(runner: Any) -> dict[str, Any]:
    """Figures since the last call, as plain numbers."""
    return {name: stats.peek() for name, stats in runner.get_metrics().items()}


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_a_runner_keeps_freed_memory(make_runner, monkeypatch):
    called = []
    monkeypatch.setattr("rl_rec.env_runner.keep_freed_memory", lambda: called.append(True))
    make_runner(worker_index=1)
    assert called


@pytest.mark.parametrize("worker_index, kind", [(0, torch.Tensor), (1, np.ndarray)])
def test_sample_returns_columns_of_transitions(make_runner, worker_index, kind):
    (batch,) = make_runner(worker_index=worker_index).sample()
    rows = USERS * FRAGMENT
    assert batch.env_steps() == batch.agent_steps() == rows
    assert {name: tuple(column.shape) for name, column in batch.columns.items()} == {
        "user": (rows,),
        "history": (rows, HISTORY),
        "slate": (rows, SLATE),
        "click": (rows, SLATE),
        "reward": (rows,),
        "terminated": (rows,),
        "next_history": (rows, HISTORY),
    }
    assert all(isinstance(column, kind) for column in batch.columns.values())
    tensors = batch.tensors("cpu")
    assert all(isinstance(column, torch.Tensor) for column in tensors.values())
    assert tensors["click"].dtype == tensors["terminated"].dtype == torch.bool
    assert tensors["slate"].min() >= 1 and tensors["slate"].max() <= ITEMS


def test_columns_hold_what_the_agent_and_the_world_add(make_runner):
    columns = sample(
        make_runner("agent.critic_action=hyper", "agent.policy_action=hyper", "world.candidates=12")
    )
    assert columns["hyper_action"].shape == (USERS * FRAGMENT, 8)
    assert columns["candidates"].shape == (USERS * FRAGMENT, 12)


def test_the_number_of_steps_can_be_chosen(make_runner):
    assert len(sample(make_runner(), steps=7)["user"]) == 7 * USERS


def test_all_finished_users_are_counted(make_runner):
    """Nobody clicks: patience 20 falls by 5.4 a step, so every user leaves at step 4 with 4·(−0.1)."""
    runner = make_runner(logits=[-100.0] * ITEMS)
    columns = sample(runner, steps=12)
    figures = peek(runner)
    assert figures["num_episodes"] == 3 * USERS == columns["terminated"].sum()
    assert figures["episode_return_mean"] == pytest.approx(-0.4)
    assert figures["episode_return_std"] == pytest.approx(0.0, abs=1e-6)
    assert figures["episode_len_mean"] == 4
    assert figures["click_rate"] == 0
    assert figures["num_env_steps_sampled"] == 12 * USERS
    assert peek(runner)["num_episodes"] == 0, "each user is counted once"


def test_a_truncated_user_did_not_leave(make_runner):
    """Everybody clicks everything: patience would last for 20 steps, the episode ends after 6."""
    runner = make_runner(logits=[100.0] * ITEMS)
    columns = sample(runner, steps=12)
    assert peek(runner)["num_episodes"] == 2 * USERS
    assert not columns["terminated"].any()


def test_the_next_history_of_a_finished_user_is_their_own(make_runner):
    runner = make_runner(logits=[-100.0] * 15 + [100.0] * 15)
    columns = {name: column.unflatten(0, (-1, USERS)) for name, column in sample(runner, steps=24).items()}
    for step in range(24):
        for slot in range(USERS):
            row = {name: column[step, slot] for name, column in columns.items()}
            clicked = row["slate"][row["click"]]
            assert torch.equal(row["next_history"], torch.cat([row["history"], clicked])[-HISTORY:])
    replaced = columns["user"][1:] != columns["user"][:-1]
    goes_on = columns["history"][1:].eq(columns["next_history"][:-1]).all(dim=2)
    assert replaced.sum() > USERS and goes_on[~replaced].float().mean() > 0.9  # the same user can come twice


def test_a_seed_and_a_worker_have_their_own_users_and_draws(make_runner):
    first = sample(make_runner("seed=1", worker_index=1))
    assert same(first, sample(make_runner("seed=1", worker_index=1)))
    for other in (
        make_runner("seed=1", worker_index=2),
        make_runner("seed=1"),
        make_runner("seed=2", worker_index=1),
    ):
        columns = {name: np.asarray(column) for name, column in sample(other).items()}
        for name in ("user", "slate", "click"):
            assert not np.array_equal(first[name], columns[name])


def test_workers_explore_on_their_own(make_runner):
    """One user, always the same state: what differs is the exploration."""
    alike = ("world.start_history=empty", "rollout.fragment=1")
    slates = [sample(make_runner(*alike, worker_index=i, users=1))["slate"] for i in (1, 1, 2)]
    assert np.array_equal(slates[0], slates[1]) and not np.array_equal(slates[0], slates[2])


def test_every_process_begins_with_the_same_weights(make_runner):
    states = [make_runner(worker_index=i).module["default_policy"].state_dict() for i in (0, 1, 2)]
    assert all(torch.equal(states[0][name], other[name]) for other in states for name in other)
    other = make_runner("seed=1").module["default_policy"].state_dict()
    assert not torch.equal(states[0]["networks.hyper_actor.weight"], other["networks.hyper_actor.weight"])


def test_rollouts_carry_neither_critic_nor_targets(make_runner):
    names = list(make_runner().module["default_policy"].state_dict())
    assert names and not [name for name in names if "critic" in name or name.startswith("targets")]


def test_exploration_parameters_reach_the_policy(make_runner):
    topk = ("agent.exploration.effect=topk", "agent.critic_action=hyper", "agent.policy_action=hyper")
    calm, wild = make_runner(*topk), make_runner(*topk)
    a, b = sample(calm, sigma=0.0), sample(wild, sigma=5.0)
    assert (a["hyper_action"] - b["hyper_action"])[:USERS].std() > 1
    still = make_runner(*topk, "agent.exploration.sigma=0.0")
    assert same(a, sample(still))


@pytest.mark.parametrize("worker_index", [0, 1])
def test_state_restores_users_weights_and_generators(make_runner, worker_index):
    runner = make_runner(worker_index=worker_index)
    sample(runner)
    state = runner.get_state()
    later = make_runner("seed=5", worker_index=worker_index)
    later.set_state(state)
    assert same(sample(runner), sample(later))
    assert peek(runner)["num_episodes"] == peek(later)["num_episodes"]


def test_state_leaves_the_weights_out_where_asked(make_runner):
    runner = make_runner()
    assert "rl_module" in runner.get_state()
    assert "rl_module" not in runner.get_state(not_components="rl_module")


def test_older_weights_do_not_replace_newer_ones(make_runner):
    runner, other = make_runner(worker_index=1), make_runner("seed=3", worker_index=1)
    name = "networks.hyper_actor.weight"

    def weight(of: Any) -> torch.Tensor:
        return of.module["default_policy"].state_dict()[name].clone()

    mine, theirs = runner.get_state()["rl_module"], other.get_state()["rl_module"]
    runner.set_state({"rl_module": theirs, "weights_seq_no": 5})
    assert torch.equal(weight(runner), weight(other))
    runner.set_state({"rl_module": mine, "weights_seq_no": 4})
    assert torch.equal(weight(runner), weight(other))


def test_new_weights_change_the_slates(make_runner):
    runner = make_runner("agent.exploration.effect=topk", "agent.exploration.sigma=0.0")
    other = make_runner("agent.exploration.effect=topk", "agent.exploration.sigma=0.0")
    assert same(sample(runner), sample(other))
    with torch.no_grad():
        for parameter in other.module["default_policy"].parameters():
            parameter.neg_()
    slates = [sample(r)["slate"][:USERS] for r in (runner, other)]
    assert not torch.equal(*slates)


def test_spaces_are_the_facades(make_runner):
    from envs.observations import action_space

    runner = make_runner()
    observation, action = runner.get_spaces()["default_policy"]
    assert action == action_space(runner.rollout.simulator.world)
    row = sample(runner)
    assert observation.contains(row["history"][0].numpy().astype(np.int64))
    assert action.contains(row["slate"][0].numpy().astype(np.int64) - 1)


def test_it_is_healthy_once_it_can_sample(make_runner):
    make_runner().assert_healthy()


def test_a_restarted_runner_takes_weights_from_another_but_keeps_its_own_users_and_draws(make_runner):
    local, first, second = (make_runner(worker_index=index) for index in (0, 1, 2))
    before = {index: runner.get_state()["rollout"]["simulator"] for index, runner in ((1, first), (2, second))}
    with torch.no_grad():
        for parameter in local.module["default_policy"].parameters():
            parameter.add_(1.0)
    state = local.get_state()
    for runner in (first, second):
        runner.set_state(state)
        served, sent = (r.module["default_policy"].state_dict() for r in (runner, local))
        assert all(torch.equal(served[name], sent[name]) for name in served)
    assert torch.equal(first.get_state()["rollout"]["simulator"]["user"], before[1]["user"])
    assert torch.equal(second.get_state()["rollout"]["simulator"]["responses"], before[2]["responses"])
    assert not same(sample(first), sample(second))

    again = make_runner(worker_index=1)  # from a checkpoint it takes over everything
    again.set_state(first.get_state())
    assert same(sample(again), sample(first))
