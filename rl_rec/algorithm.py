"""The off-policy training loop on RLlib, shared by every algorithm: configuration and Algorithm.

    sample → replay.add → replay.sample → learner_group.update → weights to the runners

One RLlib iteration is ``report_every`` user-steps: results come in equal strides, and a resumed run falls
into the same ones.
"""

import difflib
import functools
import logging
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

import ray
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    LEARNER_RESULTS,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    WEIGHTS_SEQ_NO,
)
from typing_extensions import Self

from envs.env_config import ENV_ID
from envs.errors import UserError
from envs.randomness import stream_seed
from envs.rllib import world_from_env_config
from rl_rec import checkpoint
from rl_rec import metrics as names
from rl_rec.env_runner import WEIGHTS_UPDATES, BatchedEnvRunner, Columns
from rl_rec.evaluation import evaluate
from rl_rec.fragments import Fragments
from rl_rec.learner import OffPolicyLearner
from rl_rec.replay import Replay
from rl_rec.rl_module import RecommenderModule
from rl_rec.runner_group import configured_by_value
from rl_rec.stopwatch import StopWatch
from rl_rec.train_settings import TrainSettings
from rl_rec.unsaved import GoesOnUnsaved

_STATE = "off_policy"
_WITHOUT_RUNNERS_S = 600.0
"""How long a run waits for the first runner to come back when all are gone: a cluster may have to grow."""

T = TypeVar("T")
_log = logging.getLogger(__name__)


class RunnersLostError(RuntimeError):
    """No env runner has answered for minutes; the run cannot collect anything."""


class OffPolicyConfig(AlgorithmConfig):
    """RLlib's configuration of an off-policy recommender, driven by one tree of strict settings.

    ``recommender`` sets everything; RLlib's own methods (``learners``, ``fault_tolerance``, ...) refine it.
    """

    settings_class: ClassVar[type[TrainSettings[Any]]]
    module_class: ClassVar[type[RecommenderModule]]

    def __init__(self, algo_class: type[Algorithm] | None = None) -> None:
        super().__init__(algo_class=algo_class)
        agent_class = self.settings_class.model_fields["agent"].annotation
        assert agent_class is not None
        self.settings: dict[str, Any] = self.settings_class(agent=agent_class()).model_dump(mode="json")
        """``TrainSettings`` as plain data: what Tune searches over."""
        self.env_runner_cls = BatchedEnvRunner
        # Every train() would end with a gather of connector states, which there are none of.
        self._dont_auto_sync_env_runner_states = True
        # Actions are item indices; RLlib would rescale them.
        self.normalize_actions = False
        self.clip_actions = False
        self.torch_skip_nan_gradients = True  # our own check costs one host sync an iteration
        self.log_gradients = False
        self.restart_failed_env_runners = True
        self.ignore_env_runner_failures = True
        # How long every iteration waits for one that is starting anew; the others could be collecting.
        self.env_runner_health_probe_timeout_s = 2.0
        self.env_runner_restore_timeout_s = 60.0

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """The algorithm's networks."""
        return RLModuleSpec(module_class=self.module_class)

    def get_default_learner_class(self) -> type:
        """The same for all: losses are the module's."""
        return OffPolicyLearner

    def recommender(self, simulator: str, settings: TrainSettings[Any]) -> Self:
        """Train on the simulator folder ``simulator`` with ``settings``."""
        self.settings = settings.model_dump(mode="json")
        self.environment(ENV_ID, env_config={"simulator": str(simulator)})
        ours = settings.resources
        self.resources(num_cpus_for_main_process=ours.cpus)
        self.env_runners(
            num_env_runners=settings.rollout.runners,
            num_cpus_per_env_runner=ours.runner_cpus,
            num_gpus_per_env_runner=ours.runner_gpus,
        )
        self.learners(
            num_learners=ours.learners,
            num_cpus_per_learner=ours.learner_cpus if ours.learners else ours.cpus,
            num_gpus_per_learner=settings.learner_gpus if ours.learners else settings.main_gpus,
        )
        self.debugging(seed=settings.seed)
        return self

    def world_config(self, **changes: Any) -> dict[str, Any]:
        """``env_config`` with the rules of ``settings``, the only place where a search may vary them."""
        return {**self.env_config, "settings": self.train_settings().world.model_dump(mode="json"), **changes}

    def train_settings(self) -> TrainSettings[Any]:
        """The settings, checked.

        Raises:
            UserError: an unknown key or a bad value, e.g. from a search space.
        """
        return self.settings_class.from_mapping(self.settings, where="settings")

    def validate(self) -> None:
        """RLlib's checks and ours: misspelt keys in a search space must not run silently on defaults."""
        super().validate()
        known = {*vars(type(self)()), "class"}  # RLlib adds its class when it copies through a state
        for name in vars(self):
            if name not in known and not name.startswith("_"):  # Tune adds private ones
                nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
                raise UserError(f"unknown key {name!r} in RLlib's configuration; did you mean {nearest!r}?")
        settings = self.train_settings()
        pairs = {
            "num_env_runners": ("rollout.runners", settings.rollout.runners),
            "num_learners": ("resources.learners", settings.resources.learners),
        }
        for name, (ours, value) in pairs.items():
            if not self.in_evaluation and getattr(self, name) != value:
                raise ValueError(
                    f"{name}={getattr(self, name)} but {ours}={value}: "
                    "set both, Tune reserves resources by the first"
                )

    @property
    def _model_config_auto_includes(self) -> dict[str, Any]:
        settings = self.train_settings()
        return {
            "env_config": self.world_config(),
            "agent": settings.agent.model_dump(mode="json"),
            "seed": stream_seed(settings.seed, 3),
        }


