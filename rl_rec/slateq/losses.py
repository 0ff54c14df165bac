"""SlateQ's losses.

Equations are those of Ie et al. (arXiv 1905.12767), sections 4 and 5. Users there click one item of a slate
or none; here they respond to each slot by itself, so a slate's value is the mean over its slots of
p·Q̄(s, i) + (1 − p)·Q̄(s, ∅), and the best slate has the K items of highest p·(Q̄(s, i) − Q̄(s, ∅)).
Glossary: B transitions, K slate size.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from envs.transition import Observation
from rl_rec.scoring.losses import WorldView, bellman_target, supervision_loss, td_loss
from rl_rec.slateq.config import SlateQSettings
from rl_rec.slateq.networks import SlateQNetworks
from rl_rec.slates import top_k
from rl_rec.transitions import Transitions

TD, CHOICE = "td", "choice"


class Predictions(NamedTuple):
    """Everything the losses need, from one forward pass."""

    choice_logits: Tensor
    """(B, K) logit of p(a_k | s)."""
    value: Tensor
    """(B, K) Q̄(s, a_k) of clicked slots, Q̄(s, ∅) of the others."""
    target: Tensor
    """(B, K) y_k, without gradient."""


def predict(
    networks: SlateQNetworks,
    targets: SlateQNetworks,
    batch: Transitions,
    world: WorldView,
    settings: SlateQSettings,
    noise: torch.Generator | None = None,
) -> Predictions:
    """Run networks and targets on a batch; arguments as ``rl_rec.ddpg.losses.predict``."""
    _, afterwards = world.observations(batch)
    user, user_next = batch.user_inputs(world.profiles)
    tables = networks.tables(world.item_features)
    state = networks.state(tables, user, batch.history, noise)
    mu = networks.hyper_actor(state)
    logits = networks.slot_scores(mu, F.embedding(batch.slate, tables.phi)) + networks.response_bias
    levels = networks.levels(state)  # (B, 2) of a click, of a miss
    slot_value = networks.slot_scores(networks.value_head(state), F.embedding(batch.slate, tables.value))
    return Predictions(
        choice_logits=logits,
        value=torch.where(batch.click, slot_value + levels[:, :1], levels[:, 1:]),
        target=td_target(targets, batch, user_next, world, afterwards, settings),
    )


@torch.no_grad()
def td_target(
    targets: SlateQNetworks,
    batch: Transitions,
    user: Tensor,
    world: WorldView,
    afterwards: Observation,
    settings: SlateQSettings,
) -> Tensor:
    """y_k = g_k + γ·(1 − terminated)·V'(s'), V' the value of the best slate: (B, K)."""
    tables = targets.tables(world.item_features)
    state = targets.state(tables, user, batch.next_history)
    gains = targets.gains(state, targets.hyper_actor(state), tables)
    allowed = world.mask(gains.clone(), afterwards)
    best = allowed.gather(1, top_k(allowed, batch.slate.shape[1]))
    # Candidates may be used up: a slot without an item is a miss.
    added = best.masked_fill(best.isinf(), 0.0).mean(dim=1, keepdim=True)
    future = targets.miss_value(state) + added
    return bellman_target(world.slot_rewards(batch), batch.terminated, future, settings.gamma)


def losses(predictions: Predictions, batch: Transitions, settings: SlateQSettings) -> dict[str, Tensor]:
    """The terms ``td`` and ``choice``, each a scalar; their sum is minimised."""
    return {
        TD: td_loss(predictions.value, predictions.target),
        CHOICE: settings.choice_weight * supervision_loss(predictions.choice_logits, batch.click),
    }
