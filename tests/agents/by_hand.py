"""Hand-made agents in the plane, and any registered algorithm in a plain loop: what the tests here share."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import torch

from envs.simulator import Simulator
from envs.world import World
from envs.world_settings import WorldSettings
from rl_rec.agents import find_agent
from rl_rec.evaluation import evaluate, normalised
from rl_rec.reference import OraclePolicy, RandomPolicy
from rl_rec.replay import Replay
from rl_rec.rl_module import CRITIC
from rl_rec.rollout import Rollout
from rl_rec.scoring.losses import WorldView
from rl_rec.transitions import Transitions

RULES = WorldSettings(repeats="allow", start_history="empty", history_length=4, max_steps=8)
SMALL = {"encoder": {"dim": 8, "heads": 2, "layers": 1, "feedforward": 16}, "item_hidden": 0}


def make_module(name: str, world: World, rules: WorldSettings = RULES, seed: int = 0, **settings: Any) -> Any:
    """The algorithm's RLModule on ``world``, small unless ``settings`` say otherwise."""
    agent = find_agent(name)
    chosen = type(agent.train_settings().agent).from_mapping({**SMALL, **settings})
    config = {
        "env_config": {"world": world, "settings": rules.model_dump(mode="json")},
        "agent": chosen.model_dump(mode="json"),
        "seed": seed,
        "device": str(world.device),
    }
    unused = gym.spaces.Discrete(2)  # the networks take their sizes from the world
    return agent.rllib_config().module_class(
        observation_space=unused, action_space=unused, inference_only=False, model_config=config
    )


def train(module: Any, world: World, rules: WorldSettings, steps: int, seed: int = 0) -> Any:
    """What the Learner does, spelt out: the greedy policy after ``steps`` steps of 32 users each."""
    noise = torch.Generator().manual_seed(seed)
    policy = module.rollout_policy(world, rules, noise)
    rollout, replay = Rollout(Simulator(world, rules, 32, seed), policy), Replay(4_000, seed)
    module.noise = torch.Generator().manual_seed(seed + 1)
    optimizers = {
        name: torch.optim.Adam(parameters, lr=lr)
        for name, (parameters, lr) in module.parameter_groups().items()
    }
    for step in range(steps):
        policy.weights_changed()
        replay.add(rollout.collect(1))
        if step < 10:
            continue
        batch = Transitions(**replay.sample(64))
        terms, _ = module.loss_terms(module.predict(batch), batch)
        for optimizer in optimizers.values():
            optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        with_policy = step % module.policy_delay == 0
        for name, optimizer in optimizers.items():
            if with_policy or name == CRITIC:
                optimizer.step()
        if with_policy and module.targets is not None:
            with torch.no_grad():
                pairs = list(module.targets.parameters()), list(module.networks.parameters())
                torch._foreach_lerp_(*pairs, module.settings.tau)
    return module.rollout_policy(world, rules, None)


def reached(world: World, policy: Any, rules: WorldSettings = RULES) -> float:
    """Place of a policy's return between random (0) and the myopic oracle (1)."""

    def value(make: Any) -> float:
        return evaluate(world, rules, make, 200, seed=7).return_mean

    random = value(lambda simulator: RandomPolicy(simulator, torch.Generator().manual_seed(1)))
    return normalised(value(lambda _: policy), random, value(OraclePolicy))


class Hand(NamedTuple):
    """An agent whose every number can be worked out on paper.

    Items 1 to 4 are (1, 0), (0, 1), (2, 0), (−1, −1); φ(x) = x; μ(s) is the same in every state.
    """

    networks: Any
    targets: Any
    settings: Any
    world: WorldView


@torch.no_grad()
def fill(layer: Any, weight: Sequence[float], bias: Sequence[float]) -> None:
    """Give every output of a linear layer the same weights, and its own bias."""
    layer.weight.copy_(torch.tensor(weight).expand_as(layer.weight))
    layer.bias.copy_(torch.tensor(bias))


def transitions(**changes: Any) -> Transitions:
    """Two users with empty histories: slates (1, 2) and (3, 1), one click, and the second user leaves."""
    nothing = torch.zeros(2, 3, dtype=torch.int64)
    batch = Transitions(
        user=torch.tensor([0, 1]),
        history=nothing,
        slate=torch.tensor([[1, 2], [3, 1]]),
        click=torch.tensor([[True, False], [False, False]]),
        reward=torch.tensor([0.45, -0.1]),
        terminated=torch.tensor([False, True]),
        next_history=nothing,
    )
    return batch._replace(**changes)


def moved_by(agent: Any, term: torch.Tensor) -> set[str]:
    """Parts of ``agent.networks`` that a term has gradients for."""
    agent.networks.zero_grad(set_to_none=True)
    term.backward()
    return {
        name.split(".")[0]
        for name, weight in agent.networks.named_parameters()
        if weight.grad is not None and weight.grad.any()
    }
