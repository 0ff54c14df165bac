"""The settings of a training run, the same tree for every algorithm."""

from typing import Generic, Literal, TypeVar

from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from envs.settings import Settings
from envs.world_settings import WorldSettings
from rl_rec.resources import Processes, Reservation

AgentT = TypeVar("AgentT", bound=Settings)


class RolloutSettings(Settings):
    """How experience is collected."""

    users: int = Field(32, ge=1)
    """Users B that one runner serves at once; more is faster per user-step and staler per update."""
    fragment: int = Field(10, ge=1)
    """Steps that every user is served between two rounds of updates."""
    runners: int = Field(0, ge=0)
    """Remote env runners; 0 collects in the learner's process."""
    mode: Literal["sync", "async"] = "sync"
    """With remote runners, ``sync`` waits for all of them each round; ``async`` takes what is ready."""
    timeout_s: float = Field(120.0, gt=0.0)
    """Seconds after which a remote runner that brings nothing is taken to hang and started anew: well above
    what ``fragment`` steps take."""
    in_flight: int | None = Field(None, ge=1)
    """Fragments asked of each remote runner at once; by default 1 in ``sync``, 2 in ``async``. In ``sync``, 2
    lets runners sample the next round while the last one is learned, with weights a round older, and stays
    deterministic. In ``async``, with 1 a runner waits for the driver after every fragment."""
    sync_every: int = Field(1, ge=1)
    """Updates between two messages of weights to remote runners; more is staler and cheaper."""

    @property
    def requests(self) -> int:
        """``in_flight`` with its default."""
        return self.in_flight or (1 if self.mode == "sync" else 2)


