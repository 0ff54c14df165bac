"""HSRL's networks: the hierarchical policy and the multi-level critic, plain torch.

Glossary: B users, P paths, K slate size, N items, D width, F item features, L levels, V_l tokens of level l,
M_l nodes of level l, C children.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rl_rec.encoder import StateEncoder
from rl_rec.hsrl.config import HSRLSettings
from rl_rec.item_encoder import ItemEncoder
from rl_rec.residual_actor import ResidualActor, view_of
from rl_rec.sids.trie import Trie

CLOSED = -1e9
"""Logit of a child that does not exist or has no live item: finite, so that a node without any stays finite."""

EXACT = torch.float64
"""Of probabilities that are subtracted from each other."""

_BLOCK = 1 << 18
"""Floats of the table's rows that are gathered at a time."""
_DENSE = 16
"""One matmul over this many times the rows that are wanted still costs less than gathering those."""
_ROWS = 1 << 17
"""Rows of a table that are made at a time."""


class Tables(NamedTuple):
    """What one set of weights makes of the catalogue: computed once per update, then gathered.

    Lists are by level; index 0, the root, is unused. What meets a query is divided by the temperature.
    """

    history: Tensor
    """(N + 1, D) history tokens W·features."""
    rows: list[Tensor]
    """What a query meets, side by side, so that a node is gathered once. Levels 1 … L: (M_l, 2D + 1)
    φ(mean features of the node's live items), ψ(mean and deviation: what the mean hides), and a bias, the
    learned score of the mean plus the log of the live items below. Level L + 1: (N, D + 1) φ(x_i), score."""
    many: list[Tensor]
    """Levels 1 … L: (M_l,) 1 − 1 / live items: nothing is hidden in a node of one item."""
    embedding: list[Tensor]
    """Levels 1 … L: (V_l, D) token embeddings E_l."""
    weight: list[Tensor]
    """Levels 1 … L: (V_l, D) W_l + E_l: both meet the context."""
    bias: list[Tensor]
    """Levels 1 … L: (V_l,) of W_l."""
    norm: list[Tensor]
    """Levels 1 … L: (2, D) scale and shift of LayerNorm."""

    def detach(self) -> "Tables":
        """The same numbers, no gradient to anything."""
        lists = ([tensor.detach() for tensor in field] for field in self[1:])
        return Tables(self.history.detach(), *lists)

    def without_items(self) -> "Tables":
        """The same numbers, no gradient to what items are scored with."""
        dim = self.history.shape[1]
        inner = [
            torch.cat([rows[:, :dim].detach(), rows[:, dim:-1], rows[:, -1:].detach()], dim=1)
            for rows in self.rows[1:-1]
        ]
        return self._replace(rows=[self.rows[0], *inner, self.rows[-1].detach()])


class State(NamedTuple):
    """A batch of users, encoded."""

    s: Tensor
    """(B, D) state."""
    mu: Tensor
    """(B, D) μ(s), what items are scored with; gradient to Δ alone where there are two heads."""
    base: Tensor
    """(B, D) what supervision teaches: μ(s), or its part z_c where there are two heads."""
    nu: Tensor
    """(B, D) ν(s), what nodes are scored with besides."""

    def detach(self) -> "State":
        """The same numbers, no gradient to anything."""
        return State(*(part.detach() for part in self))


class Expansion(NamedTuple):
    """The children of some nodes and the policy's distribution over them."""

    node: Tensor
    """(B, P, C) int64 in the next level."""
    valid: Tensor
    """(B, P, C) bool."""
    logit: Tensor
    """(B, P, C), ``CLOSED`` where not valid; of an item its score over the temperature."""
    log_prob: Tensor
    """(B, P, C) log π(child | node), near ``CLOSED`` where not valid; of the type that was asked for."""


class Paths(NamedTuple):
    """Items followed from the root to their leaves."""

    log_joint: list[Tensor]
    """For levels 0 … L + 1, (B, P) float64 log-probability of reaching the item's node; level 0 is zero."""
    score: Tensor
    """(B, P) score of the item over the temperature; the policy is meant to be in proportion to exp(score)."""
    context: list[Tensor]
    """For levels 0 … L, (B, P, D) c_l, what the choice at level l + 1 was made from."""
    entropy: list[Tensor]
    """For levels 0 … L − 1, (B, P) entropy of that choice."""


