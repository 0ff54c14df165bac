"""Optional long-term effects: what a user is shown today changes what they respond to tomorrow.

In a world fitted to logs a myopic ranker is nearly optimal: nothing it does now costs it later. Here it does.

- *Trust*: items have a trait c (allure). logit_i = base_i + allure·c_i + trust·T, and after each step
  T ← λ·T − (1 − λ)·mean_k(click_k·c_k). Alluring items earn clicks now and lose them later (cf. RecSim's
  choc/kale, Ie et al. 2019, arXiv 1909.04847).
- *Satiation*: logit_i falls by satiation·⟨f_i, m⟩, m a decaying mean of the clicked items' unit features f.
- *Drift*: taste wanders: a first-order autoregressive walk of the user's vector, whose standard deviation is
  given in logits.

Glossary: B users, K slate size, N items, F item features, D width, A behaviours.
"""

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from envs.errors import UserError
from envs.randomness import restore
from envs.settings import Settings
from envs.world import World

_TRAIT_LIMIT = 2.0
"""Traits are standardised and clipped here, so that single odd items do not rule."""


class DynamicsSettings(Settings):
    """Long-term effects; all off by default."""

    allure: float = Field(0.0, ge=0.0, le=10.0)
    """What one unit of an item's trait adds to its logit now."""
    trust: float = Field(0.0, ge=0.0, le=10.0)
    """What one unit of the user's trust adds to every logit; above 0 planning pays."""
    trust_decay: float = Field(0.8, ge=0.0, lt=1.0)
    """λ, how much of the trust is left after a step; raising it makes it slower to win and to lose."""
    traits: tuple[str, ...] = ()
    """Item features that make the trait, each with its sign, e.g. ``+genre=Action,-genre=Drama``: their sum
    over how many features of the same groups an item has. Empty: a random direction of the features."""
    satiation: float = Field(0.0, ge=0.0, le=10.0)
    """Weight of the likeness to what was clicked lately; raising it makes variety pay."""
    satiation_decay: float = Field(0.8, ge=0.0, lt=1.0)
    """How much of the memory of clicked items is left after a step."""
    drift: float = Field(0.0, ge=0.0, le=10.0)
    """Standard deviation, in logits, of how far tastes wander."""
    drift_decay: float = Field(0.95, ge=0.0, lt=1.0)
    """Correlation of the wandering taste from step to step."""

    @property
    def active(self) -> bool:
        """Whether anything may differ from the fitted world.

        Also where traits are named that nothing weighs yet: a misspelt one is to be found all the same.
        """
        return bool(self.allure or self.trust or self.satiation or self.drift or self.traits)


