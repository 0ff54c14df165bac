"""All settings of a description in one list, read from the description itself."""

from collections.abc import Collection, Iterator, Mapping
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from rich.markup import escape
from rich.table import Table

from envs.settings import Settings

_WORDS: Mapping[Any, str] = {
    int: "whole number",
    float: "number",
    bool: "true or false",
    str: "text",
    tuple: "list",
    dict: "names with values",
}
_BOUNDS = {"ge": "{:g} or more", "gt": "more than {:g}", "le": "{:g} or less", "lt": "less than {:g}"}


def settings_list(settings: Settings, without: Collection[str] = ()) -> Iterator[dict[str, Any]]:
    """Describe every setting.

    Args:
        settings: whose values are the defaults.
        without: paths of fields that are left out with all that is below them.

    Yields:
        ``setting`` (as ``--set`` takes it), ``type``, ``default`` and ``meaning``.
    """
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if name in without:
            continue
        if isinstance(value, Settings):
            below = [path.removeprefix(f"{name}.") for path in without if path.startswith(f"{name}.")]
            for inner in settings_list(value, below):
                yield inner | {"setting": f"{name}.{inner['setting']}"}
        else:
            meaning = " ".join((field.description or "").split()).replace("``", "")
            yield {"setting": name, "type": _type(field), "default": value, "meaning": meaning}


def settings_table(result: Mapping[str, Any]) -> Table:
    """``result["settings"]`` for a person."""
    table = Table(box=None, padding=(0, 1), header_style="bold")
    for column in ("setting", "default", "meaning"):
        table.add_column(column, overflow="fold", no_wrap=column != "meaning")
    for each in result["settings"]:
        meaning = f"{escape(each['meaning'])} [dim]({escape(each['type'])})[/dim]"
        table.add_row(escape(each["setting"]), escape(_shown(each["default"])), meaning)
    return table


def _type(field: FieldInfo) -> str:
    parts = [part for part in (get_args(field.annotation) or (field.annotation,)) if part is not NoneType]
    optional = len(parts) < len(get_args(field.annotation))
    kind = parts[0] if optional else field.annotation
    if get_origin(kind) is Literal:
        words = ", ".join(map(str, get_args(kind)))
    else:
        words = _WORDS.get(get_origin(kind) or kind, "text")
    bounds = [
        text.format(getattr(each, bound))
        for each in field.metadata
        for bound, text in _BOUNDS.items()
        if hasattr(each, bound)
    ]
    return ", ".join([words, *bounds]) + (" or none" if optional else "")


def _shown(default: Any) -> str:
    if default is None:
        return "none"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, (tuple, dict)):
        return ",".join(map(str, default)) or "-"
    return f"{default:g}" if isinstance(default, float) else str(default)
