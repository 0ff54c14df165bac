"""HAC on RLlib: the replay ratio, determinism, resuming, dead runners and NaN."""

import copy
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rl_rec.algorithm as algorithm_module
from envs import world_folder
from envs.data.dataset import Split
from rl_rec.hac.config import HACSettings
from rl_rec.hac.losses import predict
from rl_rec.train_settings import TrainSettings
from rl_rec.transitions import Transitions

pytestmark = pytest.mark.ray

BASE = {
    "steps": 10_000,
    "report_every": 100,
    "world": {"history_length": 4, "max_steps": 5},
    "rollout": {"users": 10, "fragment": 5},
    "replay": {"learning_starts": 50, "batch_size": 16, "capacity": 250, "ratio": 1.7},
    "evaluation": {"every": 0, "episodes": 16},
    "agent": {
        "encoder": {"dim": 8, "heads": 2, "feedforward": 8},
        "item_hidden": 4,
        "critic_hidden": [8],
    },
}


@pytest.fixture
def configure(ray_session: None, simulator: Path) -> Callable[..., Any]:
    """A maker of small configurations: ``configure("seed=3", ...)``, as with ``--set``."""

    def make(*overrides: str) -> Any:
        from rl_rec.hac.algorithm import HACConfig

        settings = TrainSettings[HACSettings].from_mapping(BASE).with_overrides(overrides)
        return HACConfig().recommender(str(simulator), settings)

    return make


@pytest.fixture
def start() -> Iterator[Callable[[Any], Any]]:
    """Builds a configuration's algorithm and stops it in the end; remote ones sooner: there are two CPUs."""
    made: list[Any] = []

    def make(config: Any) -> Any:
        made.append(config.build_algo())
        return made[-1]

    yield make
    for algorithm in made:
        algorithm.stop()


@pytest.fixture
def build(configure: Callable[..., Any], start: Callable[[Any], Any]) -> Callable[..., Any]:
    """``configure`` and ``start``."""
    return lambda *overrides: start(configure(*overrides))


def train(algorithm: Any, iterations: int) -> Any:
    """The last result."""
    return [algorithm.train() for _ in range(iterations)][-1]


def learner(algorithm: Any) -> Any:
    return algorithm.learner_group._learner


def module(algorithm: Any) -> Any:
    from ray.rllib.core import DEFAULT_MODULE_ID

    return learner(algorithm).module[DEFAULT_MODULE_ID].unwrapped()


def weights(algorithm: Any) -> dict[str, torch.Tensor]:
    """Networks and targets, as copies."""
    return {name: value.clone() for name, value in module(algorithm).state_dict().items()}


def differences(a: Any, b: Any, path: str = "") -> list[str]:
    """Where two trees of tensors, arrays and numbers are not equal to the bit."""
    if isinstance(a, dict):
        if a.keys() != b.keys():
            return [f"{path}: {sorted(map(str, a))} and {sorted(map(str, b))}"]
        return [line for key in a for line in differences(a[key], b[key], f"{path}/{key}")]
    if isinstance(a, list | tuple) and len(a) == len(b):
        pairs = enumerate(zip(a, b, strict=True))
        return [line for i, (x, y) in pairs for line in differences(x, y, f"{path}/{i}")]
    if isinstance(a, torch.Tensor | np.ndarray):
        return [] if np.array_equal(np.asarray(a), np.asarray(b)) else [path]
    return [] if a == b else [path]


def all_state(algorithm: Any) -> dict[str, Any]:
    """Everything that decides how training goes on, as a copy."""
    from ray.rllib.core import DEFAULT_MODULE_ID

    optimizers = {
        name: optimizer.state_dict()["state"]
        for name, optimizer in learner(algorithm).get_optimizers_for_module(DEFAULT_MODULE_ID)
    }
    state = algorithm.get_state()["off_policy"]
    for runner in state["runners"].values():
        del runner["weights_seq_no"]  # counts messages between actors
    return copy.deepcopy(
        {
            "weights": weights(algorithm),
            "optimizers": optimizers,
            "dropout": learner(algorithm)._noise.get_state(),
            "iteration": algorithm.iteration,
            **state,
        }
    )


