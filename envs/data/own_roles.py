"""What the columns of own files mean: as mapped, or guessed from common names and the first values."""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from envs.data.raw.rows import MISSING, RawFile, listed, shortened
from envs.data.raw.times import UNITS, guess_time
from envs.errors import UserError

_FEATURES = ("number", "category", "list", "vector", "ignore")
ROLES = {
    "interactions": ("user", "item", "time", "positive", "rating", "behaviour", "page", "random", "ignore"),
    "items": ("item", "title", *_FEATURES),
    "users": ("user", *_FEATURES),
}
"""By file, what a column may be."""
_REPEATED = (*_FEATURES, "behaviour")
_NAMES = {
    "user": {"user", "userid", "uid", "userindex", "memberid", "customerid", "visitorid"},
    "item": {
        *("item", "itemid", "iid", "movieid", "videoid", "productid", "articleid", "newsid"),
        *("songid", "trackid", "bookid", "contentid", "adid"),
    },
    "time": {"timestamp", "time", "ts", "timems", "date", "datetime", "eventtime", "createdat", "unixtime"},
    "positive": {"click", "isclick", "clicked", "like", "islike", "liked", "label", "feedback", "positive"},
    "rating": {"rating", "stars", "score"},
    "title": {"title", "name", "itemname", "productname"},
}
_FLAGS = {"0", "1", "0.0", "1.0", "true", "false"}
_LIST_SEPARATORS = "|;"


class Role(NamedTuple):
    """A role, and what was said with it: the unit of a time, a behaviour's name and the one it comes after."""

    name: str
    argument: str | None = None
    after: str | None = None


Roles = dict[str, Role]
"""The roles of a file's columns, in the order of the file."""


def resolve_roles(assignments: Sequence[str], files: Mapping[str, RawFile]) -> dict[str, Roles]:
    """Find the role of every column.

    Args:
        assignments: ``column=role`` or, where only one file is meant, ``items.column=role``.
        files: ``interactions`` and, where given, ``items`` and ``users``.

    Returns:
        By file, the roles of its columns; those that nobody mapped are guessed or ignored.

    Raises:
        UserError: an unknown column or role, a role given twice, or one that is needed and missing.
    """
    mapped: dict[str, Roles] = {name: {} for name in files}
    for assignment in assignments:
        column, separator, text = assignment.rpartition("=")
        if not separator or not column or not text:
            raise UserError(f"--map takes column=role, got {assignment!r}")
        role = _parse(text, assignment)
        for place, name in _places(column, role, files, assignment):
            if mapped[place].setdefault(name, role) != role:
                raise UserError(f"--map gives {name!r} two roles in the {place} file")
    resolved = {place: _guess(place, file, mapped[place]) for place, file in files.items()}
    for place, roles in resolved.items():
        _check(place, files[place], roles)
    return resolved


def written(role: Role) -> str:
    """A role as ``--map`` takes it."""
    argument = f":{role.argument}" if role.argument else ""
    return f"{role.name}{argument}" + (f"@{role.after}" if role.after else "")


def _parse(text: str, assignment: str) -> Role:
    name, _, argument = text.partition(":")
    known = sorted({role for roles in ROLES.values() for role in roles})
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise UserError(
            f"--map {assignment}: unknown role {name!r}; did you mean {nearest!r}? ({', '.join(known)})"
        )
    if name == "behaviour":
        behaviour, _, after = argument.partition("@")
        if not behaviour:
            raise UserError(f"--map {assignment}: name the behaviour, as in {text}:buy")
        return Role(name, behaviour, after or None)
    if argument and not (name == "time" and argument in UNITS):
        raise UserError(f"--map {assignment}: only a time has a unit, one of {', '.join(UNITS)}")
    return Role(name, argument or None)


def _places(column: str, role: Role, files: Mapping[str, RawFile], assignment: str) -> list[tuple[str, str]]:
    """The files and columns that an assignment speaks of."""
    prefix, _, rest = column.partition(".")
    if prefix in ROLES and not any(column in file.columns for file in files.values()):
        if prefix not in files:
            raise UserError(f"--map {assignment}: there is no {prefix} file (--{prefix})")
        candidates = [(prefix, rest)]
    else:
        candidates = [(place, column) for place in files]
    having = [(place, name) for place, name in candidates if name in files[place].columns]
    if not having:
        columns = [name for place, _ in candidates for name in files[place].columns]
        nearest = difflib.get_close_matches(candidates[0][1], columns, n=1, cutoff=0.0)[0]
        where = ", ".join(files[place].path.name for place, _ in candidates)
        raise UserError(f"--map {assignment}: no such column in {where}; did you mean {shortened(nearest)}?")
    allowed = [(place, name) for place, name in having if role.name in ROLES[place]]
    if not allowed:
        place = having[0][0]
        raise UserError(f"--map {assignment}: a column of the {place} file is one of {', '.join(ROLES[place])}")
    return allowed


