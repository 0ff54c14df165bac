"""Typed, strict configuration: every field documented and ranged, every unknown key refused."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, InstanceOf, PlainSerializer, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError
from typing_extensions import Self

from envs.errors import UserError
from envs.storage.location import Url, location


def _located(value: Any) -> Any:
    if not isinstance(value, str):
        return value  # for pydantic to refuse
    try:
        return location(value)
    except UserError as error:
        raise PydanticCustomError("location", "{problem}", {"problem": str(error)}) from None


_NAMED = 3  # places in one hint

LocationField: TypeAlias = Annotated[
    Path | InstanceOf[Url], BeforeValidator(_located), PlainSerializer(str, when_used="json")
]
"""The type of a setting that names a folder: a path or a URL."""


class Settings(BaseModel):
    """Base of all configuration: immutable, and unknown keys are errors.

    A field's docstring says what it does, its unit, and the effect of raising it.
    """

    # Infinity is within "greater than 0", and no setting means anything there.
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], where: str = "", file: Path | Url | None = None) -> Self:
        """Build from plain data (JSON, YAML, a Tune search space).

        Args:
            values: nested mapping of field names to values.
            where: prefix of the field paths in error messages.
            file: that holds the values; error messages begin with it.

        Raises:
            UserError: an unknown key (the nearest valid one is named) or a value out of range.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            origin = "" if file is None else f"{file}: "
            raise UserError(origin + _first_problem(error, cls, where)) from None

    def with_overrides(self, assignments: Sequence[str]) -> Self:
        """Apply ``path.to.field=value`` strings, as given to ``--set``, strictly.

        Raises:
            UserError: a malformed assignment, an unknown path or an invalid value.
        """
        return type(self).from_mapping(self._assigned(assignments))

    def check_paths(self, assignments: Sequence[str]) -> None:
        """Refuse what ``with_overrides`` would whatever the settings are: their values are not looked at.

        Raises:
            UserError: a malformed assignment or an unknown path.
        """
        self._assigned(assignments)

    def changes(self) -> list[str]:
        """What differs from the defaults, which every field must have, as ``with_overrides`` takes it."""
        return _changes(self, type(self)())

    def _assigned(self, assignments: Sequence[str]) -> dict[str, Any]:
        values = self.model_dump()
        for assignment in assignments:
            path, separator, text = assignment.partition("=")
            if not separator or not path:
                raise UserError(f"--set takes path.to.field=value, got {assignment!r}")
            _assign(values, path.strip().split("."), text.strip(), type(self))
        return values


def _assign(values: dict[str, Any], path: list[str], text: str, model: type[BaseModel]) -> None:
    target, owner = values, model
    for depth, name in enumerate(path):
        if name not in owner.model_fields:
            raise UserError(_unknown_key(".".join(path[: depth + 1]), name, owner))
        if depth == len(path) - 1:
            # The literal None is the only way to write "absent" on a command line.
            target[name] = None if text.lower() in ("none", "null") else _value(text, owner, name)
            return
        annotation = owner.model_fields[name].annotation
        if get_origin(annotation) is dict and depth == len(path) - 2:  # a key of a mapping
            target[name] = {**target[name], path[-1]: text}
            return
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            parent, inside = ".".join(path[:depth]), path[depth + 1]
            hint = _group_hint(owner, parent, name, inside)
            raise UserError(f"{'.'.join(path[: depth + 1])} is a value, it has no field {inside!r}{hint}")
        target, owner = target[name], annotation


def _value(text: str, owner: type[BaseModel], name: str) -> str | list[str] | dict[str, str]:
    """A text as it is, or its parts.

    Of a tuple: ``128,64`` or ``[128, 64]``, none of ``[]``; of a mapping: ``key=value,key=value``, none of
    ``{}``.
    """
    kind = get_origin(owner.model_fields[name].annotation)
    if kind not in (tuple, dict):
        return text
    inside = text[1:-1] if text[:1] + text[-1:] in ("[]", "()", "{}") else text
    parts = [part.strip() for part in inside.split(",")] if inside.strip() else []
    if kind is tuple:
        return parts
    if unpaired := [part for part in parts if "=" not in part]:
        raise UserError(f"{name} takes key=value,key=value, got {unpaired[0]!r}")
    pairs = [[side.strip() for side in part.split("=", 1)] for part in parts]
    keys = [key for key, _ in pairs]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise UserError(f"{name} has {twice[0]} twice: give each key once")
    return dict(pairs)


def _unknown_key(path: str, name: str, owner: type[BaseModel]) -> str:
    valid = list(owner.model_fields)
    # Under its own name further in, or else misspelt.
    nearest = list(_paths_of(name, owner))[:_NAMED] or difflib.get_close_matches(name, valid, n=1, cutoff=0.0)
    parent = path.rpartition(".")[0]
    meant = " or ".join(repr(".".join(filter(None, [parent, each]))) for each in nearest)
    hint = f"; did you mean {meant}?" if meant else ""
    return f"unknown setting {path!r}{hint} (valid: {', '.join(valid)})"


def _paths_of(name: str, model: type[BaseModel]) -> Iterator[str]:
    """Where below ``model`` there is a field called ``name``."""
    for group, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            if name in inner.model_fields:
                yield f"{group}.{name}"
            yield from (f"{group}.{path}" for path in _paths_of(name, inner))


