"""HSRL written the plain way: what the fast code must equal, and what its speed is compared with.

Every layer over all positions with ``nn.TransformerEncoderLayer``; the whole tree is walked, so that every
item has its probability, and what is left below a node is a sum over its items; one forward pass per loss.
It runs on the very parameters of ``HSRLNetworks``, dropout off.
Glossary: B users, H history length, K slate size, N items, D width, L levels, M_l nodes of level l, C children.
"""

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from envs.errors import UserError
from envs.reward import MISS, UNIT
from envs.transition import Observation
from envs.world import World
from rl_rec.bench.plain import encode
from rl_rec.hsrl.config import HSRLSettings
from rl_rec.hsrl.networks import HierarchicalPolicy, HSRLNetworks
from rl_rec.policy import Decision
from rl_rec.sids.trie import Trie
from rl_rec.slates import sample_without_replacement
from rl_rec.transitions import Transitions

_KNOWN = {
    "context": "sampled",
    "node_scores": True,
    "credit": "level",
    "multi_level_critic": True,
    "exclusions": "slots",
    "residual": 0.0,
    "value_scale": None,
}


class Walk(NamedTuple):
    """The whole tree as one batch of users sees it; lists are by level."""

    context: list[Tensor]
    """Levels 0 … L: (B, M_l, D)."""
    entropy: list[Tensor]
    """Levels 0 … L: (B, M_l) of the choice among a node's children."""
    log_joint: list[Tensor]
    """Levels 0 … L + 1: (B, M_l) log-probability of reaching each node."""
    score: Tensor
    """(B, N) of the items as leaves, over the temperature."""


