"""Options that mean the same on every command.

A command stacks these decorators and takes the named parameter: ``--json`` gives ``as_json``, ``--set`` gives
``assignments``, the others carry their own name.
"""

import difflib
import functools
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import click

from envs.errors import UserError
from envs.settings import Settings
from envs.storage.location import Location, Url, location
from rl_rec.cli.output import reserve_stdout

SettingsT = TypeVar("SettingsT", bound=Settings)


def _reserve(context: click.Context, _: click.Parameter, value: bool) -> bool:
    if value:
        reserve_stdout(context)
    return value


def check_device_name(name: str) -> str:
    """Return ``name`` if some machine may have such a device.

    Raises:
        UserError: none can.
    """
    if re.fullmatch(r"cpu|cuda(:\d+)?", name) is None:
        raise UserError(f"unknown device {name!r}; use cpu, cuda or cuda:<index>")
    return name


class Device(click.ParamType):
    """The name of a device; whether this machine has it is for a callback."""

    name = "device"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name."""
        return check_device_name(value)


def check_device(name: str) -> str:
    """Return ``name`` if torch can compute there.

    Args:
        name: ``cpu``, ``cuda`` or ``cuda:<index>``.

    Raises:
        UserError: no such device on this machine.
    """
    kind, _, index = check_device_name(name).partition(":")
    if kind == "cuda":
        import torch  # seconds: only those who ask for a GPU wait for it here

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            raise UserError(f"device {name!r} is not available: torch sees no CUDA device; use cpu")
        if index and int(index) >= count:
            raise UserError(f"device {name!r} is not available: torch sees cuda:0 to cuda:{count - 1}")
    return name


def overridden(settings: SettingsT, assignments: Sequence[str], seed: int | None = None) -> SettingsT:
    """Apply ``--set`` and ``--seed`` to ``settings``, strictly.

    Raises:
        UserError: an unknown path, an invalid value, or two different seeds.
    """
    if seed is None:
        return settings.with_overrides(assignments)
    if any(assignment.partition("=")[0].strip() == "seed" for assignment in assignments):
        raise UserError("give the seed once: --seed or --set seed=..., not both")
    return settings.with_overrides([*assignments, f"seed={seed}"])


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Refuse an output folder that holds something, before the work that would fill it starts.

    Raises:
        UserError: ``path`` exists, is not an empty folder, and ``overwrite`` is off.
    """
    if path.exists() and not overwrite and not (path.is_dir() and not any(path.iterdir())):
        raise UserError(f"{path} exists already; name another folder or add --overwrite")


class Choice(click.Choice[str]):
    """One of a few words; what a misspelt one is nearest to stands in the error."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """All words, and the nearest."""
        nearest = difflib.get_close_matches(str(value), self.choices, n=1)
        hint = "".join(f" Did you mean {word!r}?" for word in nearest)
        return super().get_invalid_choice_message(value, ctx) + hint


class Folder(click.ParamType):
    """A local path or the URL of a folder."""

    name = "path or url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Location:
        """A ``Path`` or a ``Url``."""
        return location(value)


FOLDER = Folder()


class ValueOrFile(click.ParamType):
    """A value, or the local path of a file that holds it.

    Args:
        is_file: whether a text is a file's path, by its looks alone.
    """

    name = "value or file"

    def __init__(self, is_file: Callable[[str], bool]) -> None:
        self.is_file = is_file


def local_folders(
    reads: Sequence[str] = (), writes: Sequence[str] = (), creates: Sequence[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Let a command that knows local folders take URLs: its ``FOLDER`` parameters become ``Path``.

    Args:
        reads: parameters whose folders are read: fetched into this node's cache.
        writes: parameters whose folders are written: working copies, pushed when the command ends.
        creates: as ``writes``, where nothing may lie there yet.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**parameters: Any) -> None:
            with ExitStack() as stack:
                if any(_holds_url(parameters[name]) for name in (*reads, *writes, *creates)):
                    # Arrow takes a while: only those who name a URL wait for it here.
                    from envs.storage.snapshots import fetch
                    from envs.storage.working_copy import working_copy

                    for name in reads:
                        value = parameters[name]
                        parameters[name] = tuple(map(fetch, value)) if type(value) is tuple else fetch(value)
                    for name in (*writes, *creates):
                        copy = working_copy(parameters[name], new=name in creates)
                        parameters[name] = stack.enter_context(copy)
                command(**parameters)

        return run

    return decorate


def _holds_url(value: Any) -> bool:
    return any(isinstance(place, Url) for place in (value if type(value) is tuple else (value,)))


json_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    callback=_reserve,
    help="Print one JSON document on stdout and nothing else.",
)

set_option = click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="PATH=VALUE",
    help="Override a setting; may be repeated. A misspelt PATH is an error that lists the valid ones.",
)

seed_option = click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=None,
    help="Seed of all randomness; the configuration's by default.",
)

overwrite_option = click.option("--overwrite", is_flag=True, help="Replace the output if it exists.")

device_option = click.option(
    "--device",
    type=Device(),
    default="cpu",
    show_default=True,
    callback=lambda _context, _parameter, value: check_device(value),
    help="Where to compute: cpu, cuda or cuda:<index>.",
)

_RAW = (
    click.option(
        "--raw",
        type=click.Path(path_type=Path),
        help="Folder of the source's downloaded files; not for own, synthetic and advertising.",
    ),
    click.option(
        "--interactions",
        type=click.Path(),
        multiple=True,
        help="Own logs: a CSV or Parquet file with a row per exposure, a folder or a pattern; may be repeated.",
    ),
    click.option("--items", type=click.Path(path_type=Path), help="Own items: a CSV or Parquet file."),
    click.option("--users", type=click.Path(path_type=Path), help="Own users: a CSV or Parquet file."),
    click.option(
        "--map",
        "roles",
        multiple=True,
        metavar="COLUMN=ROLE",
        help="What a column of own files means; may be repeated. Of interactions: user, item, time, positive, "
        "rating, behaviour:NAME, behaviour:NAME@PARENT, page, random, ignore. Of items and users "
        "(items.COLUMN=ROLE): item, user, title, number, category, list, vector, ignore. What is not mapped is "
        "guessed.",
    ),
    click.option(
        "--skip-bad-rows",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        metavar="N",
        help="Leave out up to N rows that do not fit, in all files together.",
    ),
)


def raw_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command what raw logs are read from: the parameters of ``envs.data.prepare.Raw``."""
    for option in reversed(_RAW):
        command = option(command)
    return command