def adam_steps(algorithm: Any) -> set[int]:
    """How many steps the optimizers really made."""
    states = (optimizer.state.values() for optimizer in learner(algorithm)._optimizer_parameters)
    return {int(state["step"]) for group in states for state in group}


# --- in one process -----------------------------------------------------------------------------------


def test_two_iterations_collect_learn_and_report(build):
    algorithm = build()
    before = weights(algorithm)
    algorithm.train()
    result = algorithm.train()

    assert algorithm.collected == result["num_env_steps_sampled_lifetime"] == 200
    runners = result["env_runners"]
    assert runners["num_episodes"] > 0
    assert 1 <= runners["episode_len_mean"] <= 5
    assert -0.5 <= runners["episode_return_mean"] <= 5
    assert 0 <= runners["click_rate"] <= 1
    assert 4 <= runners["distinct_items"] <= 30
    figures = result["learners"]["default_policy"]
    names = {"loss/td", "loss/policy", "loss/alignment", "loss/supervision", "q_mean", "target_mean"}
    assert names <= figures.keys()
    assert all(np.isfinite(figures[name]) for name in names)
    assert result["user_steps_per_s"] > 0

    # Everything trainable was trained, and every target followed.
    same = [name for name, value in weights(algorithm).items() if torch.equal(value, before[name])]
    assert same == []


def test_user_steps_are_what_was_stored_also_where_a_dead_runner_took_its_figures_along(build, monkeypatch):
    algorithm = build()
    with monkeypatch.context() as patched:
        patched.setattr(algorithm.env_runner, "get_metrics", lambda: {})
        algorithm.train()
    algorithm.env_runner.metrics.reduce()  # lost
    assert algorithm.train()["num_env_steps_sampled_lifetime"] == algorithm.collected == 200


def test_every_trainable_parameter_is_in_exactly_one_optimizer(build):
    algorithm = build("agent.scorer=hyper_network")
    held = [p for o in learner(algorithm)._optimizer_parameters for g in o.param_groups for p in g["params"]]
    assert len(held) == len({id(p) for p in held})
    trainable = {id(p) for p in module(algorithm).parameters() if p.requires_grad}
    assert {id(p) for p in held} == trainable == {id(p) for p in module(algorithm).networks.parameters()}


def test_targets_follow_slowly(build):
    algorithm = build("agent.tau=0.25", "replay.ratio=0.32", "agent.actor_lr=0.01")  # one update in 100
    before = weights(algorithm)
    algorithm.train()
    assert algorithm.updates == 1
    after = weights(algorithm)
    for name in (name for name in before if name.startswith("targets.")):
        learned = after[name.replace("targets.", "networks.")]
        torch.testing.assert_close(after[name], 0.75 * before[name] + 0.25 * learned)


@pytest.mark.parametrize("ratio", [0.3, 1.7, 4.0])
def test_the_replay_ratio_is_exact(build, ratio):
    algorithm = build(f"replay.ratio={ratio}")
    for _ in range(3):
        algorithm.train()
        collected = algorithm.collected
        assert algorithm.updates == int((collected - 50) * ratio / 16)
        assert adam_steps(algorithm) == {algorithm.updates} - {0}
    assert algorithm.replay.added == collected == 300


def test_nothing_is_learned_before_learning_starts(build):
    algorithm = build("replay.learning_starts=200")
    before = weights(algorithm)
    train(algorithm, 2)
    assert algorithm.updates == 0 and differences(before, weights(algorithm)) == []


def test_one_seed_one_run(build):
    runs = [build(f"seed={seed}", "agent.encoder.dropout=0.2") for seed in (1, 1, 2)]
    begin = [weights(run) for run in runs]
    for run in runs:
        train(run, 3)
    first, again, other = (all_state(run) for run in runs)
    assert differences(first, again) == []
    assert differences(begin[0], begin[2]) and differences(first["weights"], other["weights"])
    rewards = [state["replay"]["columns"]["reward"] for state in (first, other)]
    assert not torch.equal(rewards[0], rewards[1])


