"""Rollouts as tensors: B users stepped together, columns out, statistics kept on the device.

Glossary: B users, K slate size, N items.
"""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from envs.simulator import Simulator
from rl_rec.policy import Policy


class EpisodeStatistics:
    """Sums over *all* finished users and shown slates; one host sync when they are read."""

    def __init__(self, num_users: int, num_items: int, device: torch.device) -> None:
        self._return = torch.zeros(num_users, dtype=torch.float64, device=device)
        self._depth = torch.zeros(num_users, dtype=torch.int64, device=device)
        self._shown = torch.zeros(num_items + 1, dtype=torch.int64, device=device)
        self._sums = torch.zeros(6, dtype=torch.float64, device=device)

    def update(self, slate: Tensor, click: Tensor, reward: Tensor, finished: Tensor) -> None:
        """Account one step of B users: slate and click (B, K), reward and finished (B,)."""
        self._return += reward
        self._depth += 1
        ended = self._return * finished
        self._sums += torch.stack(
            [
                finished.sum().double(),
                ended.sum(),
                (ended * ended).sum(),
                (self._depth * finished).sum().double(),
                click.sum().double(),
                self._sums.new_full((), click.numel()),  # torch.tensor would make a GPU wait for the copy
            ]
        )
        flat = slate.flatten()
        self._shown.scatter_add_(0, flat, torch.ones_like(flat))
        self._return.masked_fill_(finished, 0.0)
        self._depth.masked_fill_(finished, 0)

    def drain(self) -> dict[str, float]:
        """Figures since the last call, then start anew (running episodes go on).

        Returns:
            ``episodes``, and where any ended ``return_mean``, ``return_std``, ``depth_mean``; ``click_rate``;
            ``distinct_items`` shown to anybody.
        """
        episodes, total, squares, depth, clicks, slots = self._sums.tolist()
        figures = {"episodes": episodes, "distinct_items": float((self._shown[1:] > 0).sum())}
        if slots:
            figures["click_rate"] = clicks / slots
        if episodes:
            mean = total / episodes
            figures["return_mean"] = mean
            figures["return_std"] = max(squares / episodes - mean * mean, 0.0) ** 0.5
            figures["depth_mean"] = depth / episodes
        self._sums.zero_()
        self._shown.zero_()
        return figures

    def state_dict(self) -> dict[str, Tensor]:
        """All sums, as copies (they change in place) on the CPU (to be read anywhere)."""
        sums = {"return": self._return, "depth": self._depth, "shown": self._shown, "sums": self._sums}
        return {name: value.to("cpu", copy=True) for name, value in sums.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from ``state_dict``."""
        self._return.copy_(state["return"])
        self._depth.copy_(state["depth"])
        self._shown.copy_(state["shown"])
        self._sums.copy_(state["sums"])


class Rollout:
    """Steps a simulator with a policy and returns transitions as columns."""

    def __init__(self, simulator: Simulator, policy: Policy) -> None:
        self.simulator, self.policy = simulator, policy
        world = simulator.world
        self.statistics = EpisodeStatistics(simulator.num_users, world.num_items, world.device)

    @torch.no_grad()
    def collect(self, steps: int) -> dict[str, Tensor]:
        """Serve every user ``steps`` times.

        Returns:
            Columns of steps × B rows, step by step: ``user``, ``history``, ``slate``, ``next_history``
            (int32), ``click``, ``terminated`` (bool), ``reward`` (float32), ``candidates`` where the world has
            them, ``next_candidates`` where each request has its own, ``signals`` and ``next_signals``
            (float32) where it gives them, ``value`` (float32) where slots are worth more than their clicks,
            ``clock`` (int32), when the slate was shown, where its catalogue changes, and the policy's extras.
            ``next_history`` is the same user's own, also where they finished.
        """
        columns: dict[str, list[Tensor]] = defaultdict(list)
        for _ in range(steps):
            observation, clock = self.simulator.observation, self.simulator.clock
            decision = self.policy.act(observation)
            transition = self.simulator.step(decision.slate)
            self.statistics.update(
                decision.slate,
                transition.click,
                transition.reward,
                transition.terminated | transition.truncated,
            )
            row = {
                "user": observation.user.int(),
                "history": observation.history.int(),
                "slate": decision.slate.int(),
                "click": transition.click,
                "reward": transition.reward,
                "terminated": transition.terminated,
                "next_history": transition.next_observation.history.int(),
                **decision.extras,
            }
            if observation.candidates is not None:
                row["candidates"] = observation.candidates.int()
            after = transition.next_observation
            if after.candidates is not None and self.simulator.settings.candidates_per == "request":
                row["next_candidates"] = after.candidates.int()
            if observation.signals is not None and after.signals is not None:
                row |= {"signals": observation.signals, "next_signals": after.signals}
            if not self.simulator.only_clicks_count:
                row["value"] = transition.value
            if self.simulator.catalogue.changes:
                row["clock"] = torch.full_like(row["user"], clock)
            for name, value in row.items():
                columns[name].append(value)
        return {name: parts[0] if steps == 1 else torch.cat(parts) for name, parts in columns.items()}

    def state_dict(self) -> dict[str, Any]:
        """Simulator and statistics."""
        return {"simulator": self.simulator.state_dict(), "statistics": self.statistics.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue bit-equal from ``state_dict``."""
        self.simulator.load_state_dict(state["simulator"])
        self.statistics.load_state_dict(state["statistics"])