class PlainHSRL:
    """Acting and losses of HSRL over one set of networks and their targets."""

    def __init__(
        self,
        world: World,
        trie: Trie,
        settings: HSRLSettings,
        forbid_repeats: bool,
        noise: torch.Generator,
    ) -> None:
        """``noise`` draws the exploration.

        Raises:
            UserError: variants of HSRL that the plain version does not spell out.
        """
        if settings.encoder.dropout or any(getattr(settings, name) != value for name, value in _KNOWN.items()):
            known = ", ".join(f"agent.{name}={value}" for name, value in _KNOWN.items())
            raise UserError(f"the plain loop knows {known} and agent.encoder.dropout=0 only")
        self.world, self.trie, self.settings = world, trie, settings
        self.forbid, self.noise = forbid_repeats, noise
        self.above = trie.path[trie.item].T.contiguous()  # (L + 1, N) nodes above each leaf, levels 1 … L + 1

    def state(self, networks: HSRLNetworks, user: Tensor, history: Tensor) -> Tensor:
        """State (B, D) of users (B,) with histories (B, H)."""
        return encode(networks.policy.encoder, self.world, user, history)

    def walk(self, policy: HierarchicalPolicy, s: Tensor, *, items_fixed: bool = False) -> Walk:
        """Walk the whole tree in states (B, D); ``items_fixed``: no gradient to what items are scored with."""
        trie, temperature = self.trie, policy.temperature
        mu, nu = policy.mu(s), policy.nu(s)  # (B, D)
        if items_fixed:
            mu = mu.detach()
        contexts, entropies, joints = [s[:, None]], [], [s.new_zeros(len(s), 1)]
        logit = torch.empty(0)
        for level in range(policy.levels + 1):
            child, exists = trie.children(level, torch.arange(trie.nodes(level), device=s.device))  # (M, C)
            parent = torch.arange(len(child), device=s.device)[:, None].expand_as(child)[exists]  # (M',)
            count = trie.count[level + 1]
            last = level == policy.levels
            mean, deviation = (self._leaf_features(), None) if last else trie.moments(level + 1)
            phi = policy.item_encoder.embed(mean)  # (M', D)
            own = policy.item_score(phi).squeeze(-1)
            if items_fixed:
                phi, own = phi.detach(), own.detach()
            logit = (mu @ phi.T + own) / temperature + count.log()
            token = trie.token[level + 1] if not last else parent
            if not last:
                assert deviation is not None
                psi = policy.node_encoder.embed(torch.cat([mean, deviation], dim=1))
                embedding = self._embedding(policy, level)  # (V, D)
                head = cast(nn.Linear, policy.heads[level])
                context = contexts[-1][:, parent]  # (B, M', D)
                tokens = ((head.weight + embedding)[token] * context).sum(dim=-1) + head.bias[token]
                logit = logit + (1 - 1 / count) * (tokens + nu @ psi.T) / temperature
                contexts.append(policy.norms[level](context - embedding[token]))
            rows = torch.full((len(s), child.numel()), float("-inf"), device=s.device)
            rows[:, exists.flatten()] = logit
            log_prob = rows.view(len(s), *child.shape).log_softmax(dim=-1)  # (B, M, C)
            finite = log_prob.masked_fill(~exists, 0.0)
            entropies.append(-(finite.exp() * finite).sum(dim=-1))
            joints.append(joints[-1][:, parent] + log_prob.flatten(1)[:, exists.flatten()])
        return Walk(contexts, entropies, joints, logit)

    def slot_log_probs(self, walk: Walk, slate: Tensor, history: Tensor) -> Tensor:
        """(B, K, L + 1): each token's share of the mass that is left when it is drawn."""
        rows = []
        closed = torch.zeros_like(walk.score, dtype=torch.bool)  # (B, N)
        if self.forbid:
            closed = self._close(closed, history)
        for slot in range(slate.shape[1]):
            item = slate[:, slot : slot + 1]  # (B, 1)
            left = walk.log_joint[-1].exp().masked_fill(closed, 0.0)  # (B, N)
            mass = [left.sum(dim=1)]
            for level in range(self.trie.levels):
                below = left.new_zeros(len(left), self.trie.nodes(level + 1))
                below = below.index_add(1, self.above[level], left)
                mass.append(below.gather(1, self._node(item, level + 1)).squeeze(1))
            reached = walk.log_joint[-1].gather(1, self._node(item, self.trie.levels + 1)).squeeze(1)
            log_mass = [m.clamp(min=1e-30).log() for m in mass]
            rows.append(torch.stack([*log_mass, reached], dim=1).diff(dim=1))
            closed = self._close(closed, item)
        return torch.stack(rows, dim=1)

    @torch.no_grad()
    def act(self, networks: HSRLNetworks, observation: Observation) -> Decision:
        """Draw K items without replacement, each item's probability known."""
        state = self.state(networks, observation.user, observation.history)
        walk = self.walk(networks.policy, state)
        closed = torch.zeros_like(walk.score, dtype=torch.bool)
        if self.forbid:
            closed = self._close(closed, observation.history)
        open_ = walk.log_joint[-1].masked_fill(closed, float("-inf"))
        slate = self.trie.item[sample_without_replacement(open_, self.world.slate_size, 1.0, self.noise)]
        return Decision(slate, {"log_prob": self.slot_log_probs(walk, slate, observation.history)})

    def backward(self, networks: HSRLNetworks, targets: HSRLNetworks, batch: Transitions) -> None:
        """Set the gradients of ``networks``: a pass per loss, all with the same weights."""
        networks.zero_grad()
        settings = self.settings
        target = self.target(targets, batch)
        self.critic_loss(networks, batch, target).backward()
        if settings.policy_weight:
            (settings.policy_weight * self.policy_loss(networks, batch, target)).backward()
        if settings.entropy_weight:
            (settings.entropy_weight * self.entropy_loss(networks, batch)).backward()
        if settings.cloning_weight:
            (settings.cloning_weight * self.cloning_loss(networks, batch)).backward()
        if settings.supervision_weight:
            (settings.supervision_weight * self.supervision_loss(networks, batch)).backward()
        if settings.consistency_weight:
            (settings.consistency_weight * self.consistency_loss(networks, batch)).backward()

    def critic_loss(self, networks: HSRLNetworks, batch: Transitions, target: Tensor) -> Tensor:
        """(Σ w_l·V_l(c_l) − y)², and each level's own error; critics read contexts, they do not shape them."""
        values = self.values(networks, batch)  # (B, K, L + 1)
        joint = ((values * networks.critic.omega.softmax(dim=0)).sum(dim=-1) - target).square()
        own = (values - target[..., None]).square().mean(dim=-1)
        return self._mean(joint + self.settings.level_value_weight * own, batch)

    def policy_loss(self, networks: HSRLNetworks, batch: Transitions, target: Tensor) -> Tensor:
        """−ρ·A_l·log π(z_l), A_l = w_{l−1}·(y − V_{l−1}(c_{l−1})), the weights scaled to mean 1."""
        assert batch.log_prob is not None
        log_prob = self.log_prob(networks, batch)
        with torch.no_grad():
            weights = networks.critic.omega.softmax(dim=0)
            credit = (target[..., None] - self.values(networks, batch)) * weights * len(weights)
            ratio = (log_prob - batch.log_prob).exp().clamp(max=self.settings.ratio_max)
        return -self._mean((ratio * credit * log_prob).mean(dim=-1), batch)

    def entropy_loss(self, networks: HSRLNetworks, batch: Transitions) -> Tensor:
        """−H, mean over the levels of tokens and the slots."""
        walk = self.walk(networks.policy, self.state(networks, batch.user, batch.history))
        slate = batch.slate.long()
        entropy = [walk.entropy[level].gather(1, self._node(slate, level)) for level in range(self.trie.levels)]
        return -self._mean(torch.stack(entropy).mean(dim=0), batch)

    def cloning_loss(self, networks: HSRLNetworks, batch: Transitions) -> Tensor:
        """−log π of clicked items, mean over levels and clicks."""
        clicked = self._valid(batch) * batch.click
        log_prob = self.log_prob(networks, batch).mean(dim=-1)
        return -(log_prob * clicked).sum() / clicked.sum().clamp(min=1)

    def supervision_loss(self, networks: HSRLNetworks, batch: Transitions) -> Tensor:
        """Cross-entropy of each shown item's score against its response."""
        policy, slate = networks.policy, batch.slate.long()
        state = self.state(networks, batch.user, batch.history)
        phi = policy.item_encoder.embed(self.world.item_features[slate])  # (B, K, D)
        logits = (phi * policy.mu(state)[:, None]).sum(dim=-1) + policy.item_score(phi).squeeze(-1)
        logits = logits + policy.response_level(state)
        clicks = batch.click.to(logits.dtype)
        return self._mean(F.binary_cross_entropy_with_logits(logits, clicks, reduction="none"), batch)

    def consistency_loss(self, networks: HSRLNetworks, batch: Transitions) -> Tensor:
        """Variance over a slate of temperature·log π(i) − f_i; it moves what nodes have besides their items."""
        state = self.state(networks, batch.user, batch.history).detach()
        walk = self.walk(networks.policy, state, items_fixed=True)
        leaf = self._node(batch.slate.long(), self.trie.levels + 1)
        gap = self.settings.temperature * (walk.log_joint[-1] - walk.score).gather(1, leaf)  # (B, K)
        valid = self._valid(batch)
        centre = (gap * valid).sum(dim=1, keepdim=True) / valid.sum(dim=1, keepdim=True).clamp(min=1)
        return self._mean((gap - centre).square(), batch)

    @torch.no_grad()
    def target(self, targets: HSRLNetworks, batch: Transitions) -> Tensor:
        """y = g + γ·(1 − terminated)·V'(s'), along the target policy's most probable path: (B, K)."""
        gain = torch.where(batch.click, 1.0, MISS / UNIT)
        if self.settings.credit_unit == "slate":
            gain = batch.reward[:, None].expand_as(gain)
        if self.settings.gamma == 0:  # nobody would walk a tree for nothing
            return gain
        policy, trie = targets.policy, self.trie
        walk = self.walk(policy, self.state(targets, batch.user, batch.next_history))
        node = torch.zeros_like(batch.user, dtype=torch.int64)[:, None]  # (B, 1)
        future = torch.zeros_like(batch.reward)
        for level, (critic, weight) in enumerate(
            zip(targets.critic.values, targets.critic.omega.softmax(dim=0), strict=True)
        ):
            future = future + weight * critic(_rows(walk.context[level], node)).flatten()
            if level < trie.levels:
                child, exists = trie.children(level, node)  # (B, 1, C)
                reach = walk.log_joint[level + 1].gather(1, child.squeeze(1)).masked_fill(~exists[:, 0], -1e9)
                node = child.squeeze(1).gather(1, reach.argmax(dim=1, keepdim=True))
        return gain + self.settings.gamma * (~batch.terminated * future)[:, None]

    def values(self, networks: HSRLNetworks, batch: Transitions) -> Tensor:
        """V_l(c_l) along each slot's path: (B, K, L + 1)."""
        state = self.state(networks, batch.user, batch.history)
        walk, slate = self.walk(networks.policy, state), batch.slate.long()
        values = [
            critic(_rows(walk.context[level], self._node(slate, level)).detach())
            for level, critic in enumerate(networks.critic.values)
        ]
        return torch.cat(values, dim=-1)

    def log_prob(self, networks: HSRLNetworks, batch: Transitions) -> Tensor:
        """Of the slots' tokens: (B, K, L + 1)."""
        state = self.state(networks, batch.user, batch.history)
        return self.slot_log_probs(self.walk(networks.policy, state), batch.slate.long(), batch.history.long())

    def _leaf_features(self) -> Tensor:
        return self.trie.features[self.trie.item]

    @staticmethod
    def _embedding(policy: HierarchicalPolicy, level: int) -> Tensor:
        centres = cast(Tensor, getattr(policy, f"centres_{level}"))
        return policy.free[level] + policy.centre_maps[level](centres)

    def _node(self, items: Tensor, level: int) -> Tensor:
        """Nodes of ``level`` above items (B, K)."""
        return self.trie.path[items][..., level - 1] if level else torch.zeros_like(items)

    def _close(self, closed: Tensor, items: Tensor) -> Tensor:
        """``closed`` (B, N) and the leaves of items (B, E); 0 = none."""
        hits = (self.trie.item[None, :, None] == items.long()[:, None, :]).any(dim=2)
        return closed | hits

    def _valid(self, batch: Transitions) -> Tensor:
        """Slots of items that could be shown: (B, K) float."""
        slate, history = batch.slate.long(), batch.history.long()
        repeated = (slate[:, :, None] == slate[:, None, :]).tril(diagonal=-1).any(dim=2)
        seen = (slate[:, :, None] == history[:, None, :]).any(dim=2) & self.forbid
        return (~repeated & ~seen).float()

    def _mean(self, x: Tensor, batch: Transitions) -> Tensor:
        valid = self._valid(batch)
        return (x * valid).sum() / valid.sum().clamp(min=1)


def _rows(x: Tensor, node: Tensor) -> Tensor:
    """Rows ``node`` (B, K) of x (B, M, D)."""
    return x.gather(1, node[..., None].expand(-1, -1, x.shape[2]))
