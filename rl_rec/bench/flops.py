"""Floating-point operations of a user-step, from the sizes alone: matrix products, 2 for each multiply-add.

What is counted is what the program asks of a GPU (a CPU leaves out part of the causal attention). Everything
else (softmax, masks, gathers, Adam) is a few operations a number and moves memory: ``rl_rec.bench.traffic``.

A product's backward pass costs as much again for each factor that has a gradient.

Glossary: B users, H history length, T = H + 1 tokens, K slate size, N items, F item features, P profile
features, D width, L levels, V tokens, M_l nodes of level l, C_l the most children of a node of level l.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from envs.errors import UserError
from rl_rec.bench.settings import BenchSettings, agent_name
from rl_rec.hsrl.networks import gathered_rows_cost_more
from rl_rec.sids.trie import Trie


@dataclass(frozen=True)
class Flops:
    """Operations, forward and backward."""

    forward: float = 0.0
    backward: float = 0.0

    def __add__(self, other: "Flops") -> "Flops":
        return Flops(self.forward + other.forward, self.backward + other.backward)

    def __mul__(self, times: float) -> "Flops":
        return Flops(self.forward * times, self.backward * times)

    @property
    def total(self) -> float:
        """Both passes."""
        return self.forward + self.backward

    def alone(self) -> "Flops":
        """The same without gradients."""
        return Flops(self.forward)


def product(rows: float, inner: float, columns: float, gradients: int = 2) -> Flops:
    """(rows, inner) @ (inner, columns), of whose factors ``gradients`` have one."""
    once = 2.0 * rows * inner * columns
    return Flops(once, gradients * once)


class UserStep(NamedTuple):
    """Operations of one user-step."""

    policy: float
    """Choosing the slate."""
    simulator: float
    """The user's response."""
    tables: float
    """What the policy makes of the catalogue once a fragment, a user-step's share of it."""
    update: float
    """Learning from the transitions that a user-step pays for, forward and backward."""

    @property
    def rollout(self) -> float:
        """Without learning."""
        return self.policy + self.simulator + self.tables

    @property
    def training(self) -> float:
        """Everything."""
        return self.rollout + self.update


_KNOWN = {
    "hac": {"scorer": "dot", "residual": 0.0},
    "hsrl": {"context": "sampled", "residual": 0.0, "gamma": 0.0},
}
_KNOWN_RULES = {"candidates": None, "signals": False}


def check(settings: BenchSettings[Any]) -> None:
    """Refuse what is not counted here.

    Raises:
        UserError: a variant of the agent or of the world.
    """
    for prefix, of, known in (
        ("agent", settings.agent, _KNOWN[agent_name(settings)]),
        ("rules", settings.rules, _KNOWN_RULES),
    ):
        for name, value in known.items():
            if getattr(of, name) != value:
                raise UserError(f"operations are counted for {prefix}.{name}={value} only: leave it so")


def user_step(settings: BenchSettings[Any], trie: Trie | None) -> UserStep:
    """Operations of one user-step under ``settings``; HSRL's depend on the tree of its semantic IDs.

    Raises:
        UserError: as of ``check``.
    """
    check(settings)
    if agent_name(settings) == "hac":
        tables, act, update = _hac_tables(settings), _hac_act(settings), _hac_update(settings)
    else:
        assert trie is not None
        tables, act = _hsrl_tables(settings, trie), _hsrl_act(settings, trie)
        update = _hsrl_update(settings, trie)
    updates = settings.replay_ratio / settings.batch_size  # per user-step
    return UserStep(
        policy=act.forward,
        simulator=response(settings).forward,
        tables=tables.forward / (settings.users * settings.fragment),
        update=update.total * updates,
    )


def response(settings: BenchSettings[Any]) -> Flops:
    """The response model of one user, from its tables (``envs.response.FrozenResponse``)."""
    world = settings.world
    dim, heads, length = world.response_dim, world.response_heads, world.history
    return (
        product(length, dim, length)  # self-attention's scores, all heads
        + product(heads * heads, dim / heads, length) * 2  # the profile's query times values; pooled values
        + product(heads * heads, length, length) * 2  # through the self-attention, there and back
        + product(heads, dim, dim)  # cross-attention's heads to the user's vector
        + product(world.slate, dim, 1)  # the shown items' logits
    ).alone()


