"""Finding what a person names."""

import difflib
from collections.abc import Mapping
from typing import TypeVar

from envs.errors import UserError

Named = TypeVar("Named")


def look_up(kind: str, name: str, among: Mapping[str, Named]) -> Named:
    """What ``among`` calls ``name``.

    Args:
        kind: what is named, for the message.
        name: as the person wrote it.
        among: all there are, by name; one at least.

    Raises:
        UserError: there is none; the nearest name and all others are given.
    """
    if name not in among:
        nearest = difflib.get_close_matches(str.lower(name), among, n=1, cutoff=0.0)[0]
        raise UserError(f"unknown {kind} {name!r}; did you mean {nearest!r}? (valid: {', '.join(among)})")
    return among[name]