def test_exploration_follows_its_schedule(build):
    sigma = ("agent.exploration.sigma=1.0", "agent.exploration.sigma_final=0.0")
    algorithm = build(*sigma, "agent.exploration.sigma_steps=200")
    seen = []
    for _ in range(3):
        algorithm.train()
        seen.append(algorithm.env_runner._policy.sigma)  # of the iteration's second fragment of 50
    assert seen == [0.75, 0.25, 0.0]


def test_dropout_is_on_in_training_and_off_in_rollouts(build):
    runs = [build(f"agent.encoder.dropout={rate}", "replay.learning_starts=100") for rate in (0.0, 0.5)]
    columns = []
    for run in runs:
        run.train()  # collects, learns nothing
        columns.append({name: column[:100].clone() for name, column in run.replay.columns.items()})
        run.train()
    assert differences(*columns) == []
    assert differences(*(weights(run) for run in runs))


@pytest.mark.parametrize("way", ["from_checkpoint", "restore_from_path"])
@pytest.mark.parametrize(
    ("dropout", "world"), [(0.0, ()), (0.2, ("world.catalogue.withheld=0.3", "world.catalogue.churn=0.1"))]
)
def test_a_resumed_run_is_the_run_never_stopped(build, configure, tmp_path, way, dropout, world):
    overrides = (
        *world,
        f"agent.encoder.dropout={dropout}",
        "agent.exploration.sigma=1.0",
        "agent.exploration.sigma_final=0.1",
        "agent.exploration.sigma_steps=400",
    )
    through = build(*overrides)
    train(through, 2)
    path = through.save_to_path(tmp_path / "checkpoint")
    saved = all_state(through)
    train(through, 3)  # past the replay's capacity, and the schedule's end

    if way == "from_checkpoint":
        resumed = type(through).from_checkpoint(path)
    else:
        resumed = configure(*overrides, "seed=9").build_algo()  # every number of its own is replaced
        resumed.restore_from_path(path)
    try:
        assert differences(saved, all_state(resumed)) == []
        result = train(resumed, 3)
        assert differences(all_state(through), all_state(resumed)) == []
        assert result["training_iteration"] == 5
    finally:
        resumed.stop()


def test_losses_and_rollouts_know_the_live_items(build):
    catalogue = {"rule": "newest", "withheld": 0.7, "churn": 0.12}  # 9 of 30 items, one or two new ones a step
    algorithm = build(*(f"world.catalogue.{name}={value}" for name, value in catalogue.items()))
    result = train(algorithm, 2)
    assert "new_item_share" in algorithm.evaluate_validation() and np.isfinite(
        result["learners"]["default_policy"]["loss/td"]
    )
    columns = {name: column[: algorithm.collected] for name, column in algorithm.replay.columns.items()}
    assert columns["clock"].tolist() == [step for step in range(20) for _ in range(10)]
    schedule = module(algorithm).catalogue
    for clock, slate in zip(columns["clock"].tolist(), columns["slate"], strict=True):
        assert schedule.live_at(clock)[slate.long()].all()

    batch = {name: column[-64:] for name, column in columns.items()}
    own = module(algorithm)
    targets = [
        predict(
            own.networks,
            own.targets,
            Transitions(**batch),
            own.world_view._replace(catalogue=known),
            own.settings,
        ).target
        for known in (schedule, None)
    ]
    used = own.predict(Transitions(**batch)).target
    assert torch.equal(used, targets[0]) and not torch.equal(used, targets[1])


def test_nan_in_the_data_stops_the_run_and_names_the_loss(build):
    from rl_rec.learner import NonFiniteLossError

    algorithm = build()
    algorithm.train()
    algorithm.replay.columns["reward"].fill_(float("nan"))
    with pytest.raises(NonFiniteLossError, match=r"loss/td.* became NaN or infinite; lower the learning rates"):
        algorithm.train()