def _encoder(settings: BenchSettings[Any]) -> Flops:
    """The state of one user (``rl_rec.encoder.StateEncoder``)."""
    shape, world = settings.agent.encoder, settings.world
    dim, ff, tokens = shape.dim, shape.feedforward, world.history + 1
    attention = product(tokens, dim, tokens) * 2  # scores and values, all heads
    layer = (
        product(tokens, dim, 3 * dim)  # queries, keys, values
        + attention
        + product(tokens, dim, dim)  # output
        + product(tokens, dim, ff) * 2  # feed-forward, up and down
    )
    last = (
        product(1, dim, dim) * 2  # the last token's query, and back through the keys' projection
        + product(shape.heads, dim, tokens) * 2  # it meets the raw tokens; they are pooled
        + product(1, dim, dim) * 2  # the values' projection, output
        + product(1, dim, ff) * 2
    )
    profile = product(1, world.profile_features, dim, gradients=1)  # features have no gradient
    return profile + layer * (shape.layers - 1) + last


def _item_encoder(rows: float, features: int, dim: int, hidden: int) -> Flops:
    """φ of rows of features, which have no gradient."""
    linear = product(rows, features, dim, gradients=1)
    if not hidden:
        return linear
    return linear + product(rows, features, hidden, gradients=1) + product(rows, hidden, dim)


def _tokens_table(settings: BenchSettings[Any]) -> Flops:
    world = settings.world
    return product(world.items + 1, world.item_features, settings.agent.encoder.dim, gradients=1)


def _hac_tables(settings: BenchSettings[Any]) -> Flops:
    """History tokens and φ of the whole catalogue."""
    world, agent = settings.world, settings.agent
    rows, dim = world.items + 1, agent.encoder.dim
    return _tokens_table(settings) + _item_encoder(rows, world.item_features, dim, agent.item_hidden)


def _hac_act(settings: BenchSettings[Any]) -> Flops:
    dim = settings.agent.encoder.dim
    scores = product(1, dim, settings.world.items + 1)
    return (_encoder(settings) + product(1, dim, dim) + scores).alone()


def _hac_update(settings: BenchSettings[Any]) -> Flops:
    """One batch: ``rl_rec.hac.losses.predict`` and the backward pass."""
    agent, world = settings.agent, settings.world
    dim, rows = agent.encoder.dim, settings.batch_size
    widths = [2 * dim, *agent.critic_hidden, 1]  # state and action side by side
    first, *others = (product(1, a, b) for a, b in pairwise(widths))
    critic = sum(others, first)
    q = sum(others, Flops(first.forward, first.forward))  # state and slate come without gradient
    scores = product(1, dim, world.items + 1)
    policy_q = Flops()
    if agent.policy_weight:
        policy_q = Flops(critic.forward, critic.forward)  # through the critic, not into it
        if agent.policy_action == "soft_effect":
            policy_q += Flops(scores.forward, scores.forward) * 2  # scores, and the softmax times fixed φ
    target = _encoder(settings) + product(1, dim, dim) + critic
    if agent.critic_action == "effect":
        target += scores
    per_row = (
        _encoder(settings)
        + product(1, dim, dim)  # μ
        + q
        + policy_q
        + product(world.slate, dim, 1)  # the shown items' scores
        + target.alone()
    )
    tables = _hac_tables(settings)
    return per_row * rows + tables + tables.alone()  # the targets' tables too


def _hsrl_tables(settings: BenchSettings[Any], trie: Trie) -> Flops:
    """What nodes and items are scored with (``HierarchicalPolicy.tables``)."""
    world, agent = settings.world, settings.agent
    features, dim, hidden = world.item_features, agent.encoder.dim, agent.item_hidden
    total = _tokens_table(settings)
    for level in range(1, trie.levels + 1):
        nodes = trie.nodes(level)
        total += product(trie.sizes[level - 1], features, dim, gradients=1)  # tokens' centres
        if agent.node_scores:
            total += _item_encoder(nodes, features, dim, hidden)  # φ of the node's mean features
            total += _item_encoder(nodes, 2 * features, dim, hidden)  # ψ of mean and deviation
            total += product(nodes, dim, 1)  # score of the mean
    return total + _item_encoder(world.items, features, dim, hidden) + product(world.items, dim, 1)