class HierarchicalPolicy(nn.Module):
    """HPN (HSRL, section 4.2): tokens coarse to fine, each from what the tokens before left of the state.

    c_0 = s; π_l = softmax over the valid children of the chosen prefix; c_l = LayerNorm(c_{l−1} − E_l[z_l]).
    Differs from the paper, whose logit is W_l·c_{l−1} alone, the same below every prefix:

    - an item within its bucket has the logit f_i = μ(s)·φ(x_i) + its learned score;
    - a node of n live items has f(mean of their features) + log n + (1 − 1/n)·(W_l·c_{l−1} + E_l·c_{l−1} +
      ν(s)·ψ(mean, deviation)): what its items have in common, their number, and a correction that a node of a
      single item does not need;
    - E_l is a free vector plus a linear map of the token's centre.
    """

    def __init__(
        self,
        num_user_features: int,
        num_item_features: int,
        history_length: int,
        centres: Sequence[Tensor],
        settings: HSRLSettings,
    ) -> None:
        """``centres``: (V_l, F') of each level, from the codebook."""
        super().__init__()
        dim = settings.encoder.dim
        self.context, self.temperature = settings.context, settings.temperature
        self.node_scores = settings.node_scores
        self.encoder = StateEncoder(
            num_user_features,
            num_item_features,
            history_length=history_length,
            **settings.encoder.shape,
        )
        self.mu: nn.Module = nn.Linear(dim, dim)
        if settings.residual:
            self.mu = ResidualActor(dim, dim + num_user_features, settings.residual)
        self.nu = nn.Linear(dim, dim)
        self.item_encoder = ItemEncoder(num_item_features, dim, settings.item_hidden)
        self.item_score = nn.Linear(dim, 1, bias=False)
        self.node_encoder = ItemEncoder(2 * num_item_features, dim, settings.item_hidden)
        self.heads = nn.ModuleList(nn.Linear(dim, len(c)) for c in centres)
        self.free = nn.ParameterList(torch.zeros(len(c), dim) for c in centres)
        self.centre_maps = nn.ModuleList(nn.Linear(c.shape[1], dim, bias=False) for c in centres)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in centres)
        for level, c in enumerate(centres):
            self.register_buffer(f"centres_{level}", c.clone())
        for head, centre_map in zip(
            self.heads, self.centre_maps, strict=True
        ):  # tokens begin with little to say
            nn.init.normal_(cast(nn.Linear, head).weight, std=0.01)
            nn.init.zeros_(cast(nn.Linear, head).bias)
            nn.init.normal_(cast(nn.Linear, centre_map).weight, std=0.02)
        # Level of the response probability, in the supervised loss only: it cannot change a ranking.
        self.response_level = nn.Linear(dim, 1)

    @property
    def levels(self) -> int:
        """L."""
        return len(self.heads)

    def tables(self, trie: Trie) -> Tables:
        """Tables of the current weights and the live catalogue."""
        unused = trie.features.new_zeros(0)
        rows, many, embedding, weight, bias, norm = ([unused] for _ in range(6))
        for level in range(1, self.levels + 1):
            count = trie.count[level].clamp(min=1)
            many.append(1 - 1 / count if self.node_scores else torch.ones_like(count))
            rows.append(self._node_rows(*trie.moments(level), many[-1], count.log()))
            embedding.append(self.free[level - 1] + self.centre_maps[level - 1](self._centres(level)))
            head, scale = cast(nn.Linear, self.heads[level - 1]), cast(nn.LayerNorm, self.norms[level - 1])
            weight.append((head.weight + embedding[-1]) / self.temperature)
            bias.append(head.bias / self.temperature)
            norm.append(torch.stack([scale.weight, scale.bias]))
        rows.append(self._leaf_rows(trie.features, trie.item))
        return Tables(self.encoder.item_tokens(trie.features), rows, many, embedding, weight, bias, norm)

    def _node_rows(self, mean: Tensor, deviation: Tensor, many: Tensor, log_count: Tensor) -> Tensor:
        if not self.node_scores:
            return log_count.new_zeros(len(log_count), 2 * self.nu.out_features + 1)

        def made(part: slice) -> Tensor:
            phi = self.item_encoder.embed(mean[part]) / self.temperature
            psi = self.node_encoder.embed(torch.cat([mean[part], deviation[part]], dim=1)) / self.temperature
            bias = self.item_score(phi) + log_count[part, None]
            return torch.cat([phi, many[part, None] * psi, bias], dim=1)

        return _in_blocks(made, len(mean))

    def _leaf_rows(self, features: Tensor, item: Tensor) -> Tensor:
        def made(part: slice) -> Tensor:
            phi = self.item_encoder.embed(features[item[part]]) / self.temperature
            return torch.cat([phi, self.item_score(phi)], dim=1)

        return _in_blocks(made, len(item))

    def state(
        self, tables: Tables, profile: Tensor, history: Tensor, noise: torch.Generator | None = None
    ) -> State:
        """Encode users: profile (B, P), history (B, H); see ``StateEncoder.forward``."""
        return self.heads_of(self.encoder(tables.history, profile, history, noise), profile)

    def heads_of(self, s: Tensor, profile: Tensor) -> State:
        """The queries of states (B, D)."""
        if isinstance(self.mu, ResidualActor):
            return State(s, self.mu(s, self.view(s, profile)), self.mu.base(s), self.nu(s))
        mu = self.mu(s)
        return State(s, mu, mu, self.nu(s))

    def view(self, context: Tensor, profile: Tensor) -> Tensor:
        """What Δ and critic see of contexts (B, ..., D), without gradient: with two heads the inputs too."""
        if not isinstance(self.mu, ResidualActor):
            return context.detach()
        return view_of(context, profile[:, : self.encoder.profile.in_features])

    def scores(self, base: Tensor, tables: Tables, trie: Trie, items: Tensor) -> Tensor:
        """Scores over the temperature of items (B, P) by queries (B, D): (B, P)."""
        leaf = trie.path[items][..., -1]
        return torch.bmm(F.embedding(leaf, tables.rows[-1]), _with_one(base)[:, :, None]).squeeze(-1)

    def expand(
        self,
        state: State,
        tables: Tables,
        trie: Trie,
        level: int,
        node: Tensor,
        context: Tensor,
        dtype: torch.dtype = torch.float32,
    ) -> Expansion:
        """The distribution over the children of nodes (B, P) of ``level`` (0 … L), given c_level (B, P, D).

        ``dtype`` is that of ``log_prob``.
        """
        child, valid = trie.children(level, node)  # (B, P, C)
        below = level + 1
        if level == self.levels:
            logit = affinity(_with_one(state.mu), tables.rows[below], child, trie.most(below))
        else:
            query = _with_one(state.mu, state.nu)  # (B, 2D + 1)
            token = F.linear(context, tables.weight[below], tables.bias[below])  # (B, P, V)
            hidden = token.gather(2, trie.token[below][child]) * tables.many[below][child]
            logit = affinity(query, tables.rows[below], child, trie.most(below)) + hidden
        logit = logit.masked_fill(~valid, CLOSED)
        return Expansion(child, valid, logit, logit.log_softmax(dim=-1, dtype=dtype))

    def descend(
        self, tables: Tables, trie: Trie, level: int, context: Tensor, node: Tensor, expansion: Expansion
    ) -> Tensor:
        """c_level from c_{level−1} (B, P, D), for the chosen nodes (B, P) of ``level`` (1 … L)."""
        if self.context == "state":
            return context
        embedding = tables.embedding[level]  # (V, D)
        if self.context == "sampled":
            chosen = F.embedding(trie.token[level][node], embedding)
        else:  # Σ_v π(v)·E[v]
            share = (expansion.log_prob.exp() * expansion.valid).to(embedding.dtype)
            by_token = share.new_zeros(*share.shape[:2], len(embedding))
            chosen = by_token.scatter_add(2, trie.token[level][expansion.node], share) @ embedding
        scale, shift = tables.norm[level]
        eps = cast(nn.LayerNorm, self.norms[level - 1]).eps
        return F.layer_norm(context - chosen, scale.shape, scale, shift, eps)

    def follow(self, state: State, tables: Tables, trie: Trie, items: Tensor, detailed: int = 0) -> Paths:
        """Log-probabilities of items (B, P), before anything is excluded.

        They are float64, for what is excluded is subtracted: what is left may be any small part.

        ``detailed``: of how many of them, from the first, contexts and entropies are wanted.
        """
        users, paths = items.shape
        target = F.embedding(items, trie.path)  # (B, P, L + 1)
        at = torch.zeros_like(target[..., 0])  # (B, P) where each path is
        # What is expanded: the root alone, then all of a small first level or else a node for each path.
        node, context, row = at[:, :1], state.s[:, None], None
        log_joint = [torch.zeros(users, paths, dtype=EXACT, device=items.device)]
        contexts, entropies = [context.expand(-1, detailed, -1)], []
        for level in range(self.levels):
            expansion = self.expand(state, tables, trie, level, node, context, EXACT)
            if detailed:
                mine = expansion.log_prob if row is not None else expansion.log_prob[:, :detailed]
                entropy = _entropy(mine)
                entropies.append(
                    entropy.expand(-1, detailed) if row is None else entropy.gather(1, row[:, :detailed])
                )
            chosen, last = target[..., level], level == self.levels - 1
            place = chosen - trie.first[level][at]  # (B, P)
            log_joint.append(log_joint[-1] + _pick(expansion.log_prob, place, row))
            at = chosen
            if level == 0 and not last and self.context == "sampled" and trie.nodes(1) <= paths:
                row = chosen
                node = torch.arange(trie.nodes(1), device=items.device).expand(users, -1)
                context = self.descend(tables, trie, 1, context, node, expansion)  # (B, M_1, D)
                contexts.append(rows_of(context, row[:, :detailed]))
                continue
            wanted = detailed if last else paths  # nothing is chosen from the last context but the item
            if row is not None:
                context, row = rows_of(context, row[:, :wanted]), None
            expansion = Expansion(*(part[:, :wanted] for part in expansion))
            node = chosen[:, :wanted]
            context = self.descend(tables, trie, level + 1, context[:, :wanted], node, expansion)
            context = context.expand(-1, wanted, -1)
            contexts.append(context[:, :detailed])
        score, log_prob = self._in_bucket(state, tables, trie, at, target[..., -1])
        log_joint.append(log_joint[-1] + log_prob)
        return Paths(log_joint, score, contexts, entropies)

    def _in_bucket(
        self, state: State, tables: Tables, trie: Trie, bucket: Tensor, leaf: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Scores and log π, the latter float64, of leaves (B, P) within their buckets (B, P)."""
        rows = tables.rows[-1]
        if not gathered_rows_cost_more(len(rows), bucket.shape[1] * trie.widths[-1]):
            expansion = self.expand(state, tables, trie, self.levels, bucket, state.s[:, None], EXACT)
            place = leaf - trie.first[self.levels][bucket]
            return _pick(expansion.logit, place), _pick(expansion.log_prob, place)
        # All buckets at once; each is shifted by its own largest score, so that none underflows.
        scores = (_with_one(state.mu) @ rows.T).masked_fill(~trie.live[trie.item], CLOSED)  # (B, N)
        of_leaf = trie.bucket.expand(len(scores), -1)
        shift = scores.new_full((len(scores), trie.nodes(self.levels)), CLOSED)
        shift.scatter_reduce_(1, of_leaf, scores.detach(), "amax")
        exact, shift = scores.to(EXACT), shift.to(EXACT)
        total = torch.zeros_like(shift).index_add(1, trie.bucket, (exact - shift.gather(1, of_leaf)).exp())
        log_prob = exact.gather(1, leaf) - (total.log() + shift).gather(1, bucket)
        return scores.gather(1, leaf), log_prob

    def _centres(self, level: int) -> Tensor:
        return cast(Tensor, getattr(self, f"centres_{level - 1}"))


def affinity(query: Tensor, rows: Tensor, node: Tensor, most: int) -> Tensor:
    """Queries times the rows of nodes: (B, D'), (M, D'), (B, P, C) → (B, P, C).

    By one matmul over all nodes, then gathered, where that is the smaller way (``most``: M at most); else
    nothing of size (B, M), and without gradients only a block of gathered rows at a time (it stays in cache).
    """
    flat = node.flatten(1)
    users, width = flat.shape[0], rows.shape[1]
    if gathered_rows_cost_more(most, flat.shape[1]):
        return (query @ rows.T).gather(1, flat).view_as(node)
    step = max(1, _BLOCK // (flat.shape[1] * width))
    if torch.is_grad_enabled() or users <= step:
        return torch.bmm(F.embedding(flat, rows), query[:, :, None]).view_as(node)
    product = query.new_empty(*flat.shape, 1)
    gathered = query.new_empty(step * flat.shape[1], width)
    for begin in range(0, users, step):
        part = slice(begin, min(begin + step, users))
        index = flat[part].flatten()
        block = torch.index_select(rows, 0, index, out=gathered[: len(index)])
        torch.bmm(block.view(-1, flat.shape[1], width), query[part, :, None], out=product[part])
    return product.view_as(node)


def gathered_rows_cost_more(rows: int, wanted: int) -> bool:
    """Whether one matmul over all ``rows`` of a table costs less than gathering the ``wanted`` ones."""
    return rows <= _DENSE * wanted


def _with_one(*queries: Tensor) -> Tensor:
    """Queries (B, D) side by side, and the 1 that meets the bias."""
    return torch.cat([*queries, queries[0].new_ones(len(queries[0]), 1)], dim=1)


def _in_blocks(made: Callable[[slice], Tensor], rows: int) -> Tensor:
    """All rows; without gradients some at a time, for tables of millions."""
    if torch.is_grad_enabled() or rows <= _ROWS:
        return made(slice(rows))
    first = made(slice(_ROWS))
    table = first.new_empty(rows, first.shape[1])
    table[:_ROWS] = first
    for begin in range(_ROWS, rows, _ROWS):
        part = slice(begin, min(begin + _ROWS, rows))
        table[part] = made(part)
    return table


def rows_of(x: Tensor, index: Tensor) -> Tensor:
    """Rows ``index`` (B, W') of x (B, W, ...): (B, W', ...)."""
    index = index.view(*index.shape, *[1] * (x.dim() - 2)).expand(*index.shape, *x.shape[2:])
    return x.gather(1, index)


def _pick(values: Tensor, place: Tensor, row: Tensor | None = None) -> Tensor:
    """Entries (B, P) of (B, P, C), of its rows ``row`` (B, P), or of the one row (B, 1, C) of all paths."""
    if row is not None:
        return values.flatten(1).gather(1, row * values.shape[2] + place)
    if values.shape[1] == 1:
        return values[:, 0].gather(1, place)
    return values.gather(2, place[..., None]).squeeze(-1)


def _entropy(log_prob: Tensor) -> Tensor:
    return -(log_prob.exp() * log_prob).sum(dim=-1).float()


class MultiLevelCritic(nn.Module):
    """MLC (HSRL, section 4.3): V_l(c_l) for l = 0 … L, V(s) = Σ_l w_l·V_l, w = softmax(ω), ω learned."""

    def __init__(self, dim: int, hidden: Sequence[int], levels: int) -> None:
        """``levels``: L; 0 makes it one critic on the state."""
        super().__init__()
        self.values = nn.ModuleList(_mlp((dim, *hidden, 1)) for _ in range(levels + 1))
        self.omega = nn.Parameter(torch.zeros(levels + 1))

    @property
    def weights(self) -> Tensor:
        """w = softmax(ω): (L + 1,)."""
        return self.omega.softmax(dim=0)

    def forward(self, contexts: Sequence[Tensor]) -> Tensor:
        """V_l of contexts c_0 … c_L, each (B, P, D): (B, P, L + 1)."""
        pairs = zip(self.values, contexts, strict=False)
        return torch.cat([value(context) for value, context in pairs], dim=-1)


class HSRLNetworks(nn.Module):
    """All weights of one HSRL agent (its targets are a second instance)."""

    def __init__(
        self,
        num_user_features: int,
        num_item_features: int,
        history_length: int,
        centres: Sequence[Tensor],
        settings: HSRLSettings,
    ) -> None:
        """Arguments: as of :class:`HierarchicalPolicy`."""
        super().__init__()
        self.policy = HierarchicalPolicy(
            num_user_features, num_item_features, history_length, centres, settings
        )
        levels = len(centres) if settings.multi_level_critic else 0
        width = settings.encoder.dim + (num_user_features if settings.residual else 0)
        self.critic = MultiLevelCritic(width, settings.critic_hidden, levels)

    def values(self, contexts: Sequence[Tensor], profile: Tensor) -> Tensor:
        """V_l of contexts c_0 … c_L, each (B, P, D), gradient to the critic alone: (B, P, L + 1)."""
        return self.critic([self.policy.view(context, profile) for context in contexts])

    def policy_parameters(self) -> list[nn.Parameter]:
        """What the actor's optimizer moves: everything but the critic and Δ."""
        residual = {id(parameter) for parameter in self.residual_parameters()}
        return [parameter for parameter in self.policy.parameters() if id(parameter) not in residual]

    def residual_parameters(self) -> list[nn.Parameter]:
        """Those of Δ; none with a single head."""
        mu = self.policy.mu
        return list(mu.residual.parameters()) if isinstance(mu, ResidualActor) else []


def _mlp(sizes: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
