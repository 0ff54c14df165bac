"""Rows that do not fit, counted by what is wrong with them instead of ending the command."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from envs.data.raw.bad_rows import BadRows
from envs.data.raw.rows import BadRow, Located

MOST = 100_000
"""More bad rows than this are a wrong file rather than wrong rows: each is looked at one by one."""
NAMED = 5


@dataclass
class CountedRows(BadRows):
    """Bears ``MOST`` bad rows and remembers what is wrong with them."""

    limit: int = MOST
    first: list[str] = field(default_factory=list)
    """The first ``NAMED`` in the order of the files, with their places."""
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By file and reason, how many."""

    def add(self, file: Located, first_row: int, bad: Sequence[BadRow]) -> None:
        super().add(file, first_row, bad)
        for row in sorted(bad):
            if len(self.first) < NAMED:
                where = file.where(first_row + row.place).removeprefix(str(file.path.parent) + "/")
                self.first.append(f"{where}: {row.what}")
            self.reasons[Path(file.path).name, _reason(row.what)] += 1


def _reason(what: str) -> str:
    """What is wrong without the value that is: ``column 'click': expected 0 or 1``."""
    what = re.sub(r"'(?:[^'\\]|\\.)*' is (not )?listed", r"an id is \1listed", what)
    what = re.sub(r" \((line|row)? ?\d+\)", "", what)
    return re.sub(r"(, got | is not a time|: -?\d[\d.e+]* ).*", lambda m: m[1] if "time" in m[1] else "", what)
