"""A columnar replay: a ring buffer of tensors on one device, filled and read in batches."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from envs.randomness import restore

Columns = Mapping[str, Tensor]


class Replay:
    """The last ``capacity`` transitions, one tensor a column.

    Observations are stored as item and user indices, never as features. Columns are created by the first
    ``add``, with its names, shapes and dtypes.
    """

    def __init__(self, capacity: int, seed: int, device: torch.device | str = "cpu") -> None:
        self.capacity = capacity
        self.device = torch.device(device)
        self.columns: dict[str, Tensor] = {}
        self.added = 0  # lifetime
        self._generator = torch.Generator(self.device).manual_seed(seed)

    def __len__(self) -> int:
        return min(self.added, self.capacity)

    def add(self, rows: Columns) -> None:
        """Append rows, overwriting the oldest; every column is (rows, ...).

        Raises:
            ValueError: other columns than before, or more rows than the capacity.
        """
        count = len(next(iter(rows.values())))
        if count > self.capacity:
            raise ValueError(f"{count} rows do not fit a replay of {self.capacity}")
        if not self.columns:
            self.columns = {
                name: torch.zeros(self.capacity, *column.shape[1:], dtype=column.dtype, device=self.device)
                for name, column in rows.items()
            }
        if rows.keys() != self.columns.keys():
            raise ValueError(f"expected columns {sorted(self.columns)}, got {sorted(rows)}")
        begin = self.added % self.capacity
        first = min(count, self.capacity - begin)
        for name, column in rows.items():
            self.columns[name][begin : begin + first] = column[:first]
            self.columns[name][: count - first] = column[first:]
        self.added += count

    def sample(self, rows: int) -> dict[str, Tensor]:
        """Rows drawn uniformly with replacement, each column (rows, ...)."""
        index = torch.randint(len(self), (rows,), generator=self._generator, device=self.device)
        return {name: column[index] for name, column in self.columns.items()}

    def state_dict(self) -> dict[str, Any]:
        """Filled rows, position and generator; on the CPU, to be read anywhere."""
        return {
            "columns": {
                name: column[: len(self)].to("cpu", copy=True) for name, column in self.columns.items()
            },
            "added": self.added,
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue bit-equal from ``state_dict``.

        Raises:
            ValueError: the state holds more rows than this replay's capacity.
        """
        self.columns, self.added = {}, 0
        if state["columns"]:
            self.add({name: torch.as_tensor(column) for name, column in state["columns"].items()})
        if len(self) != min(state["added"], self.capacity):
            raise ValueError(f"the stored replay has another capacity than {self.capacity}")
        self.added = state["added"]
        restore(self._generator, torch.as_tensor(state["generator"]))