def test_a_step_size_without_bounds_stops_the_run(build):
    from rl_rec.learner import NonFiniteLossError

    algorithm = build("agent.actor_lr=1e30")
    with pytest.raises(NonFiniteLossError, match="loss/supervision"):
        train(algorithm, 3)


# --- evaluation while training ------------------------------------------------------------------------


def test_evaluation_is_due_by_user_steps(build):
    algorithm = build("evaluation.every=200")
    due = ["evaluation" in algorithm.train() for _ in range(4)]
    assert due == [False, True, False, True]


def test_evaluation_is_greedy_repeatable_and_leaves_training_alone(build):
    calm, wild = build(), build("agent.exploration.sigma=50.0", "agent.exploration.temperature=50.0")
    before = all_state(wild)
    figures = [algorithm.evaluate_validation() for algorithm in (calm, wild, wild)]
    assert figures[0] == figures[1] == figures[2]
    assert figures[0]["episodes"] == 16
    assert differences(before, all_state(wild)) == []


def test_evaluation_serves_other_users_than_training(build, simulator, monkeypatch):
    served: list[Any] = []
    real = algorithm_module.evaluate

    def watch(world: Any, *rest: Any) -> Any:
        served.append(real(world, *rest))
        return served[-1]

    monkeypatch.setattr(algorithm_module, "evaluate", watch)
    algorithm = build()
    train(algorithm, 2)
    algorithm.evaluate_validation()
    split = world_folder.load(simulator).dataset.user_split
    assert set(split[served[0].users.numpy()]) == {int(Split.VALIDATION)}
    trained = algorithm.replay.columns["user"][: algorithm.collected]
    assert set(split[trained.numpy()]) == {int(Split.TRAIN)}


# --- remote runners -----------------------------------------------------------------------------------


def test_two_runners_in_step(build, tmp_path):
    algorithm = build("rollout.runners=2", "rollout.users=5")
    for _ in range(2):
        algorithm.train()
        assert algorithm.updates == int((algorithm.collected - 50) * 1.7 / 16)
        assert adam_steps(algorithm) == {algorithm.updates}
    assert algorithm.collected == algorithm.replay.added == 200

    group = algorithm.env_runner_group
    learned = weights(algorithm)

    def in_runner(runner: Any) -> dict[str, torch.Tensor]:
        return dict(runner.module["default_policy"].state_dict())

    for served in group.foreach_env_runner(in_runner, local_env_runner=False):
        assert not [name for name in served if "critic" in name or name.startswith("targets")]
        assert differences({name: learned[name] for name in served}, served) == []
        actor = [name for name in learned if name.startswith("networks.") and "critic" not in name]
        assert served.keys() == set(actor)

    # Runners have users and draws of their own.
    columns = algorithm.replay.columns
    assert not torch.equal(columns["reward"][:25], columns["reward"][25:50])

    before = all_state(algorithm)
    path = algorithm.save_to_path(tmp_path / "checkpoint")
    algorithm.stop()  # its CPUs are needed
    resumed = type(algorithm).from_checkpoint(path)
    try:
        assert differences(before, all_state(resumed)) == []
        resumed.train()
        assert resumed.collected == 300
        learned = weights(resumed)
        for served in resumed.env_runner_group.foreach_env_runner(in_runner, local_env_runner=False):
            assert differences({name: learned[name] for name in served}, served) == []
    finally:
        resumed.stop()


def test_two_runners_out_of_step_keep_the_ratio(build):
    algorithm = build("rollout.runners=2", "rollout.users=5", "rollout.mode=async")
    for target in (100, 200, 300):
        algorithm.train()
        assert algorithm.collected >= target
        assert algorithm.updates == int((algorithm.collected - 50) * 1.7 / 16)
        assert adam_steps(algorithm) == {algorithm.updates}
        assert algorithm.replay.added == algorithm.collected