class Dynamics:
    """The changing part of B users, and what it does to their logits."""

    def __init__(self, world: World, settings: DynamicsSettings, num_users: int, seed: int) -> None:
        """All users begin at rest.

        Args:
            world: its item features make traits and likeness.
            settings: which effects.
            num_users: B.
            seed: of the wandering tastes.

        Raises:
            UserError: a trait of an unknown feature.
        """
        device = world.device
        self.settings = settings
        self.trait = item_trait(world, settings.traits)  # (N + 1,)
        self._unit = F.normalize(world.item_features, dim=1)  # (N + 1, F)
        self.generator = torch.Generator(device).manual_seed(seed)
        # A walk of deviation 1 per dimension moves the mean item's logit by ‖x_i‖: divided by that, by 1.
        items = world.response.items[1:]
        self._step_size = settings.drift / float(items.square().sum(dim=1).mean().sqrt().clamp(min=1e-9))
        width = world.response.user_offset.shape[1]
        self.state = {
            "trust": torch.zeros(num_users, device=device),
            "memory": torch.zeros(num_users, world.item_features.shape[1], device=device),
            "taste": torch.zeros(num_users, width, device=device),
        }

    def user_vectors(self, z: Tensor) -> Tensor:
        """The users' vectors (B, A·D) where their tastes have wandered to."""
        return z + self._step_size * self.state["taste"] if self.settings.drift else z

    def slate_offset(self, slate: Tensor) -> Tensor:
        """What is added to the positive response's logits of ``slate`` (B, K): (B, K)."""
        offset = self.settings.allure * self.trait[slate] + self.settings.trust * self.state["trust"][:, None]
        if self.settings.satiation:
            likeness = torch.bmm(F.embedding(slate, self._unit), self.state["memory"][:, :, None])[..., 0]
            offset = offset - self.settings.satiation * likeness
        return offset

    def offset(self) -> Tensor:
        """The same of the whole catalogue: (B, N + 1)."""
        offset = self.settings.allure * self.trait + self.settings.trust * self.state["trust"][:, None]
        if self.settings.satiation:
            offset = offset - self.settings.satiation * self.state["memory"] @ self._unit.T
        return offset

    def advance(self, slate: Tensor, click: Tensor, hold: Tensor | None) -> None:
        """Live through one step: slate (B, K) int64 and click (B, K) bool; users in ``hold`` (B,) do not."""
        settings, before = self.settings, self.state
        lured = (click * self.trait[slate]).mean(dim=1)
        after = {"trust": settings.trust_decay * before["trust"] - (1 - settings.trust_decay) * lured}
        if settings.satiation:
            clicked = torch.bmm(click[:, None].float(), F.embedding(slate, self._unit))[:, 0] / slate.shape[1]
            kept = settings.satiation_decay
            after["memory"] = kept * before["memory"] + (1 - kept) * clicked
        if settings.drift:
            kept = settings.drift_decay
            noise = torch.randn(before["taste"].shape, generator=self.generator, device=slate.device)
            after["taste"] = kept * before["taste"] + (1 - kept**2) ** 0.5 * noise
        for name, value in after.items():
            here = None if hold is None else hold.view(-1, *[1] * (value.dim() - 1))
            self.state[name] = value if here is None else torch.where(here, before[name], value)

    def arrive(self, where: Tensor) -> None:
        """New users at ``where`` (B,) begin at rest."""
        for name, value in self.state.items():
            self.state[name] = value.masked_fill(where.view(-1, *[1] * (value.dim() - 1)), 0.0)

    def state_dict(self) -> dict[str, Any]:
        """Users and generator, on the CPU."""
        users = {name: value.cpu() for name, value in self.state.items()}
        return {**users, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue bit-equal from ``state_dict``."""
        self.state = {name: state[name].to(value.device) for name, value in self.state.items()}
        restore(self.generator, state["generator"])


def item_trait(world: World, traits: tuple[str, ...]) -> Tensor:
    """c of every item, standardised over the catalogue and clipped to ±2: (N + 1,) float32, 0 for the padding.

    Args:
        world: with the names of its item features where ``traits`` has any.
        traits: names with a sign before each; none: a direction of the features drawn once and for all.

    Raises:
        UserError: a name without sign, or of no feature of this world.
    """
    features = world.item_features[1:]
    if not traits:
        generator = torch.Generator().manual_seed(0)
        spread = features.std(dim=0, correction=0)
        direction = torch.randn(features.shape[1], generator=generator).to(features.device)
        raw = features @ (direction / spread.clamp(min=1e-6) * (spread > 1e-6))
    else:
        names = list(world.item_feature_names)
        signs = torch.zeros(len(names), device=features.device)
        for trait in traits:
            if trait[:1] not in "+-" or trait[1:] not in names:
                raise UserError(
                    f"world.dynamics.traits: {trait!r} is not + or - and a feature of this world's items "
                    f"({', '.join(names) or 'it has no names'})"
                )
            signs[names.index(trait[1:])] = 1.0 if trait[0] == "+" else -1.0
        groups = {trait[1:].partition("=")[0] for trait in traits}
        members = torch.tensor([name.partition("=")[0] in groups for name in names], device=features.device)
        count = (features[:, members] != 0).sum(dim=1).clamp(min=1)
        raw = features @ signs / count
    standard = (raw - raw.mean()) / raw.std(correction=0).clamp(min=1e-9)
    return F.pad(standard.clamp(-_TRAIT_LIMIT, _TRAIT_LIMIT), (1, 0))
