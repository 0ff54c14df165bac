"""A job's command line, read before it travels: what is misspelt, and what the cluster would not find."""

import re
from collections.abc import Iterator, Sequence
from copy import copy
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import click
from click.core import ParameterSource

from envs.errors import UserError
from envs.storage.location import Url
from rl_rec.cli.checked import CheckedCommand
from rl_rec.cli.options import Folder, ValueOrFile

_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")
_NOT_HERE = ("submit", "jobs")


class Value(NamedTuple):
    """One value of a command line."""

    parameter: str
    """As the user writes it: ``--out``, or the argument's name."""
    text: str
    is_path: bool | None
    """None: its type does not tell."""
    is_default: bool


_PACKAGE = (
    "in a job it would lie in the package folder, which the cluster removes; give an absolute path or URL "
    "there, or --cwd DIR before `--`"
)


def check_command(
    cli: click.Group, arguments: Sequence[str], has_cwd: bool = False, relative: str = _PACKAGE
) -> list[str]:
    """Parse a command line of ``cli`` without running it, and check its paths.

    Args:
        cli: the group of verbs.
        arguments: what would follow ``rl-rec``.
        has_cwd: whether relative paths have a place on the cluster.
        relative: what becomes of them where they have none, and what to give instead.

    Returns:
        Warnings, one line each.

    Raises:
        click.UsageError: an unknown verb or option, a missing or a wrong value.
        UserError: a relative path without ``has_cwd``; a verb or an option that makes no sense in a job; what
            the command itself refuses of its parameters, such as an unknown algorithm or a misspelt setting.
    """
    if arguments and arguments[0] == "rl-rec":
        raise UserError("leave out rl-rec: give what follows it, such as -- train hac ...")
    if arguments and arguments[0] in _NOT_HERE:
        raise UserError(f"a job cannot be `rl-rec {arguments[0]}`: give what shall run on the cluster")
    warnings = []
    for value in _values(cli, None, "rl-rec", list(arguments)):
        if value.parameter == "--address":
            raise UserError("leave --address out of the job's command: it uses the cluster that it runs in")
        if has_cwd:
            continue
        if value.is_path:
            _check_path(value, relative)
        elif value.is_path is None and _is_relative(path := value.text.rpartition("=")[2]) and _exists(path):
            warnings.append(
                f"{value.parameter} {value.text}: {path} exists here, and will not be found on the "
                "cluster: give an absolute path there"
            )
    return warnings


def _check_path(value: Value, relative: str) -> None:
    if not _is_relative(value.text):
        return
    origin = "by default " if value.is_default else ""
    raise UserError(f"{value.parameter} is {origin}{value.text}, a relative path: {relative}")


def _is_relative(path: str) -> bool:
    return bool(path) and not _URL.match(path) and not PurePosixPath(path).is_absolute()


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except OSError:  # no path at all, e.g. too long
        return False


def _values(
    command: click.Command, parent: click.Context | None, name: str, arguments: list[str]
) -> Iterator[Value]:
    """Have click parse ``arguments``, except that nothing looks at this machine's files and devices."""
    bare = _bare(command)
    with bare.make_context(name, arguments, parent=parent) as context:
        for parameter, original in zip(bare.params, command.params, strict=True):
            if parameter.name is None or not parameter.expose_value:
                continue
            label = (
                parameter.opts[0] if isinstance(parameter, click.Option) else parameter.make_metavar(context)
            )
            is_default = context.get_parameter_source(parameter.name) is not ParameterSource.COMMANDLINE
            for text in _texts(context.params[parameter.name]):
                yield Value(label, text, _is_path(original.type, text), is_default)
        if isinstance(command, CheckedCommand):
            command.check(**context.params)
        if isinstance(command, click.Group):
            if not context.args:
                context.fail("Missing command.")
            verb, chosen, rest = command.resolve_command(context, context.args)
            if chosen is not None:
                yield from _values(chosen, context, verb or "", rest)


def _bare(command: click.Command) -> click.Command:
    """``command`` without callbacks, with paths as plain text, and with what follows a group left over."""
    settings = dict(command.context_settings)
    if isinstance(command, click.Group):
        settings |= {"allow_extra_args": True, "allow_interspersed_args": False}
    params = [_bare_parameter(each) for each in command.params]
    return click.Command(command.name, settings, params=params, help=command.help, epilog=command.epilog)


def _bare_parameter(parameter: click.Parameter) -> click.Parameter:
    bare = copy(parameter)
    if bare.expose_value:  # others print and end, such as --version
        bare.callback = None
    if isinstance(bare.type, (click.Path, click.File)):
        bare.type = click.STRING
    return bare


def _is_path(kind: click.ParamType, text: str) -> bool | None:
    if isinstance(kind, ValueOrFile):
        return kind.is_file(text)
    return True if isinstance(kind, (click.Path, click.File, Folder)) else None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from _texts(part)
    elif isinstance(value, (str, Path, Url)):
        yield str(value)
