"""What the benchmarks run: sizes, rules, agent, and how often."""

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from pydantic import Field

from envs.settings import Settings
from envs.world_settings import WorldSettings
from rl_rec.bench.world import WorldSizes
from rl_rec.hac.config import HACSettings
from rl_rec.hsrl.config import HSRLSettings

AgentT = TypeVar("AgentT", bound=Settings)


class BenchSettings(Settings, Generic[AgentT]):
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
    agent: AgentT
    """The agent."""

    def world_rules(self) -> WorldSettings:
        """``rules`` with the world's history length."""
        return self.rules.model_copy(update={"history_length": self.world.history})


# Written out, so that figures stay comparable when the agents' defaults move.
AGENTS: Mapping[str, Settings] = {
    "hac": HACSettings(policy_action="hyper", policy_weight=0.03, alignment_weight=0.1, supervision_weight=1.0),
    "hsrl": HSRLSettings(
        sid_levels=3,
        sid_codebook=16,
        item_hidden=64,
        critic_hidden=(64,),
        context="sampled",
        node_scores=True,
        gamma=0.0,
        credit="level",
        credit_unit="slot",
        multi_level_critic=True,
        level_value_weight=1.0,
        exclusions="slots",
        ratio_max=1.0,
        policy_weight=0.1,
        entropy_weight=0.01,
        cloning_weight=0.0,
        supervision_weight=1.0,
        consistency_weight=1.0,
    ),
}
"""The agents that benchmarks know, as they are measured."""


def bench_settings(agent: str = "hac", **sizes: Any) -> BenchSettings[Any]:
    """Settings for one of ``AGENTS``, with other fields replaced by ``sizes``."""
    chosen = AGENTS[agent]
    agent_class = type(chosen)
    return BenchSettings[agent_class](agent=chosen, **sizes)  # type: ignore[valid-type]


def agent_name(settings: BenchSettings[Any]) -> str:
    """Which of ``AGENTS`` is measured."""
    return next(name for name, known in AGENTS.items() if type(known) is type(settings.agent))
