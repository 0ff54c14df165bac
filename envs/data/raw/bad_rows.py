"""How many rows may be left out, and which were."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from envs.data.raw.rows import BadRow, Located
from envs.errors import UserError


@dataclass
class BadRows:
    """Counts the rows that are left out over all files, and refuses one more than ``limit``.

    Files and their blocks are handed over in order and from one thread, so what is refused depends on the
    files alone and not on how many threads read them.
    """

    limit: int = 0
    skipped: dict[str, tuple[int, int, str]] = field(default_factory=dict)
    """By file: how many rows were left out, the number of the first of them, and where and why."""

    @property
    def count(self) -> int:
        """Rows left out so far."""
        return sum(count for count, _, _ in self.skipped.values())

    def summary(self) -> dict[str, Any]:
        """By the name of the file, how many rows were left out and why the first one, as plain data."""
        return {
            Path(path).name: {"skipped": count, "first": first.removeprefix(path).lstrip(": ")}
            for path, (count, _, first) in self.skipped.items()
        }

    def add(self, file: Located, first_row: int, bad: Sequence[BadRow]) -> None:
        """Leave out rows of one block.

        Args:
            file: the file of the block.
            first_row: the rows of the file before the block.
            bad: the rows, in any order.

        Raises:
            UserError: more than ``limit`` by now: names the first one too many.
        """
        for row in sorted(bad):
            what = f"{file.where(first_row + row.place)}: {row.what}"
            if row.fatal or not self.limit:
                raise UserError(what)
            if self.count >= self.limit:
                raise UserError(f"{what}; {self.limit} bad rows were skipped before it: allow more, or mend it")
            found = (first_row + row.place, what)  # a file may be gone over for one fault after the other
            count, number, first = self.skipped.get(str(file.path), (0, *found))
            self.skipped[str(file.path)] = (count + 1, *min(found, (number, first)))
