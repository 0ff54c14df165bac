"""What a command prints: its result on stdout, everything else on stderr."""

import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO, cast

import click
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from envs.storage.location import with_urls
from rl_rec.json_values import json_value

console = Console(stderr=True, highlight=False)
"""For people: notices and progress. Results never go here."""

_RESERVED = "rl_rec.reserved_stdout"
TEXT_WIDTH = 240
"""Columns of text that goes to no terminal."""


def emit(
    result: Mapping[str, Any],
    as_json: bool,
    render: Callable[[Mapping[str, Any]], RenderableType] | None = None,
) -> None:
    """Print a command's result on stdout.

    Args:
        result: the whole result; with ``--json`` it is the document, and NaN becomes null.
        as_json: the value of ``--json``.
        render: makes what a person sees; by default a table of the entries.
    """
    result = cast(Mapping[str, Any], with_urls(result))
    if as_json:
        stream = _reserved() or sys.stdout
        stream.write(json.dumps(json_value(result), indent=2, allow_nan=False) + "\n")
        stream.flush()
        return
    # A pipe or a file has no width of its own: 80 columns would crop tables for nobody's sake.
    narrow = sys.stdout.isatty() or "COLUMNS" in os.environ
    shown = (render or entries_table)(result)
    out = Console(highlight=False, width=None if narrow else TEXT_WIDTH)
    out.print(shown, soft_wrap=isinstance(shown, Text))  # commands in it can be copied


def entries_table(result: Mapping[str, Any]) -> Table:
    """A table of one row per entry; nested entries have dotted names."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _flatten(result):
        table.add_row(name.replace("_", " "), _figure(value))
    return table


@contextmanager
def stdout_reserved() -> Iterator[TextIO]:
    """Keep stdout for the one document: whatever else is printed meanwhile goes to stderr.

    Redirects the file descriptor too, because Ray's workers and native libraries print to it directly.
    """
    original = sys.stdout
    original.flush()
    try:
        has_descriptor = original.fileno() == 1
    except (io.UnsupportedOperation, AttributeError):  # a test's or a notebook's stdout
        has_descriptor = False
    sys.stdout = sys.stderr
    if not has_descriptor:
        try:
            yield original
        finally:
            sys.stdout = original
        return
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with os.fdopen(os.dup(kept), "w", encoding="utf-8") as stream:
            yield stream
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        sys.stdout = original


def reserve_stdout(context: click.Context) -> None:
    """Reserve stdout until ``context`` ends; ``emit`` finds it there."""
    context.meta[_RESERVED] = context.with_resource(stdout_reserved())


def _reserved() -> TextIO | None:
    context = click.get_current_context(silent=True)
    return context.meta.get(_RESERVED) if context else None


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _figure(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_figure(entry) for entry in value)
    return str(value)