class ReplaySettings(Settings):
    """What is kept, and how much is learned from it."""

    capacity: int = Field(100_000, ge=1)
    """Transitions kept."""
    ratio: float = Field(2.0, gt=0.0)
    """Transitions trained on per transition collected, held exactly; more learns more from less data."""
    batch_size: int = Field(64, ge=1)
    """Transitions per update."""
    learning_starts: int = Field(2_000, ge=0)
    """User-steps collected before the first update."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.capacity < max(self.batch_size, self.learning_starts):
            raise ValueError(
                f"replay.capacity={self.capacity} must hold replay.batch_size={self.batch_size} and "
                f"replay.learning_starts={self.learning_starts} transitions"
            )
        return self

    def updates_due(self, user_steps: int) -> int:
        """Updates that must have been made after ``user_steps`` user-steps, over the whole run."""
        return int(max(user_steps - self.learning_starts, 0) * self.ratio / self.batch_size)


class EvaluationSettings(Settings):
    """Evaluation on validation users while training."""

    every: int = Field(10_000, ge=0)
    """User-steps between evaluations; 0 never evaluates."""
    episodes: int = Field(256, ge=1)
    """Users served per evaluation."""


class ResourceSettings(Settings):
    """What the processes of a run reserve on Ray, which also says where each computes.

    ``device=cuda`` puts what learns on a GPU. Three layouts are usual::

        simulator, policy, replay and losses in one process:   device=cuda
        env runners on CPUs, one GPU that learns:              device=cuda rollout.runners=8
        env runners on GPUs, remote learners on others:        device=cuda rollout.runners=8
            resources.runner_gpus=0.25 resources.learners=2
    """

    cpus: float = Field(1.0, gt=0)
    """CPUs of the process that holds the replay, and learns where there are no remote learners."""
    gpus: float = Field(1.0, gt=0, le=1)
    """Its share of a GPU where ``device`` is cuda and it learns; 0.25: four trials share one."""
    runner_cpus: float = Field(1.0, gt=0)
    """CPUs of each remote env runner."""
    runner_gpus: float = Field(0.0, ge=0, le=1)
    """Share of a GPU of each remote env runner; 0 lets it compute on the CPU."""
    learners: int = Field(0, ge=0)
    """Remote learners, which share every batch among them; 0 learns beside the replay."""
    learner_cpus: float = Field(1.0, gt=0)
    """CPUs of each remote learner."""
    learner_gpus: float = Field(1.0, gt=0, le=1)
    """Share of a GPU of each remote learner where ``device`` is cuda."""


class TrainSettings(Settings, Generic[AgentT]):
    """Everything that defines a training run, besides the simulator."""

    steps: int = Field(100_000, ge=1)
    """User-steps to collect."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of weights, users, responses, exploration and replay."""
    device: str = "cpu"
    """Where simulator, policy, replay and losses live: cpu or cuda; ``resources`` says more."""
    report_every: int = Field(2_000, ge=1)
    """User-steps between two reports: one iteration of RLlib."""
    checkpoint_every: int = Field(10_000, ge=1)
    """User-steps between checkpoints, rounded up to whole reports."""
    lr_final: float = Field(0.0, ge=0.0, le=1.0)
    """Share of the agent's learning rates left at the end of the run, reached linearly; 1: constant."""
    world: WorldSettings = WorldSettings()
    """The rules of the world."""
    rollout: RolloutSettings = RolloutSettings()
    """Collecting experience."""
    replay: ReplaySettings = ReplaySettings()
    """Keeping it."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """Watching progress."""
    resources: ResourceSettings = ResourceSettings()
    """What the run reserves."""
    agent: AgentT
    """The algorithm's own settings."""

    @property
    def idle(self) -> str | None:
        """Why nothing will be learned, if so."""
        starts = self.replay.learning_starts
        if self.steps > starts:
            return None
        return (
            f"nothing will be learned: {self.steps:,} steps end before replay.learning_starts={starts:,}; "
            f"give it more --steps, or --set replay.learning_starts={self.steps // 5}"
        )

    @property
    def main_device(self) -> str:
        """Where the process with the replay computes: remote learners leave it no GPU."""
        return "cpu" if self.resources.learners else self.device

    @property
    def main_gpus(self) -> float:
        """The share of a GPU that it reserves; evaluations reserve the same."""
        return self.resources.gpus if self.main_device != "cpu" else 0.0

    @property
    def learner_gpus(self) -> float:
        """The share of a GPU that each remote learner reserves."""
        return self.resources.learner_gpus if self.device != "cpu" else 0.0

    @property
    def reservation(self) -> Reservation:
        """All processes of a run."""
        ours, runners = self.resources, self.rollout.runners
        return [
            Processes("replay" if ours.learners else "learner", 1, ours.cpus, self.main_gpus),
            *([Processes("env runners", runners, ours.runner_cpus, ours.runner_gpus)] if runners else []),
            *(
                [Processes("remote learners", ours.learners, ours.learner_cpus, self.learner_gpus)]
                if ours.learners
                else []
            ),
        ]

    @field_validator("device")
    @classmethod
    def _check_device(cls, device: str) -> str:
        if device.startswith("cuda:"):
            raise ValueError("Ray hands out the GPUs; say cuda, and CUDA_VISIBLE_DEVICES says which")
        if device not in ("cpu", "cuda"):
            raise ValueError("use cpu or cuda")
        return device

    @model_validator(mode="after")
    def _check_layout(self) -> Self:
        ours, batch = self.resources, self.replay.batch_size
        if ours.runner_gpus and self.device == "cpu":
            raise ValueError(f"resources.runner_gpus={ours.runner_gpus:g} needs device=cuda")
        if ours.runner_gpus and not self.rollout.runners:
            raise ValueError(f"resources.runner_gpus={ours.runner_gpus:g} needs rollout.runners >= 1")
        if self.rollout.mode == "async" and not self.rollout.runners:
            raise ValueError("rollout.mode=async needs rollout.runners >= 1")
        if self.rollout.sync_every > 1 and not self.rollout.runners:
            raise ValueError(f"rollout.sync_every={self.rollout.sync_every} needs rollout.runners >= 1")
        if self.rollout.in_flight is not None and not self.rollout.runners:
            raise ValueError("rollout.in_flight needs rollout.runners >= 1")
        if ours.learners and batch % ours.learners:
            raise ValueError(
                f"replay.batch_size={batch} must be a multiple of resources.learners={ours.learners}: "
                "they share every batch"
            )
        return self

    @model_validator(mode="after")
    def _check_fragment(self) -> Self:
        rows = self.rollout.users * min(self.rollout.fragment, -(-self.report_every // self.rollout.users))
        if rows > self.replay.capacity:
            raise ValueError(
                f"rollout.users={self.rollout.users} bring {rows} transitions at once, replay.capacity="
                f"{self.replay.capacity} cannot hold them: lower rollout.users or rollout.fragment"
            )
        return self
