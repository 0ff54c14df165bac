"""HAC written the plain way: what the fast code must equal, and what its speed is compared with.

Every layer over all positions with ``nn.TransformerEncoderLayer``, item features gathered and then projected,
one forward pass per loss. It runs on the very parameters of ``HACNetworks``, dropout off.
Glossary: B users, H history length, K slate size, N items, F item features, D width.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from envs.errors import UserError
from envs.transition import Observation
from envs.world import World
from rl_rec.encoder import EncoderLayer, StateEncoder
from rl_rec.hac.config import HACSettings
from rl_rec.hac.networks import HACNetworks
from rl_rec.policy import Decision
from rl_rec.slates import mask_scores, sample_without_replacement, top_k
from rl_rec.transitions import Transitions

_KNOWN = {"critic_action": "effect", "policy_action": "hyper", "residual": 0.0, "value_scale": None}


def encode(encoder: StateEncoder, world: World, user: Tensor, history: Tensor) -> Tensor:
    """State (B, D) of users (B,) with histories (B, H): every layer over all positions."""
    items = encoder.item(world.item_features[history.long()])  # (B, H, D)
    profile = encoder.profile(world.profiles[user.long()])  # (B, D)
    x = encoder.norm(torch.cat([items, profile[:, None]], dim=1) + encoder.position)
    mask = encoder.attention_mask(encoder.padding_mask(history))  # (B, 1, T, T)
    heads = cast(EncoderLayer, encoder.layers[0]).heads
    mask = mask.expand(-1, heads, -1, -1).flatten(0, 1)
    for layer in encoder.layers:
        x = layer(x, src_mask=mask)
    return cast(Tensor, x[:, -1])


class PlainHAC:
    """Acting and losses of HAC over one set of networks and their targets."""

    def __init__(
        self, world: World, settings: HACSettings, forbid_repeats: bool, noise: torch.Generator | None
    ) -> None:
        """``noise`` draws the exploration.

        Raises:
            UserError: variants of HAC that the plain version does not spell out.
        """
        if settings.encoder.dropout or any(getattr(settings, name) != value for name, value in _KNOWN.items()):
            known = ", ".join(f"agent.{name}={value}" for name, value in _KNOWN.items())
            raise UserError(f"the plain loop knows {known} and agent.encoder.dropout=0 only")
        self.world, self.settings, self.forbid, self.noise = world, settings, forbid_repeats, noise

    def state(self, networks: HACNetworks, user: Tensor, history: Tensor) -> Tensor:
        """State (B, D) of users (B,) with histories (B, H)."""
        return encode(networks.encoder, self.world, user, history)

    def phi(self, networks: HACNetworks, items: Tensor) -> Tensor:
        """φ(x_i) of items (...): (..., D)."""
        x, encoder = self.world.item_features[items.long()], networks.item_encoder
        phi = encoder.linear(x)
        if encoder.correction is not None:
            phi = phi + encoder.correction(x)
        return phi

    def scores(self, networks: HACNetworks, z: Tensor, observation: Observation) -> Tensor:
        """Masked scores (B, N + 1)."""
        scores = networks.scores(z, networks.tables(self.world.item_features))
        return mask_scores(scores, observation, self.forbid)

    @torch.no_grad()
    def act(self, networks: HACNetworks, observation: Observation) -> Decision:
        """Explore as ``HACPolicy.act`` does."""
        exploration = self.settings.exploration
        z = networks.hyper_actor(self.state(networks, observation.user, observation.history))
        if self.noise is not None and exploration.sigma > 0:
            z = z + exploration.sigma * torch.randn(z.shape, generator=self.noise, device=z.device)
        scores = self.scores(networks, z, observation)
        if self.noise is not None and exploration.effect == "categorical":
            slate = sample_without_replacement(
                scores, self.world.slate_size, exploration.temperature, self.noise
            )
        else:
            slate = top_k(scores, self.world.slate_size)
        return Decision(slate, {})

    def backward(self, networks: HACNetworks, targets: HACNetworks, batch: Transitions) -> None:
        """Set the gradients of ``networks``: a pass per loss, all with the same weights."""
        networks.zero_grad()
        self.policy_loss(networks, batch).backward()
        self.regression_loss(networks, batch).backward()
        networks.critic.zero_grad()  # the policy loss went through it
        self.critic_loss(networks, targets, batch).backward()

    def policy_loss(self, networks: HACNetworks, batch: Transitions) -> Tensor:
        """−w·Q(s, μ(s)); the gradient reaches the encoder through the action alone."""
        state = self.state(networks, batch.user, batch.history)
        q = networks.critic(state.detach(), networks.hyper_actor(state))
        return -self.settings.policy_weight * q.mean()

    def regression_loss(self, networks: HACNetworks, batch: Transitions) -> Tensor:
        """Alignment and supervision."""
        mu = networks.hyper_actor(self.state(networks, batch.user, batch.history))
        phi = self.phi(networks, batch.slate)  # (B, K, D)
        logits = networks.slot_scores(mu, phi) + networks.response_bias
        alignment = (mu - phi.mean(dim=1).detach()).square().sum(dim=-1).mean()
        supervision = F.binary_cross_entropy_with_logits(logits, batch.click.to(logits.dtype))
        return self.settings.alignment_weight * alignment + self.settings.supervision_weight * supervision

    def critic_loss(self, networks: HACNetworks, targets: HACNetworks, batch: Transitions) -> Tensor:
        """(Q(s, Ẑ(a)) − y)²; the critic reads the state, it does not shape it."""
        state = self.state(networks, batch.user, batch.history).detach()
        q = networks.critic(state, self.phi(networks, batch.slate).mean(dim=1).detach())
        return F.mse_loss(q, self.target(targets, batch))

    @torch.no_grad()
    def target(self, targets: HACNetworks, batch: Transitions) -> Tensor:
        """y = r + γ·(1 − terminated)·Q'(s', Ẑ(a'))."""
        state = self.state(targets, batch.user, batch.next_history)
        observation = Observation(batch.user, batch.next_history, batch.candidates)
        slate = top_k(
            self.scores(targets, targets.hyper_actor(state), observation), self.world.slate_size
        )  # (B, K)
        future = targets.critic(state, self.phi(targets, slate).mean(dim=1))
        return batch.reward + self.settings.gamma * (~batch.terminated) * future
