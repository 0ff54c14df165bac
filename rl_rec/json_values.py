"""Plain values for JSON documents that every parser accepts."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel


def json_value(value: Any) -> Any:
    """Convert ``value`` to what strict JSON can hold.

    Args:
        value: numbers, strings, paths, mappings, sequences, settings, numpy or torch scalars and arrays.

    Returns:
        The same content as dict, list, str, int, float, bool or None. NaN and infinities become None:
        ``NaN`` is no JSON, and parsers outside Python reject the whole document.

    Raises:
        TypeError: a value with no JSON form.
    """
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, BaseModel):
        return json_value(value.model_dump())
    if isinstance(value, Mapping):
        return {str(key): json_value(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        entries = sorted(value) if isinstance(value, (set, frozenset)) else value
        return [json_value(entry) for entry in entries]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy and torch, scalars and arrays alike
        return json_value(value.tolist())
    raise TypeError(f"{type(value).__name__} has no JSON form: {value!r}")