def _owner(model: type[BaseModel], path: Sequence[str]) -> type[BaseModel]:
    """The model at ``path`` below ``model``, through fields and through keys of mappings."""
    owner: type[BaseModel] = model
    of_values: type[BaseModel] | None = None
    for name in path:
        if of_values is not None:  # the name is a key
            owner, of_values = of_values, None
            continue
        if name not in owner.model_fields:  # a place in a list, or one of several types
            continue
        annotation = owner.model_fields[name].annotation
        inside = get_args(annotation)[1] if get_origin(annotation) is dict else annotation
        if isinstance(inside, type) and issubclass(inside, BaseModel):
            owner, of_values = (owner, inside) if get_origin(annotation) is dict else (inside, None)
    return owner


def _first_problem(error: ValidationError, model: type[BaseModel], where: str) -> str:
    problem = error.errors(include_url=False)[0]
    names = [str(part) for part in problem["loc"]]
    path = ".".join([where, *names] if where else names)
    if problem["type"] == "extra_forbidden":
        return _unknown_key(path, names[-1], _owner(model, names[:-1]))
    if problem["type"] == "missing":
        return f"{path} is missing"
    if problem["type"] == "location":
        return f"{path}: {problem['msg']}"  # whole, and without what must not be repeated: a password
    given = problem["input"]
    if problem["type"] == "value_error" and isinstance(given, Mapping):
        message = str(problem["msg"]).removeprefix("Value error, ")
        return f"{path}: {message}" if path else message  # a cross-field check: its message is already whole
    owner = _owner(model, names[:-1])
    field = owner.model_fields.get(names[-1]) if names else None
    message, hint = expectation(problem, field), ""
    parent = path.rpartition(".")[0]
    if field is not None and problem["type"] == "model_type":
        hint = _value_hint(owner, parent, names[-1])
    elif field is not None and isinstance(given, Mapping) and given:
        hint = _group_hint(owner, parent, names[-1], str(next(iter(given))))
    return f"{path}: {message}, got {given!r}{hint}" if path else message


_EXPECTED = {
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "less_than": "less than {lt:.12g}",
    "less_than_equal": "{le:.12g} or less",
    **dict.fromkeys(("int_type", "int_parsing", "int_parsing_size", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("tuple_type", "list_type"), "a list"),
    "string_type": "text",
    "dict_type": "names with values",
}
"""What a field takes, by pydantic's name of the problem and with its context."""


def expectation(problem: Any, field: FieldInfo | None = None) -> str:
    """What should have been given, in words: no pattern and no term of pydantic's.

    Args:
        problem: an entry of ``ValidationError.errors``.
        field: where it was found, if known.
    """
    kind, text = problem["type"], str(problem["msg"])
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind].format(**problem.get('ctx', {}))}"
    if kind == "string_pattern_mismatch":
        if field is None or not field.examples:
            return "expected another form"
        meaning = " ".join((field.description or "").split()).rstrip(".")
        return f"expected something like {field.examples[0]} ({meaning})"
    if field is not None and kind == "model_type" and _is_group(field):
        return f"expected settings of its own ({', '.join(_fields(field))})"
    return re.sub(r"^\w+ should (be|have) ", "expected ", text.removeprefix("Value error, "))


def _fields(field: FieldInfo) -> Mapping[str, FieldInfo]:
    """The fields of a group of settings; none of a plain value."""
    return getattr(field.annotation, "model_fields", {})


def _is_group(field: FieldInfo) -> bool:
    return bool(_fields(field))


def _group_hint(owner: type[BaseModel], parent: str, name: str, inside: str) -> str:
    """Where a plain value was taken for a group: the group of the nearest name that has that field."""
    groups = [other for other, field in owner.model_fields.items() if inside in _fields(field)]
    return "".join(
        f"; did you mean {'.'.join(filter(None, [parent, nearest, inside]))!r}?"
        for nearest in difflib.get_close_matches(name, groups, n=1, cutoff=0.6)
    )


def _value_hint(owner: type[BaseModel], parent: str, name: str) -> str:
    """Where a group was taken for a plain value: the value of the nearest name."""
    plain = [other for other, field in owner.model_fields.items() if not _is_group(field)]
    return "".join(
        f"; did you mean {'.'.join(filter(None, [parent, nearest]))!r}?"
        for nearest in difflib.get_close_matches(name, plain, n=1, cutoff=0.8)
    )


def _changes(settings: Settings, defaults: Settings) -> list[str]:
    changes = []
    for name in type(settings).model_fields:
        value, default = getattr(settings, name), getattr(defaults, name)
        if isinstance(value, Settings):
            changes += [f"{name}.{change}" for change in _changes(value, default)]
        elif value != default:
            changes.append(assignment(name, value))
    return changes


def assignment(path: str, value: object) -> str:
    """``path=value`` as ``with_overrides`` reads it: floats keep all their digits."""
    return f"{path}={_text(value)}"


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ",".join(assignment(str(key), entry) for key, entry in value.items()) or "{}"
    if isinstance(value, tuple):
        return ",".join(map(_text, value)) or "[]"
    return repr(value) if isinstance(value, float) else str(value)
