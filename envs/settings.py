"""Typed, strict configuration: every field documented and ranged, every unknown key refused."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, InstanceOf, PlainSerializer, ValidationError
from typing_extensions import Self

from envs.errors import UserError
from envs.storage.location import Url, location


def _located(value: Any) -> Any:
    return location(value) if isinstance(value, str) else value  # the rest is for pydantic to refuse


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
    def from_mapping(cls, values: Mapping[str, Any], where: str = "") -> Self:
        """Build from plain data (JSON, YAML, a Tune search space).

        Args:
            values: nested mapping of field names to values.
            where: prefix of the field paths in error messages.

        Raises:
            UserError: an unknown key (the nearest valid one is named) or a value out of range.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise UserError(_first_problem(error, cls, where)) from None

    def with_overrides(self, assignments: Sequence[str]) -> Self:
        """Apply ``path.to.field=value`` strings, as given to ``--set``, strictly.

        Raises:
            UserError: a malformed assignment, an unknown path or an invalid value.
        """
        values = self.model_dump()
        for assignment in assignments:
            path, separator, text = assignment.partition("=")
            if not separator or not path:
                raise UserError(f"--set takes path.to.field=value, got {assignment!r}")
            _assign(values, path.strip().split("."), text.strip(), type(self))
        return type(self).from_mapping(values)


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
            raise UserError(f"{'.'.join(path[: depth + 1])} is a value, it has no field {path[depth + 1]!r}")
        target, owner = target[name], annotation


def _value(text: str, owner: type[BaseModel], name: str) -> str | list[str]:
    """A text as it is, or its parts where the field is a tuple: ``128,64`` or ``[128, 64]``; none of ``[]``."""
    if get_origin(owner.model_fields[name].annotation) is not tuple:
        return text
    inside = text[1:-1] if text[:1] + text[-1:] in ("[]", "()") else text
    return [part.strip() for part in inside.split(",")] if inside.strip() else []


def _unknown_key(path: str, name: str, owner: type[BaseModel]) -> str:
    valid = list(owner.model_fields)
    nearest = difflib.get_close_matches(name, valid, n=1, cutoff=0.0)
    parent = path.rpartition(".")[0]
    hint = f"; did you mean {'.'.join(filter(None, [parent, *nearest]))!r}?" if nearest else ""
    return f"unknown setting {path!r}{hint} (valid: {', '.join(valid)})"


def _owner(model: type[BaseModel], path: Sequence[str]) -> type[BaseModel]:
    """The model at ``path`` below ``model``, through fields and through keys of mappings."""
    owner: type[BaseModel] = model
    of_values: type[BaseModel] | None = None
    for name in path:
        if of_values is not None:  # the name is a key
            owner, of_values = of_values, None
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
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "value_error" and isinstance(problem["input"], Mapping):
        return f"{path}: {message}" if path else message  # a cross-field check: its message is already whole
    return f"{path}: {message}, got {problem['input']!r}" if path else message


def assignment(path: str, value: object) -> str:
    """``path=value`` as ``with_overrides`` reads it: floats keep all their digits."""
    return f"{path}={value!r}" if isinstance(value, float) else f"{path}={value}"