def _guess(place: str, file: RawFile, mapped: Roles) -> Roles:
    sample, roles = file.sample(), {}
    taken = {role.name for role in mapped.values()}
    if taken & {"positive", "rating"}:
        taken |= {"positive", "rating"}
    for column in file.columns:
        if column in mapped:
            roles[column] = mapped[column]
            continue
        plain = re.sub(r"[^a-z0-9]", "", column.lower())
        named = [
            role
            for role, names in _NAMES.items()
            if plain in names and role in ROLES[place] and role not in taken and _can_be(role, sample[column])
        ]
        if named:
            roles[column] = Role(named[0])
        elif place == "interactions" or column.startswith("#"):
            roles[column] = Role("ignore")
        else:
            roles[column] = Role(_feature(sample[column]))
    return roles


def _can_be(role: str, sample: pa.ChunkedArray) -> bool:
    if role == "positive":
        return pa.types.is_boolean(sample.type) or _share(_texts(sample), _is_flag) > 0.5
    if role == "rating":
        return _is_number(sample)
    if role == "time":
        return guess_time(sample) is not None
    return True


def _feature(sample: pa.ChunkedArray) -> str:
    """The role of a column of profiles or metadata, by its first values."""
    kind = sample.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return "vector" if pa.types.is_floating(kind.value_type) else "list"
    if pa.types.is_nested(kind) or pa.types.is_binary(kind):
        return "ignore"
    if pa.types.is_boolean(kind) or _is_number(sample):
        return "number"
    texts = _texts(sample)
    if not texts or (guess_time(sample) is not None):
        return "ignore"
    separator = list_separator(sample)
    if separator is not None and _share(texts, lambda text: separator in text) > 0.1:
        return "list"
    return "category" if len(set(texts)) <= max(len(texts) // 2, 2) else "ignore"


def list_separator(sample: pa.ChunkedArray) -> str | None:
    """The separator of lists that are written as text, ``|`` or ``;``, or None where neither occurs."""
    texts = _texts(sample)
    counts = {mark: sum(mark in text for text in texts) for mark in _LIST_SEPARATORS}
    most = max(counts, key=lambda mark: counts[mark])
    return most if counts[most] else None


def _is_number(sample: pa.ChunkedArray) -> bool:
    if (
        pa.types.is_integer(sample.type)
        or pa.types.is_floating(sample.type)
        or pa.types.is_decimal(sample.type)
    ):
        return True
    return _share(_texts(sample), _finite) > 0.9


def _share(texts: list[str], holds: Callable[[str], bool]) -> float:
    """Of how many texts something holds: a few bad rows must not decide what a column is."""
    return sum(map(holds, texts)) / max(len(texts), 1)


def _is_flag(text: str) -> bool:
    return text.lower() in _FLAGS


def _finite(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def _texts(sample: pa.ChunkedArray) -> list[str]:
    """The first values that are there, as texts without surrounding space."""
    if pa.types.is_nested(sample.type) or pa.types.is_binary(sample.type):
        return []
    texts = pc.utf8_trim_whitespace(sample.drop_null().cast(pa.string())).to_pylist()
    return [text for text in texts if text not in MISSING]


def _check(place: str, file: RawFile, roles: Roles) -> None:
    by_role: dict[str, list[str]] = {}
    for column, role in roles.items():
        by_role.setdefault(role.name, []).append(column)
    for name, columns in by_role.items():
        if len(columns) > 1 and name not in _REPEATED:
            names = " and ".join(map(repr, columns))
            raise UserError(f"{file.path}: {names} both look like the {name}: map one, and the other to ignore")
    needed = {"interactions": ("user", "item", "time"), "items": ("item",), "users": ("user",)}[place]
    missing = [need for need in needed if need not in by_role]
    says = "positive" in by_role or "rating" in by_role
    if missing:
        more = [*missing, *(["positive"] if place == "interactions" and not says else [])]
        raise UserError(
            f"{file.path}: no column looks like the {', the '.join(more)}; say which with "
            f"{' '.join(f'--map COLUMN={need}' for need in more)} ({listed(file.columns)})"
        )
    if place != "interactions":
        return
    if "positive" in by_role and "rating" in by_role:
        columns = by_role["positive"] + by_role["rating"]
        names = " and ".join(map(repr, columns))
        raise UserError(f"{file.path}: {names} could both say what is positive: map one of them to ignore")
    if not says:
        raise UserError(
            f"{file.path}: no column says which responses were positive, and a model of responses needs both "
            f"kinds: --map COLUMN=positive (0/1) or COLUMN=rating"
        )
