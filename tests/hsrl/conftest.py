"""Small random agents over small trees, and a policy written as plain loops to hold them against."""

import copy
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from envs.randomness import seeded_weights
from envs.transition import Observation
from rl_rec.hsrl.config import HSRLSettings
from rl_rec.hsrl.losses import Predictions, predict
from rl_rec.hsrl.networks import HSRLNetworks, State, Tables
from rl_rec.hsrl.policy import HSRLPolicy
from rl_rec.sids.trie import Trie
from rl_rec.transitions import Transitions

TINY = {
    "encoder": {"dim": 4, "heads": 2, "layers": 1, "feedforward": 4, "dropout": 0.0},
    "item_hidden": 3,
    "critic_hidden": (5,),
    "context": "sampled",
    "node_scores": True,
    "temperature": 1.0,
    "beam_width": 64,
    "rank": "probability",
    "gamma": 0.9,
    "credit": "level",
    "credit_unit": "slate",
    "multi_level_critic": True,
    "level_value_weight": 1.0,
    "exclusions": "slots",
    "ratio_max": 1.0,
    "policy_weight": 1.0,
    "entropy_weight": 1.0,
    "cloning_weight": 1.0,
    "supervision_weight": 1.0,
    "consistency_weight": 1.0,
}
"""Every setting that a test may lean on, so that none depends on a default."""


class Agent(NamedTuple):
    """Networks, targets and the tables they read."""

    networks: HSRLNetworks
    targets: HSRLNetworks
    settings: HSRLSettings
    profiles: Tensor
    """(U, P)."""
    features: Tensor
    """(N + 1, F)."""
    tokens: np.ndarray
    """(N + 1, L)."""
    trie: Trie

    def encode(self, user: Tensor, history: Tensor) -> tuple[State, Tables]:
        """States and tables of the learned weights."""
        tables = self.networks.policy.tables(self.trie)
        return self.networks.policy.state(tables, self.profiles[user], history), tables

    def predict(self, batch: Transitions, forbid_repeats: bool = False) -> Predictions:
        """As ``rl_rec.hsrl.losses.predict``."""
        return predict(
            self.networks, self.targets, batch, self.profiles, self.trie, forbid_repeats, self.settings
        )

    def policy(self, seed: int | None = None, *, slate: int = 3, forbid: bool = False) -> HSRLPolicy:
        """The policy in a rollout; ``seed`` ``None`` is greedy."""
        noise = None if seed is None else torch.Generator().manual_seed(seed)
        return HSRLPolicy(self.networks, self.profiles, self.trie.fork(), slate, forbid, self.settings, noise)


@pytest.fixture(scope="session")
def make_agent() -> Callable[..., Agent]:
    """A maker of random agents: 6 users, ``items`` items with tokens of ``sizes``, history 5.

    Every weight is moved away from where it begins, so that no part of the policy is neutral.
    """

    def make(
        *,
        items: int = 12,
        sizes: tuple[int, ...] = (3, 3),
        tokens: Sequence[Sequence[int]] | None = None,
        seed: int = 0,
        spread: float = 0.4,
        **settings: Any,
    ) -> Agent:
        chosen = HSRLSettings.from_mapping({**TINY, **settings})
        generator = torch.Generator().manual_seed(seed)
        centres = [torch.randn(size, 5, generator=generator) for size in sizes]
        pair = []
        for number in range(2):
            with seeded_weights(seed + number):
                networks = HSRLNetworks(3, 5, 5, centres, chosen)
            with torch.no_grad():
                for weight in networks.parameters():
                    weight += spread * torch.randn(weight.shape, generator=generator)
            pair.append(networks)
        features = torch.randn(items + 1, 5, generator=generator)
        features[0] = 0.0
        if tokens is None:
            drawn = [torch.randint(size, (items,), generator=generator) for size in sizes]
            tokens = torch.stack(drawn, dim=1).tolist()
        table = np.array([[-1] * len(sizes), *tokens], np.int32)
        return Agent(
            pair[0],
            pair[1].requires_grad_(False),
            chosen,
            torch.randn(6, 3, generator=generator),
            features,
            table,
            Trie(table, sizes, features),
        )

    return make


@pytest.fixture(scope="session")
def make_batch() -> Callable[..., Transitions]:
    """A maker of random batches for agents of ``make_agent``: slates of 3."""

    def make(rows: int = 8, *, items: int = 12, levels: int = 2, seed: int = 0) -> Transitions:
        generator = torch.Generator().manual_seed(seed)

        def integers(*shape: int, low: int = 0, high: int) -> Tensor:
            return torch.randint(low, high, shape, generator=generator)

        return Transitions(
            user=integers(rows, high=6),
            history=integers(rows, 5, high=items + 1).sort(dim=1).values,  # some padding, on the left
            slate=torch.rand(rows, items, generator=generator).topk(3, dim=1).indices + 1,
            click=integers(rows, 3, high=2).bool(),
            reward=torch.randn(rows, generator=generator),
            terminated=torch.arange(rows) % 3 == 0,
            next_history=integers(rows, 5, high=items + 1).sort(dim=1).values,
            log_prob=-torch.rand(rows, 3, levels + 1, generator=generator),
        )

    return make