@pytest.mark.parametrize("more", ["rollout.mode=sync", "rollout.mode=async", "rollout.sync_every=20"])
def test_a_run_that_asked_ahead_resumes_with_what_was_on_its_way(build, start, configure, tmp_path, more):
    """One runner, so that ``async`` has one order as well; weights are a round older."""
    overrides = ("rollout.runners=1", "rollout.in_flight=2", more, "resources.cpus=0.5")
    algorithm = build(*overrides)
    result = train(algorithm, 2)
    assert result["staleness_updates"] > 2 and result["time/sample_latency_s"] > result["time/sample_s"] > 0
    assert result["env_runners"]["num_episodes"] > 0
    path = algorithm.save_to_path(tmp_path / "checkpoint")
    saved = all_state(algorithm)
    kept = [len(batches) for batches in saved["fragments"]]
    assert kept in ([[1], [2]] if more.endswith("async") else [[1], [1, 1]])
    train(algorithm, 2)
    expected = all_state(algorithm)
    algorithm.restore_from_path(path)  # its runners have newer weights, and were asked for more
    _assert_goes_on(algorithm, saved, expected)
    algorithm.stop()  # its CPUs are needed
    resumed = start(configure(*overrides))
    resumed.restore_from_path(path)
    _assert_goes_on(resumed, saved, expected)
    assert resumed.updates == int((resumed.collected - 50) * 1.7 / 16)


def _assert_goes_on(algorithm, saved, expected):
    assert differences(saved, all_state(algorithm)) == []
    train(algorithm, 2)
    assert differences(expected, all_state(algorithm)) == []


def test_runners_hold_what_they_start_anew_from(start, configure, capfd):
    """Ray's native code complains on the terminal where it lies in the object store, which may lose it."""
    start(configure("rollout.runners=1", "resources.cpus=0.5"))
    assert "constructor arguments" not in capfd.readouterr().err


@pytest.mark.slow
def test_a_killed_runner_comes_back(start, configure):
    config = configure("rollout.runners=2", "rollout.users=5")
    config.fault_tolerance(env_runner_health_probe_timeout_s=2, delay_between_env_runner_restarts_s=1)
    algorithm = start(config)
    algorithm.train()
    group = algorithm.env_runner_group
    pids = group.foreach_env_runner(lambda runner: os.getpid(), local_env_runner=False)
    os.kill(pids[0], signal.SIGKILL)
    deadline = time.monotonic() + 60
    trained = algorithm.collected
    while time.monotonic() < deadline:
        algorithm.train()
        assert algorithm.collected > trained
        trained = algorithm.collected
        assert algorithm.updates == int((algorithm.collected - 50) * 1.7 / 16)
        if group.num_healthy_remote_workers() == 2:
            break
    now = group.foreach_env_runner(lambda runner: os.getpid(), local_env_runner=False)
    assert len(now) == 2 and pids[0] not in now and pids[1] in now
    algorithm.train()
    learned = weights(algorithm)
    for served in group.foreach_env_runner(
        lambda runner: dict(runner.module["default_policy"].state_dict()), local_env_runner=False
    ):
        assert differences({name: learned[name] for name in served}, served) == []


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_runner_that_hangs_is_started_anew(start, configure, mode):
    algorithm = start(
        configure("rollout.runners=2", "rollout.users=5", f"rollout.mode={mode}", "rollout.timeout_s=5")
    )
    algorithm.train()
    group = algorithm.env_runner_group
    pids = dict(
        group.foreach_env_runner(lambda runner: (runner.worker_index, os.getpid()), local_env_runner=False)
    )
    os.kill(pids[1], signal.SIGSTOP)
    deadline, noticed = time.monotonic() + 120, False
    while not (noticed and group.num_healthy_remote_workers() == 2):
        assert time.monotonic() < deadline
        algorithm.train()
        noticed = noticed or group.healthy_worker_ids() == [2]
        assert algorithm.updates == int((algorithm.collected - 50) * 1.7 / 16)
    now = dict(
        group.foreach_env_runner(lambda runner: (runner.worker_index, os.getpid()), local_env_runner=False)
    )
    assert now.keys() == {1, 2} and now[1] != pids[1] and now[2] == pids[2]
    os.kill(now[2], signal.SIGSTOP)
    algorithm.stop()  # waits for nobody
    assert time.monotonic() < deadline