def _affinity(trie: Trie, level: int, nodes: int, width: int, gradients: int = 2) -> Flops:
    """Queries times the children, at ``level``, of some nodes: of all nodes there, or those gathered."""
    children = nodes * trie.widths[level - 1]
    dense = gathered_rows_cost_more(trie.most(level), children)
    return product(1, width, trie.nodes(level) if dense else children, gradients)


def _expand(
    settings: BenchSettings[Any], trie: Trie, level: int, nodes: int, contexts: int, context_gradients: int
) -> Flops:
    """The distributions over the children of ``nodes`` nodes of ``level`` (``HierarchicalPolicy.expand``)."""
    dim = settings.agent.encoder.dim
    token = product(contexts, dim, trie.sizes[level], context_gradients)
    return token + _affinity(trie, level + 1, nodes, 2 * dim + 1)


def _follow(settings: BenchSettings[Any], trie: Trie, paths: int, detached: bool = False) -> Flops:
    """Items followed from the root to their leaves (``HierarchicalPolicy.follow``).

    ``detached``: state, and what items are scored with, have no gradient.
    """
    dim = settings.agent.encoder.dim
    total, nodes = Flops(), 1
    for level in range(trie.levels):
        gradients = 1 if detached and level == 0 else 2
        total += _expand(settings, trie, level, nodes, nodes, gradients)
        all_of_a_small_first_level = level == 0 and trie.levels > 1 and trie.nodes(1) <= paths
        nodes = trie.nodes(1) if all_of_a_small_first_level else paths
    bucket = _affinity(trie, trie.levels + 1, paths, dim + 1, gradients=0 if detached else 2)
    return total + bucket


def _heads(settings: BenchSettings[Any]) -> Flops:
    """μ(s) and ν(s)."""
    dim = settings.agent.encoder.dim
    return product(1, dim, dim) * 2


def _hsrl_act(settings: BenchSettings[Any], trie: Trie) -> Flops:
    """Draws without replacement: what may not be shown is followed, then the tree is searched K wide."""
    world, dim = settings.world, settings.agent.encoder.dim
    total = _encoder(settings) + _heads(settings)
    if settings.rules.repeats == "forbid":
        total += _follow(settings, trie, world.history)
    beams = 1
    for level in range(trie.levels):
        total += _expand(settings, trie, level, beams, beams, 2)
        beams = min(world.slate, beams * trie.widths[level])
    total += _affinity(trie, trie.levels + 1, beams, dim + 1)
    return (total + _taken(settings, trie)).alone()


def _taken(settings: BenchSettings[Any], trie: Trie) -> Flops:
    """The mass of what slots may not show, below each of their nodes (``rl_rec.hsrl.likelihood.exclude``)."""
    slots, off = settings.world.slate, settings.agent.exclusions == "off"
    excluded = settings.world.history if settings.rules.repeats == "forbid" and not off else 0
    return product(slots, slots + excluded, 1, gradients=1) * (trie.levels + 1)


def _hsrl_update(settings: BenchSettings[Any], trie: Trie) -> Flops:
    """One batch: ``rl_rec.hsrl.losses.predict`` and the backward pass."""
    agent, world = settings.agent, settings.world
    dim, slots = agent.encoder.dim, world.slate
    excluded = world.history if settings.rules.repeats == "forbid" and agent.exclusions != "off" else 0
    widths = [dim, *agent.critic_hidden, 1]
    first, *others = (product(slots, a, b) for a, b in pairwise(widths))
    value = sum(others, Flops(first.forward, first.forward))  # contexts come without gradient
    per_row = (
        _encoder(settings)
        + _heads(settings)
        + _follow(settings, trie, slots + excluded)
        + _taken(settings, trie)
        + value * ((trie.levels if agent.multi_level_critic else 0) + 1)
        + product(1, dim, 1)  # level of the response
    )
    if agent.consistency_weight:
        per_row += product(1, dim, dim, gradients=1)  # ν of the state without gradient
        per_row += _follow(settings, trie, slots, detached=True)
    return per_row * settings.batch_size + _hsrl_tables(settings, trie)