class OffPolicyAlgorithm(GoesOnUnsaved, Algorithm):
    """Collects, stores and learns, with the replay ratio held exactly in every mode."""

    config: OffPolicyConfig
    config_class: ClassVar[type[OffPolicyConfig]]

    @classmethod
    def get_default_config(cls) -> OffPolicyConfig:
        """The algorithm's defaults."""
        return cls.config_class()

    def setup(self, config: Any) -> None:
        """Build runners, learners and the replay."""
        with configured_by_value():
            super().setup(config)
        settings = self._settings = self.config.train_settings()
        self._device = torch.device(settings.main_device)
        self.replay = Replay(settings.replay.capacity, stream_seed(settings.seed, 5), self._device)
        self.collected = 0  # user-steps, lifetime
        self.updates = 0  # lifetime
        self._published = 0  # updates behind the weights that were last sent
        self._validation: Any = None
        group = self.env_runner_group
        assert group is not None
        self.fragments = Fragments(group, settings, self._replace_runner) if settings.rollout.runners else None
        self._share_weights()

    def _share_weights(self) -> None:
        """One set of weights in one process: nothing to copy between learner and runner."""
        if self.config.num_learners == 0:
            self.learner_group.foreach_learner(lambda learner: self.env_runner.share(learner.module))

    def training_step(self) -> None:
        """Run one stride of ``report_every`` user-steps, with the updates it owes."""
        settings, clock = self._settings, StopWatch()
        target = min((self.iteration + 1) * settings.report_every, settings.steps)
        began = self.collected
        while self.collected < target:
            with clock(names.ROLLOUT_S):
                batches = self._collect(target - self.collected)
            with clock(names.REPLAY_S):
                for batch in batches:
                    self.replay.add(batch.tensors(self._device))
                    self.collected += batch.env_steps()
            self._update(clock)
        self._report(self.collected - began, clock)

    def _collect(self, wanted: int) -> list[Columns]:
        rollout = self._settings.rollout
        if self.fragments is None:
            steps = min(rollout.fragment, -(-wanted // rollout.users))
            return cast(list[Columns], self.env_runner.sample(steps=steps, **self.exploration(self.collected)))
        self._await_runner()
        self.fragments.ask(self.collected, self.exploration)
        return self.fragments.take(self.updates)

    def _ask_runners(self, question: Callable[[BatchedEnvRunner], T]) -> list[T]:
        """Every runner's answer; one that owes it for ``rollout.timeout_s`` is replaced."""
        if self._settings.rollout.runners == 0:
            return [question(self.env_runner)]
        group = self.env_runner_group
        assert group is not None
        answers = group.foreach_env_runner(
            functools.partial(_answer, question),
            local_env_runner=False,
            timeout_seconds=self._settings.rollout.timeout_s,
        )
        # Those that died are known as unhealthy by now; a process that hangs is not.
        for index in set(group.healthy_worker_ids()) - {index for index, _ in answers}:
            self._replace_runner(index)
        return [answer for _, answer in answers]

    def _replace_runner(self, index: int) -> None:
        """Let Ray start a process anew; RLlib gives it the weights once it answers."""
        group = self.env_runner_group
        assert group is not None
        _log.warning("env runner %d does not answer: starting it anew", index)
        manager = group._worker_manager
        manager.set_actor_state(index, healthy=False)
        ray.kill(manager.actors()[index], no_restart=False)

    def _await_runner(self) -> None:
        """Wait until one runner is alive.

        Raises:
            RunnersLostError: none came back.
        """
        group = self.env_runner_group
        assert group is not None
        began = time.monotonic()
        while group.num_healthy_remote_workers() == 0:
            if time.monotonic() - began > _WITHOUT_RUNNERS_S:
                raise RunnersLostError(
                    f"no env runner came back in {_WITHOUT_RUNNERS_S:g} s: has the cluster room for them? "
                    f"Is rollout.timeout_s={self._settings.rollout.timeout_s:g} enough for rollout.fragment?"
                )
            self.restore_env_runners(group)

    def exploration(self, user_steps: int) -> dict[str, float]:
        """Scheduled exploration parameters after ``user_steps`` user-steps, for the runners' policies."""
        return {}

    def _update(self, clock: StopWatch) -> None:
        replay = self._settings.replay
        due = replay.updates_due(self.collected) - self.updates
        if due <= 0:
            return
        with clock(names.REPLAY_S):
            rows = self.replay.sample(due * replay.batch_size)
        with clock(names.UPDATE_S):
            self.learner_group.update(
                batch=MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(rows)}, env_steps=len(rows["user"])),
                minibatch_size=replay.batch_size // max(self.config.num_learners, 1),
                timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: self.collected},
            )
            self.updates += due
        if self.updates - self._published >= self._settings.rollout.sync_every:
            with clock(names.SYNC_S):
                self._sync_weights()

    def _sync_weights(self) -> None:
        """Weights to whoever samples; beside a local learner, the local runner has them already."""
        self._published = self.updates
        if self.fragments is not None:
            self.fragments.publish(self._weights())
        elif self.config.num_learners:
            self.env_runner.set_state(self._weights())

    def _weights(self) -> dict[str, Any]:
        state = self.learner_group.get_state(
            components=f"{COMPONENT_LEARNER}/{COMPONENT_RL_MODULE}", inference_only=True
        )[COMPONENT_LEARNER]
        kept = {name: state[name] for name in (COMPONENT_RL_MODULE, WEIGHTS_SEQ_NO)}
        return {**kept, WEIGHTS_UPDATES: self.updates}

    def restore_env_runners(self, env_runner_group: EnvRunnerGroup) -> list[int]:
        """RLlib's, after which restarted runners have the local runner's weights, however old."""
        restored = cast(list[int], super().restore_env_runners(env_runner_group))
        if self.fragments is not None:
            self.fragments.forget(restored)
        return restored

    def _report(self, user_steps: int, clock: StopWatch) -> None:
        metrics = self.metrics
        answers = list(self.learner_group.foreach_learner(lambda learner: learner.drain_figures()))
        for answer in answers:
            if not answer.ok:  # a remote learner's; the local one raises
                raise answer.get()
        learners = [answer.get() for answer in answers]
        for name in learners[0]:
            mean = statistics.fmean(figures[name] for figures in learners)  # of equal parts of every batch
            metrics.log_value((LEARNER_RESULTS, DEFAULT_MODULE_ID, name), mean, window=1)
        if self.fragments is None:
            reports, latencies = [self.env_runner.get_metrics()], {}
        else:
            reports, latencies = self.fragments.metrics, self.fragments.drain_figures()
            self.fragments.metrics = []
        if reports := [report for report in reports if report]:
            metrics.aggregate(reports, key=ENV_RUNNER_RESULTS)
        learned = self.updates * self._settings.replay.batch_size
        after_start = max(self.collected - self._settings.replay.learning_starts, 1)
        figures = {
            names.REPLAY_RATIO: learned / after_start,
            names.UPDATES_LIFETIME: self.updates,
            names.USER_STEPS_PER_S: user_steps / clock.total_s,
            **clock.seconds,
            **latencies,
        }
        for name, value in figures.items():
            metrics.log_value(name, value, window=1)

    def step(self) -> dict[str, Any]:
        """One iteration; when an evaluation is due, also at the end, its figures under ``evaluation``."""
        before = self.collected
        result = cast(dict[str, Any], super().step())
        # What was stored, not what the runners counted: a killed one takes its count along, and a run that
        # stops at this number would never end.
        result[NUM_ENV_STEPS_SAMPLED_LIFETIME] = self.collected
        every = self._settings.evaluation.every
        ended = before < self._settings.steps <= self.collected
        if every and (ended or self.collected // every > before // every):
            result[names.EVALUATION] = self.evaluate_validation()
        self.note_unsaved(result)
        return result

    @property
    def trained(self) -> bool:
        """Whether all user-steps are done."""
        return self.collected >= self._settings.steps

    def evaluate_validation(self) -> dict[str, float]:
        """Greedy figures on validation users, the same users each time."""
        if self._validation is None:
            self._validation = world_from_env_config(
                self.config.world_config(splits=["validation"]), self._device
            )
        world, rules = self._validation
        if self.config.num_learners:
            self.env_runner.set_state(self._weights())
        module = self.env_runner.module[DEFAULT_MODULE_ID]
        result = evaluate(
            world,
            rules,
            lambda _: module.rollout_policy(world, rules, None),
            self._settings.evaluation.episodes,
            stream_seed(self._settings.seed, 6),
        )
        summary = result.summary()
        low, high = result.return_ci95
        del summary["return_ci95"]
        figures = {name: value for name, value in summary.items() if value is not None}  # numbers only
        return {**cast(dict[str, float], figures), "return_ci95_low": low, "return_ci95_high": high}

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """RLlib's state, the replay, the counters, and every runner's users and generators."""
        state = super().get_state(*args, **kwargs)
        kept = self.fragments.keep_all() if self.fragments is not None else []
        if self.updates > self._published:  # a resumed run begins with the learner's weights everywhere
            self._sync_weights()
        runners = self._ask_runners(
            lambda runner: (runner.worker_index, runner.get_state(not_components=COMPONENT_RL_MODULE))
        )
        state[_STATE] = {
            "replay": self.replay.state_dict(),
            "collected": self.collected,
            "updates": self.updates,
            "published": self._published,
            "runners": {index or 0: runner for index, runner in runners},
            "fragments": kept,
        }
        return state

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Save everything, and last what tells that everything was saved."""
        super().save_checkpoint(checkpoint_dir)
        checkpoint.seal(Path(checkpoint_dir))

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        """Go on from a whole checkpoint.

        Raises:
            UserError: it is damaged.
        """
        checkpoint.verify(Path(checkpoint_dir))
        super().load_checkpoint(checkpoint_dir)

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over ``get_state``'s state."""
        super().set_state(state)
        if _STATE not in state:
            return
        self._share_weights()  # policies may keep more of a module than its weights
        own = state[_STATE]
        self.replay.load_state_dict(own["replay"])
        self.collected, self.updates = own["collected"], own["updates"]
        self._published = own.get("published", self.updates)
        if self.fragments is not None:
            self.fragments.restore(own.get("fragments", []))  # earlier releases kept none
        self._ask_runners(functools.partial(_restore_runner, own["runners"]))

    def cleanup(self) -> None:
        """End the runners without asking them, which would wait for one that hangs: they hold nothing."""
        if self.env_runner_group is not None:
            self.env_runner_group._worker_manager.clear()
        super().cleanup()


def _answer(question: Callable[[BatchedEnvRunner], T], runner: BatchedEnvRunner) -> tuple[int, T]:
    return runner.worker_index, question(runner)


def _restore_runner(saved: dict[int, Any], runner: BatchedEnvRunner) -> None:
    runner.accept_older_weights()  # which RLlib sends after this
    state = saved.get(runner.worker_index or 0)
    if state is not None:  # more runners than were saved: the new ones keep their fresh users
        runner.set_state(state)
