"""Where commands come from: entry points of what is installed, or of the source checkout that is running."""

from configparser import ConfigParser
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from pathlib import Path

_SETUP = Path(__file__).resolve().parents[2] / "setup.cfg"


def registered(group: str) -> dict[str, EntryPoint]:
    """The entry points of ``group`` by name.

    Where none is installed, those that the checkout's ``setup.cfg`` declares: a copy of the source tree runs as
    ``python -m rl_rec.cli.main`` on a machine where nothing may be installed.
    """
    found = entry_points(group=group) or _declared(group)
    return {entry.name: entry for entry in found}


def _declared(group: str) -> EntryPoints:
    setup = ConfigParser(interpolation=None)
    setup.read(_SETUP, encoding="utf-8")  # no such file, no entries
    lines = setup.get("options.entry_points", group, fallback="").strip().splitlines()
    pairs = (line.partition("=") for line in lines if not line.startswith("#"))
    return EntryPoints(EntryPoint(name.strip(), value.strip(), group) for name, _, value in pairs)
