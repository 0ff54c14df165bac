"""The logs as transitions: slates that users were shown when the logs were written, and how they responded."""

import numpy as np
import torch
from torch import Tensor

from envs.catalogue import Catalogue
from envs.data.behaviours import unpack
from envs.data.dataset import Dataset
from envs.data.sessions import Origin
from envs.errors import UserError
from envs.history import append_clicked
from envs.randomness import stream_seed
from envs.reward import UNIT, only_clicks_count, slate_reward, slot_values
from envs.signals import Signals
from envs.slot_weights import miss_value, slot_weights
from envs.world import World
from envs.world_settings import WorldSettings


class LoggedSlates:
    """All logged slates of a world's users, in an order that is drawn anew each time round.

    Empty slots, those of a slate that the logs did not fill and those of withheld items, count for nothing; a
    slate of nothing else is left out.

    Glossary: M slates, K slate size, H history length.
    """

    def __init__(
        self, dataset: Dataset, world: World, rules: WorldSettings, seed: int, stream: int = 0
    ) -> None:
        """Gather the slates.

        Args:
            dataset: the logs.
            world: of the same logs; the slates are those of its population.
            rules: history length, reward, and which items are withheld.
            seed: of the order.
            stream: index of this reader among those of one run.

        Raises:
            UserError: no slate of these users holds an item that is live.
        """
        device = world.device
        here = np.isin(dataset.session_user, world.population.users.cpu().numpy())
        mine = np.flatnonzero(here & (dataset.session_origin == Origin.LOGGED))
        # Items that are withheld when the world begins are as unknown here as to who learns in the world.
        live = Catalogue.of(world, rules.catalogue).live_at(0).clone()
        live[0] = False
        known = live.cpu().numpy()[dataset.session_items[mine]]  # (M, K)
        mine, known = mine[known.any(axis=1)], known[known.any(axis=1)]
        if not len(mine):
            raise UserError("no logged slate of these users holds an item that is live: nothing to learn from")
        place = np.searchsorted(dataset.shown_sessions, mine)  # the population knows the shown ones only
        self._population, self._sessions = world.population, torch.from_numpy(place).to(device)
        self._user = torch.from_numpy(dataset.session_user[mine].astype(np.int64)).to(device)
        slate = np.where(known, dataset.session_items[mine], 0)
        self._slate = torch.from_numpy(slate.astype(np.int64)).to(device)
        response = unpack(dataset.session_feedback[mine], len(dataset.behaviours)).astype(bool)
        self._response = torch.from_numpy(response & known[..., None]).to(device)  # (M, K, A)
        self._recency = torch.arange(rules.history_length, device=device)
        weights, self._miss, self._reward = slot_weights(world, rules), miss_value(rules), rules.reward
        # Else slots have values of their own: an empty one is worth nothing, which its click does not tell.
        self._clicks_tell = only_clicks_count(weights[1:], self._miss) and bool(known.all())
        self._weights = weights.to(device)  # (N + 1, A)
        self._generator = torch.Generator(device).manual_seed(stream_seed(seed, stream, 0))
        self._order, self._next = self._shuffled(), 0
        self._signals = (world.item_features, rules.max_steps) if rules.signals else None

    def __len__(self) -> int:
        """M."""
        return len(self._user)

    def take(self, count: int) -> dict[str, Tensor]:
        """The next ``count`` slates as columns, like those of a rollout.

        An empty slot is item 0, got no response and is worth 0; the reward is that of the other slots. Nobody
        is known to have left: ``terminated`` is false.
        """
        parts = []
        while count:
            if self._next == len(self._order):
                self._order, self._next = self._shuffled(), 0
            part = self._order[self._next : self._next + count]
            self._next += len(part)
            count -= len(part)
            parts.append(part)
        index = torch.cat(parts)
        user, slate, response = self._user[index], self._slate[index], self._response[index]
        click, filled = response[..., 0], slate > 0
        values = slot_values(response, self._weights[slate], self._miss) * filled
        history = self._population.history_before(user, self._sessions[index], self._recency)
        rows = {
            "user": user.int(),
            "history": history.int(),
            "slate": slate.int(),
            "click": click,
            "reward": slate_reward(self._reward, values.sum(dim=1), filled.sum(dim=1)),
            "terminated": torch.zeros_like(user, dtype=torch.bool),
            "next_history": append_clicked(history, slate, click, self._recency).int(),
        }
        if self._signals is not None:  # as if the user had just come
            signals = Signals(*self._signals, len(user))
            rows["signals"] = signals.values
            signals.advance(slate, click, None)
            rows["next_signals"] = signals.values
        return rows if self._clicks_tell else {**rows, "value": values / UNIT}

    def state_dict(self) -> dict[str, Tensor]:
        """Order, place and generator."""
        return {
            "order": self._order.clone(),
            "next": torch.tensor(self._next),
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue bit-equal from ``state_dict``."""
        self._order = state["order"].to(self._order.device)
        self._next = int(state["next"])
        self._generator.set_state(state["generator"].cpu())

    def _shuffled(self) -> Tensor:
        return torch.randperm(len(self._user), generator=self._generator, device=self._user.device)