@pytest.fixture(scope="session")
def observe() -> Callable[..., Observation]:
    """A maker of observations: users with two of 12 items liked each, and three places of padding."""

    def make(users: int = 6, **changes: Any) -> Observation:
        history = torch.zeros(users, 5, dtype=torch.int64)
        history[:, 3], history[:, 4] = 1 + torch.arange(users) % 12, 1 + (torch.arange(users) + 4) % 12
        return Observation(torch.arange(users) % 6, history, **changes)

    return make


class Leaf(NamedTuple):
    """One item as the plain policy sees it, in float64."""

    log_joint: list[Tensor]
    """log-probability of reaching each node of its path, levels 0 … L + 1."""
    score: Tensor
    contexts: list[Tensor]
    """c_0 … c_L."""
    entropy: list[Tensor]
    """Of the choice at each level 0 … L − 1."""


@pytest.fixture(scope="session")
def plain_policy() -> Callable[..., dict[int, Leaf]]:
    """The policy as its docstring says, in loops over prefixes: ``plain_policy(agent, s, items)``."""
    return _plain_policy


def _plain_policy(
    agent: Agent, s: Tensor, items: Iterable[int] | None = None, policy: Any = None
) -> dict[int, Leaf]:
    """Every live item's leaf.

    Args:
        agent: whose policy it is; nothing of its tree is read.
        s: (D,) state of one user.
        items: the live ones; ``None``: all.
        policy: the networks in float64, where a test wants their gradients.
    """
    policy = policy or copy.deepcopy(agent.networks.policy).double()
    settings, features, s = agent.settings, agent.features.double(), s.double()
    mu, nu = policy.mu(s), policy.nu(s)
    below: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for item in items if items is not None else range(1, len(features)):
        code = tuple(agent.tokens[item].tolist())
        for length in range(len(code) + 1):
            below[code[:length]].append(item)
    leaves = {}

    def score(x: Tensor) -> Tensor:
        phi = policy.item_encoder.embed(x)
        return (mu @ phi + policy.item_score(phi).squeeze()) / settings.temperature

    def walk(prefix: tuple[int, ...], path: list, contexts: list, entropies: list) -> None:
        level, context = len(prefix), contexts[-1]
        if level == policy.levels:
            own = torch.stack([score(features[item]) for item in below[prefix]])
            for item, f, log_p in zip(below[prefix], own, own.log_softmax(dim=0), strict=True):
                leaves[item] = Leaf([*path, path[-1] + log_p], f, contexts, entropies)
            return
        size = len(getattr(policy, f"centres_{level}"))
        children = [token for token in range(size) if below.get((*prefix, token))]
        head, centres = policy.heads[level], getattr(policy, f"centres_{level}")
        embedding = [policy.free[level][v] + policy.centre_maps[level](centres[v]) for v in range(size)]
        logits = []
        for v in children:
            x = features[below[(*prefix, v)]]
            n, mean, deviation = len(x), x.mean(dim=0), x.std(dim=0, correction=0)
            hidden = head.weight[v] @ context + head.bias[v] + embedding[v] @ context
            if settings.node_scores:
                hidden = hidden + nu @ policy.node_encoder.embed(torch.cat([mean, deviation]))
                logits.append(score(mean) + math.log(n) + (1 - 1 / n) * hidden / settings.temperature)
            else:
                logits.append(hidden / settings.temperature)
        log_pi = torch.stack(logits).log_softmax(dim=0)
        entropy = -(log_pi.exp() * log_pi).sum()
        expected = sum(log_pi[i].exp() * embedding[v] for i, v in enumerate(children))
        for i, v in enumerate(children):
            taken = {"sampled": embedding[v], "expected": expected, "state": None}[settings.context]
            after = context if taken is None else policy.norms[level](context - taken)
            walk((*prefix, v), [*path, path[-1] + log_pi[i]], [*contexts, after], [*entropies, entropy])

    walk((), [torch.zeros((), dtype=torch.float64)], [s], [])
    return leaves


@pytest.fixture(scope="session")
def probabilities(plain_policy: Callable[..., dict[int, Leaf]]) -> Callable[..., dict[int, float]]:
    """p(i) of each live item for one user: ``probabilities(agent, s, items)``."""

    def make(agent: Agent, s: Tensor, items: Iterable[int] | None = None) -> dict[int, float]:
        with torch.no_grad():
            leaves = plain_policy(agent, s, items)
        return {item: float(leaf.log_joint[-1].exp()) for item, leaf in leaves.items()}

    return make


@pytest.fixture(scope="session")
def token_log_probs() -> Callable[..., list[list[float]]]:
    """A slate's token log-probabilities by sums over sets of items: ``token_log_probs(agent, p, slate, open)``.

    ``p``: of all live items; ``open``: one set for every slot, the items it could have shown.
    """

    def make(
        agent: Agent, p: dict[int, float], slate: Sequence[int], open_items: Sequence[set[int]]
    ) -> list[list[float]]:
        rows = []
        for item, left in zip(slate, open_items, strict=True):
            code = tuple(agent.tokens[item].tolist())
            mass = [
                sum(p[other] for other in left if tuple(agent.tokens[other][:length]) == code[:length])
                for length in range(len(code) + 1)
            ]
            mass.append(p[item])
            rows.append([math.log(child / parent) for parent, child in pairwise(mass)])
        return rows

    return make
