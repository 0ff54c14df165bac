"""The registry of algorithms: adding one is a folder and a line here.

Everything is named by import path, so that looking an algorithm up loads neither torch nor Ray.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from envs.lookup import look_up
from envs.settings import Settings

if TYPE_CHECKING:
    from rl_rec.algorithm import OffPolicyConfig
    from rl_rec.train_settings import TrainSettings


@dataclass(frozen=True)
class Agent:
    """Where the parts of an algorithm are."""

    name: str
    settings: str
    """``module:class`` of its settings."""
    config: str
    """``module:class`` of its RLlib configuration."""
    policy: str
    """``module:class`` of its policy; ``load`` makes a greedy one of saved weights, without Ray."""
    check: str | None = None
    """``module:function`` that refuses settings which do not fit a simulator, before a run begins."""

    def train_settings(self, **fields: Any) -> "TrainSettings[Any]":
        """Default settings of a run, with ``fields`` replaced."""
        from rl_rec.train_settings import TrainSettings

        agent_class = _load(self.settings)
        assert issubclass(agent_class, Settings)
        return TrainSettings[agent_class](agent=agent_class(), **fields)  # type: ignore[valid-type]

    def rllib_config(self) -> "OffPolicyConfig":
        """A new RLlib configuration."""
        config: OffPolicyConfig = _load(self.config)()
        return config

    def check_world(self, settings: Any, fitted: Any) -> None:
        """Refuse the agent's settings where they do not fit a ``FittedWorld``.

        Raises:
            UserError: they do not.
        """
        if self.check is not None:
            _load(self.check)(settings, fitted)

    def load_policy(self, *arguments: Any) -> Any:
        """Greedy policy of saved weights: ``(weights, world, rules, settings)``."""
        return _load(self.policy).load(*arguments)


def _agent(name: str, package: str, title: str, **parts: str) -> Agent:
    """An algorithm whose parts have the usual names in ``rl_rec/<package>/``."""
    folder = f"rl_rec.{package}"
    usual = {
        "settings": f"{folder}.config:{title}Settings",
        "config": f"{folder}.algorithm:{title}Config",
        "policy": f"{folder}.policy:{title}Policy",
    }
    return Agent(name=name, **{**usual, **parts})


AGENTS = {
    agent.name: agent
    for agent in (
        _agent("hac", "hac", "HAC"),
        _agent("hsrl", "hsrl", "HSRL", check="rl_rec.hsrl.catalogue:check_sids"),
        _agent("ddpg", "ddpg", "DDPG"),
        _agent("ddpg-ra", "ddpg_ra", "DDPGRA"),
        _agent("td3", "td3", "TD3"),
        _agent("wolpertinger", "wolpertinger", "Wolpertinger"),
        _agent("slateq", "slateq", "SlateQ"),
        _agent("a2c", "a2c", "A2C"),
        _agent("item-a2c", "item_a2c", "ItemA2C", policy="rl_rec.a2c.policy:A2CPolicy"),
        _agent("supervised", "supervised", "Supervised"),
        _agent(
            "supervised-offline",
            "supervised",
            "Supervised",
            settings="rl_rec.supervised.config:SupervisedOfflineSettings",
            config="rl_rec.supervised.algorithm:SupervisedOfflineConfig",
        ),
    )
}


def find_agent(name: str) -> Agent:
    """The algorithm called ``name``.

    Raises:
        UserError: there is none.
    """
    return look_up("algorithm", name, AGENTS)


def _load(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)
