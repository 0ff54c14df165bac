"""The settings of a training run, the same tree for every algorithm."""

from typing import Generic, TypeVar

from pydantic import Field, model_validator
from typing_extensions import Self

from envs.settings import Settings
from envs.world_settings import WorldSettings

AgentT = TypeVar("AgentT", bound=Settings)


class RolloutSettings(Settings):
    """How experience is collected."""

    users: int = Field(32, ge=1)
    """Users B that one runner serves at once; more is faster per user-step and staler per update."""
    fragment: int = Field(10, ge=1)
    """Steps that every user is served between two rounds of updates."""
    runners: int = Field(0, ge=0)
    """Remote env runners; 0 collects in the learner's process."""
    mode: str = Field("sync", pattern="^(sync|async)$")
    """With remote runners, ``sync`` waits for all of them each round; ``async`` takes what is ready."""
    timeout_s: float = Field(120.0, gt=0.0)
    """Seconds after which a remote runner that brings nothing is taken to hang, and started anew; well above what
    ``fragment`` steps take."""


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
    """What a run reserves on Ray, besides one CPU for each remote runner."""

    cpus: float = Field(1.0, gt=0)
    """CPUs of the process that learns."""
    gpus: float = Field(1.0, gt=0, le=1)
    """Share of a GPU that it reserves where ``device`` is cuda; 0.25: four trials share one."""


class TrainSettings(Settings, Generic[AgentT]):
    """Everything that defines a training run, besides the simulator."""

    steps: int = Field(100_000, ge=1)
    """User-steps to collect."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of weights, users, responses, exploration and replay."""
    device: str = "cpu"
    """Where simulator, policy, replay and losses live: cpu or cuda."""
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
    def reserved_cpus(self) -> float:
        """CPUs of the whole run: the learner's process and one for each remote runner."""
        return self.resources.cpus + self.rollout.runners

    @property
    def reserved_gpus(self) -> float:
        """GPUs of the whole run."""
        return self.resources.gpus if self.device.startswith("cuda") else 0.0

    @model_validator(mode="after")
    def _check_fragment(self) -> Self:
        rows = self.rollout.users * min(self.rollout.fragment, -(-self.report_every // self.rollout.users))
        if rows > self.replay.capacity:
            raise ValueError(
                f"rollout.users={self.rollout.users} bring {rows} transitions at once, replay.capacity="
                f"{self.replay.capacity} cannot hold them: lower rollout.users or rollout.fragment"
            )
        return self
