"""What the benchmarks run: sizes, rules, agent, and how often."""

from pydantic import Field

from envs.settings import Settings
from envs.simulator import WorldSettings
from rl_rec.bench.world import WorldSizes
from rl_rec.hac.config import HACSettings


class BenchSettings(Settings):
    """One tree for all benchmarks; each reads what concerns it."""

    users: int = Field(32, ge=1)
    """Users B served at once."""
    steps: int = Field(20, ge=1)
    """Steps of every user in one round of measurement."""
    repeats: int = Field(7, ge=1)
    """Rounds; variants take turns in each, and medians are reported."""
    threads: int = Field(1, ge=1)
    """Threads of torch."""
    device: str = "cpu"
    """Where everything lives."""
    seed: int = Field(0, ge=0)
    """Seed of the world, the weights and all draws."""
    fragment: int = Field(10, ge=1)
    """Steps of every user between two rounds of updates, in training and in the env runner."""
    batch_size: int = Field(64, ge=1)
    """Transitions per update, and per draw of the replay."""
    replay_ratio: float = Field(2.0, gt=0.0)
    """Transitions trained on per transition collected."""
    capacity: int = Field(20_000, ge=1)
    """Rows of the replay."""
    world: WorldSizes = WorldSizes()
    """Sizes of the random world."""
    rules: WorldSettings = WorldSettings()
    """Rules of the world, but for ``history_length``, which ``world.history`` sets."""
    # Written out, so that figures stay comparable when the agent's defaults move.
    agent: HACSettings = HACSettings(
        policy_action="hyper", policy_weight=0.03, alignment_weight=0.1, supervision_weight=1.0
    )
    """The agent."""

    def world_rules(self) -> WorldSettings:
        """``rules`` with the world's history length."""
        return self.rules.model_copy(update={"history_length": self.world.history})