def test_without_runners_a_run_ends_with_what_to_look_at(build, monkeypatch):
    algorithm = build("rollout.runners=1", "rollout.users=5")
    monkeypatch.setattr(algorithm_module, "_WITHOUT_RUNNERS_S", 0.1)
    monkeypatch.setattr(algorithm, "restore_env_runners", lambda group: time.sleep(0.1))
    algorithm.env_runner_group._worker_manager.set_actor_state(1, healthy=False)
    with pytest.raises(algorithm_module.RunnersLostError, match="has the cluster room for them"):
        algorithm.train()


@pytest.mark.slow
def test_tune_keeps_the_last_checkpoint_before_nan(configure, tmp_path):
    from ray.tune import CheckpointConfig, RunConfig, Tuner

    from rl_rec.hac.algorithm import HAC

    # The first iteration learns nothing, the second one destroys the weights.
    config = configure("agent.actor_lr=1e30", "replay.learning_starts=100")
    checkpoints = CheckpointConfig(checkpoint_frequency=1, checkpoint_at_end=True)
    run = RunConfig(
        "nan", str(tmp_path), stop={"training_iteration": 4}, checkpoint_config=checkpoints, verbose=0
    )
    result = Tuner(HAC, param_space=config, run_config=run).fit()[0]
    assert "NonFiniteLossError" in str(result.error)
    assert len(list(Path(result.path).glob("checkpoint_*"))) == 1
    kept = HAC.from_checkpoint(result.checkpoint.path)
    assert kept.iteration == 1
    assert all(value.isfinite().all() for value in weights(kept).values())
    kept.stop()


def test_weights_broken_by_the_last_update_are_noticed(build):
    """The losses of a stride look at the weights before its last update."""
    from rl_rec.learner import NonFiniteLossError

    algorithm = build()
    train(algorithm, 2)
    module = learner(algorithm)
    module._sums, module._count = {"loss/td": torch.tensor(0.5)}, 1
    with torch.no_grad():
        module._weights[0].fill_(float("nan"))
    with pytest.raises(NonFiniteLossError, match="the weights became NaN"):
        module.drain_figures()


@pytest.mark.parametrize("lr_final", ["0", "1"])
def test_settings_win_over_what_a_checkpoint_brings_along(build, configure, start, tmp_path, lr_final):
    """Population-based training goes on from another's checkpoint with settings of its own."""
    common = ["agent.exploration.sigma=0.1", f"lr_final={lr_final}", "steps=1000"]
    donor = build(*common)
    train(donor, 2)
    donor.save_checkpoint(str(tmp_path))
    changed = [*common[1:], "agent.actor_lr=1e-12", "agent.critic_lr=1e-12", "agent.tau=0.5"]
    heir = start(configure(*changed, "agent.exploration.sigma=0.7"))
    heir.load_checkpoint(str(tmp_path))
    before = weights(heir)
    assert all(torch.equal(value, weights(donor)[name]) for name, value in before.items())
    left = 0.8 if lr_final == "0" else 1.0  # 200 of 1,000 user-steps are behind it
    for _, optimizer in learner(heir).get_optimizers_for_module("default_policy"):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-12 * left, rel=1e-5, abs=0)
    train(heir, 1)
    for name, value in module(heir).networks.named_parameters():
        assert torch.allclose(value, before[f"networks.{name}"], atol=1e-8, rtol=0), name
    assert heir.exploration(200)["sigma"] == 0.7 and learner(heir)._tau == 0.5
    train(donor, 1)  # the donor itself learns on
    assert any(not torch.equal(value, before[name]) for name, value in weights(donor).items())
