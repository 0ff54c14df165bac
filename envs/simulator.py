"""The user simulator: B users at once as tensors on one device, no Python per user.

Glossary: B users, H history length, K slate size, N items, C candidates, A behaviours.
"""

from typing import Any

import torch
from torch import Tensor

from envs.budgets import Budgets
from envs.catalogue import Catalogue
from envs.dynamics import Dynamics
from envs.ensemble import uncertainty_cost
from envs.errors import UserError
from envs.history import append_clicked
from envs.randomness import restore, stream_seed
from envs.retrieval import draw_candidates
from envs.reward import (
    INITIAL_PATIENCE,
    LEAVE_BELOW,
    UNIT,
    only_clicks_count,
    patience_cost,
    slate_reward,
    slot_values,
)
from envs.signals import Signals
from envs.slot_weights import miss_value, slot_weights
from envs.transition import Observation, Transition
from envs.world import World
from envs.world_settings import WorldSettings


class Simulator:
    """Serves B users of a world: ``observation`` → slates → ``advance`` → ``restart`` finished users.

    Generators are derived from ``(seed, stream)``: one draws arriving users, one their responses, one how their
    tastes wander. The same seed gives bit-equal results on the CPU.

    ``clock`` counts the steps of the world, whoever is served; it decides which items are live.
    """

    def __init__(
        self, world: World, settings: WorldSettings, num_users: int, seed: int, stream: int = 0
    ) -> None:
        """Create the simulator with ``num_users`` users already arrived.

        Args:
            world: the frozen world; its device is the simulator's.
            settings: the rules.
            num_users: B.
            seed: seed of the run.
            stream: index of this simulator among those of one run (worker, evaluation, ...).

        Raises:
            UserError: the live items or the candidate sets cannot fill a slate, a weight is of no behaviour, or
                uncertainty has a price that nobody knows.
        """
        self.catalogue = Catalogue.of(world, settings.catalogue)
        live = self.catalogue.num_live  # the same at every clock
        pool = settings.candidates or live
        # Candidates can be used up (their slots then get no response); the catalogue cannot.
        used_up = settings.history_length if settings.repeats == "forbid" and not settings.candidates else 0
        if pool < world.slate_size + used_up or pool > live:
            few = "" if self.catalogue.always_all else f" of which {live} are live"
            raise UserError(
                f"slates of {world.slate_size} need at least {world.slate_size + used_up} items to choose "
                f"from, there are {pool} of a catalogue of {world.num_items}{few}: change candidates, "
                f"history_length{', catalogue' if few else ''} or repeats"
            )
        self.world, self.settings, self.num_users = world, settings, num_users
        device = world.device
        self._arrivals = torch.Generator(device).manual_seed(stream_seed(seed, stream, 0))
        self._responses = torch.Generator(device).manual_seed(stream_seed(seed, stream, 1))
        weights, self._miss = slot_weights(world, settings), miss_value(settings)  # (N + 1, A)
        self._cost = uncertainty_cost(world.ensemble, settings.uncertainty_penalty)
        # Else slots have values of their own.
        self.only_clicks_count = only_clicks_count(weights[1:], self._miss) and self._cost is None
        if (weights[1:] == weights[1]).all():
            weights = weights[1]  # (A,): nothing to look up by item
        self._weights = weights.to(device)
        self._one_click = torch.tensor([UNIT], device=device)  # (1,)
        self.budgets = None if settings.budgets.clicks is None else Budgets(settings.budgets, world.money[:, 0])
        self._recency = torch.arange(settings.history_length, device=device)
        self._dynamics = (
            Dynamics(world, settings.dynamics, num_users, stream_seed(seed, stream, 2))
            if settings.dynamics.active
            else None
        )
        self._signals = (
            Signals(world.item_features, settings.max_steps, num_users) if settings.signals else None
        )
        self._running = [part for part in (self._dynamics, self._signals) if part is not None]
        self.user = torch.zeros(num_users, dtype=torch.int64, device=device)
        self.history = torch.zeros(num_users, settings.history_length, dtype=torch.int64, device=device)
        self.candidates = (
            None
            if settings.candidates is None
            else torch.zeros(num_users, settings.candidates, dtype=torch.int64, device=device)
        )
        self.patience = torch.zeros(num_users, dtype=torch.int64, device=device)  # thousandths
        self.steps = torch.zeros(num_users, dtype=torch.int64, device=device)
        self.clock = 0
        self._vectors: Tensor | None = None
        self._probabilities: Tensor | None = None
        self.restart(torch.ones(num_users, dtype=torch.bool, device=device))

    @property
    def trait(self) -> Tensor:
        """c of every item (N + 1,), which only a planner knows; the world must have dynamics."""
        assert self._dynamics is not None
        return self._dynamics.trait

    @property
    def observation(self) -> Observation:
        """The users now waiting for a slate."""
        signals = None if self._signals is None else self._signals.values
        return Observation(self.user, self.history, self.candidates, self.live, signals)

    @property
    def live(self) -> Tensor | None:
        """The items live now, (N + 1,) bool, or ``None`` where every item always is."""
        return None if self.catalogue.always_all else self.catalogue.live_at(self.clock)

    @torch.no_grad()
    def probabilities(self) -> Tensor:
        """True probabilities of the positive response (B, N + 1): what only an oracle knows.

        Not to be changed in place: they are kept until the users' state changes.
        """
        return self._all_probabilities()[0]

    @torch.no_grad()
    def expected_values(self) -> Tensor:
        """What each item's slot is worth in expectation (B, N + 1): what a myopic oracle ranks by."""
        p = self._all_probabilities()
        weights = self._weights.expand(p.shape[2], -1).to(p.dtype) / UNIT  # (N + 1, A)
        values = torch.einsum("abn,na->bn", p, weights)
        values = values + self._miss / UNIT * (1 - p[0])
        return values if self._cost is None else values - self._cost.of_all(self.user, self.history)

    def _all_probabilities(self) -> Tensor:
        """(A, B, N + 1), each behaviour's own, not given another."""
        if self._probabilities is not None:
            return self._probabilities
        p = self.world.response.all_logits(self._user_vectors())
        if self._dynamics is not None:
            p[0] += self._dynamics.offset()
        p.sigmoid_()
        for behaviour, parent in enumerate(self.world.parents):
            if parent is not None:
                p[behaviour] *= p[parent]
        self._probabilities = p
        return p

    @torch.no_grad()
    def advance(self, slate: Tensor, hold: Tensor | None = None) -> Transition:
        """Show one slate to every user.

        An item that may not be shown (unknown, not live, outside the candidates, repeated within the slate, or
        in the history when repeats are forbidden) gets no response. The world's clock moves on by one.

        Args:
            slate: (B, K) int64 item indices in 1 … N.
            hold: (B,) bool, users left untouched (their entries in the result mean nothing).
        """
        known = slate.clamp(0, self.world.num_items)  # an id outside the tables would end the program on a GPU
        p = self.world.response.logits(self._user_vectors(), known)
        if self._dynamics is not None:
            p[..., 0] += self._dynamics.slate_offset(known)
        p = p.sigmoid_().masked_fill_(~self.may_show(slate)[..., None], 0.0)
        # Drawn for held users too, so that a user's draws do not depend on who else is held.
        draws = torch.rand(p.shape, generator=self._responses, device=slate.device)
        response = draws < p  # y ~ Bernoulli(p), (B, K, A)
        for behaviour, parent in enumerate(self.world.parents):
            if parent is not None:
                response[..., behaviour] &= response[..., parent]
        weights = self._weights if self._weights.dim() == 1 else self._weights[known]
        values = slot_values(response, weights, self._miss)  # (B, K) thousandths
        if self._cost is not None:
            values = values - self._cost(self.user, self.history, known)
        total, name, slate_size = values.sum(dim=1), self.settings.reward, slate.shape[1]
        patience = self.patience - self._patience_cost(total, response)
        steps = self.steps + 1
        history = append_clicked(self.history, slate, response[..., 0], self._recency)
        for part in self._running:
            part.advance(known, response[..., 0], hold)
        if hold is not None:
            patience = torch.where(hold, self.patience, patience)
            steps = torch.where(hold, self.steps, steps)
            history = torch.where(hold[:, None], self.history, history)
        terminated = patience < LEAVE_BELOW
        truncated = (steps >= self.settings.max_steps) & ~terminated
        self.patience, self.steps, self.history = patience, steps, history
        self.clock += 1
        self._forget()
        if self.budgets is not None:
            self.budgets.advance(self.clock, known, response[..., 0], hold)
        if self.candidates is not None and self.settings.candidates_per == "request":
            drawn = self._draw_candidates()
            self.candidates = drawn if hold is None else torch.where(hold[:, None], self.candidates, drawn)
        reward = slate_reward(name, total, slate_size)
        return Transition(response, values / UNIT, reward, terminated, truncated, self.observation)

    @torch.no_grad()
    def restart(self, finished: Tensor) -> None:
        """Replace the users where ``finished`` (B,) by newly arrived ones.

        Draws are made for every slot and kept where needed: no host sync, and a slot's arrivals do not
        depend on how many others finished.
        """
        population = self.world.population
        draw = torch.rand(2, self.num_users, generator=self._arrivals, device=self.user.device)
        user = population.users[_uniform_index(draw[0], population.users.shape[0])]
        self.arrive(finished, user, draw[1])

    @torch.no_grad()
    def arrive(self, where: Tensor, user: Tensor, session_draw: Tensor) -> None:
        """Seat given users: ``user`` (B,) at the slots ``where`` (B,), starting before a logged session.

        Args:
            where: (B,) bool.
            user: (B,) int64.
            session_draw: (B,) uniform in [0, 1): which of the user's sessions.
        """
        history = torch.zeros_like(self.history)
        if self.settings.start_history == "logged":
            history = self._logged_history(user, session_draw)
        self.user = torch.where(where, user, self.user)
        self.history = torch.where(where[:, None], history, self.history)
        self.patience = torch.where(where, INITIAL_PATIENCE, self.patience)
        self.steps = torch.where(where, 0, self.steps)
        for part in self._running:
            part.arrive(where)
        self._forget()
        if self.candidates is not None:  # after the history, which they avoid
            drawn = self._draw_candidates()
            self.candidates = torch.where(where[:, None], drawn, self.candidates)

    def step(self, slate: Tensor) -> Transition:
        """``advance`` and then replace the finished users."""
        transition = self.advance(slate)
        self.restart(transition.terminated | transition.truncated)
        return transition

    def may_show(self, slate: Tensor) -> Tensor:
        """Which slots hold an item that may be shown: (B, K) bool."""
        allowed = (slate >= 1) & (slate <= self.world.num_items)
        same = slate[:, :, None] == slate[:, None, :]  # (B, K, K)
        allowed &= ~same.tril(diagonal=-1).any(dim=2)  # the first of equal items counts
        if self.settings.repeats == "forbid":
            allowed &= ~(slate[:, :, None] == self.history[:, None, :]).any(dim=2)
        if self.candidates is not None:
            allowed &= (slate[:, :, None] == self.candidates[:, None, :]).any(dim=2)
        if self.live is not None:
            allowed &= self.live[slate.clamp(0, self.world.num_items)]
        return allowed

    def users_state(self) -> dict[str, Tensor]:
        """What a step replaces by new tensors, by name: all there is of the users now served."""
        state = {name: getattr(self, name) for name in ("user", "history", "patience", "steps")}
        if self.candidates is not None:
            state["candidates"] = self.candidates
        if self._signals is not None:
            state["signals"] = self._signals.values
        return state | (self._dynamics.state if self._dynamics is not None else {})

    def keep_users_in(self, state: dict[str, Tensor]) -> None:
        """Move the users now served into the memory of an earlier ``users_state``."""
        for name, now in self.users_state().items():
            state[name].copy_(now)
        for name in ("user", "history", "patience", "steps", "candidates"):
            setattr(self, name, state.get(name))
        if self._signals is not None:
            self._signals.values = state["signals"]
        if self._dynamics is not None:
            self._dynamics.state = {name: state[name] for name in self._dynamics.state}
        self._forget()

    @property
    def generators(self) -> list[torch.Generator]:
        """Whatever a step draws from."""
        own = [self._arrivals, self._responses]
        return own if self._dynamics is None else [*own, self._dynamics.generator]

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes: users, counters, clock and generators. On the CPU, to be read anywhere."""
        return {
            "user": self.user.cpu(),
            "history": self.history.cpu(),
            "candidates": None if self.candidates is None else self.candidates.cpu(),
            "patience": self.patience.cpu(),
            "steps": self.steps.cpu(),
            "clock": self.clock,
            "arrivals": self._arrivals.get_state(),
            "responses": self._responses.get_state(),
            "dynamics": self._dynamics and self._dynamics.state_dict(),
            "signals": self._signals and self._signals.values.cpu(),
            "spent": None if self.budgets is None else self.budgets.spent.cpu(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue bit-equal from ``state_dict``."""
        device = self.user.device
        for name in ("user", "history", "patience", "steps"):
            setattr(self, name, state[name].to(device))
        self.candidates = None if state["candidates"] is None else state["candidates"].to(device)
        self.clock = state.get("clock", 0)  # earlier releases saved none: their catalogue never changed
        restore(self._arrivals, state["arrivals"])
        restore(self._responses, state["responses"])
        if self._dynamics is not None:
            self._dynamics.load_state_dict(state["dynamics"])
        if self._signals is not None:
            self._signals.values = state["signals"].to(device)
        if self.budgets is not None:
            self.budgets.spent = state["spent"].to(device)
        self._forget()

    def _user_vectors(self) -> Tensor:
        """(B, A·D), asked for by an oracle and again by the step that follows."""
        if self._vectors is None:
            z = self.world.response.user_vectors(self.user, self.history)
            self._vectors = z if self._dynamics is None else self._dynamics.user_vectors(z)
        return self._vectors

    def _forget(self) -> None:
        """What was computed of the users' state holds no longer."""
        self._vectors = self._probabilities = None

    def _logged_history(self, user: Tensor, draw: Tensor) -> Tensor:
        population = self.world.population
        first, last = population.session_offsets[user], population.session_offsets[user + 1]
        session = first + _uniform_index(draw, last - first)
        return population.history_before(user, session, self._recency)

    def _patience_cost(self, total: Tensor, response: Tensor) -> Tensor | int:
        """How far patience falls (B,), by ``total`` (B,) or the positive ones of ``response`` (B, K, A)."""
        leaving, slate_size = self.settings.leaving, response.shape[1]
        if leaving == "never":
            return 0
        if leaving == "clicks":
            total = slot_values(response[..., :1], self._one_click).sum(dim=1)
        return patience_cost(self.settings.reward, total, slate_size)

    def _draw_candidates(self) -> Tensor:
        """C items per user, live and with budget left, outside the history if possible."""
        settings, response = self.settings, self.world.response
        assert settings.candidates is not None
        shape = (self.num_users, self.world.num_items + 1)
        uniform = torch.rand(shape, generator=self._arrivals, device=self.user.device)
        logits = None
        if settings.retrieval:  # by the fitted response alone: retrieval knows nothing of dynamics
            logits = response.positive_logits(response.user_vectors(self.user, self.history))
        return draw_candidates(
            uniform,
            settings.candidates,
            logits=logits,
            strength=settings.retrieval,
            avoid=self.history if settings.repeats == "forbid" else None,
            closed=(
                *(() if self.live is None else (~self.live,)),
                *(() if self.budgets is None else (self.budgets.used_up,)),
            ),
        )


def _uniform_index(draw: Tensor, count: Tensor | int) -> Tensor:
    """Map uniform draws in [0, 1) to indices 0 … count − 1."""
    index = (draw.double() * count).long()
    # The product can round up to count.
    limit = count - 1
    return torch.minimum(index, limit) if isinstance(limit, Tensor) else index.clamp(max=limit)
