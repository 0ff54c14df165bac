"""What a submitted job runs on the cluster: compare the environment, then the command itself.

``python -m cluster.jobs.main --python 3.11 --environment image [--cwd DIR] -- train hac ...``
"""

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

# No import of the project here: where versions differ, it may not even load.

_NAMED = 8  # differences in the one line
_FIX = {
    "image": "use an image built from this requirements.lock, --environment lock, or --environment any",
    "lock": "the cluster needs the client's Python and Ray",
}


def main(arguments: Sequence[str]) -> int:
    """Run one job, which ends the process; return 2 where the environment is not the client's."""
    parser = argparse.ArgumentParser(prog="python -m cluster.jobs.main")
    parser.add_argument("--python", required=True, help="the client's, e.g. 3.11")
    parser.add_argument("--environment", required=True, choices=["image", "lock", "any"])
    parser.add_argument("--cwd", help="where to run the command")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(arguments)
    if options.environment != "any":
        package = Path(__file__).resolve().parent.parent.parent
        found, minor = differences(options.python, (package / "requirements.lock").read_text())
        if found:
            fix = _FIX[options.environment]
            return _fail(f"the cluster's environment is not the client's: {_named(found)}; {fix}")
        if minor:
            sys.stderr.write(f"note: the cluster has other versions of {_named(minor)}\n")
    if options.cwd is not None:
        try:
            os.chdir(options.cwd)
        except OSError as error:
            return _fail(f"--cwd {options.cwd}: {error.strerror} on the cluster")
    sys.argv = ["rl-rec", *options.command]  # a run's description names the command

    from rl_rec.cli.main import run

    run(options.command)


def differences(python: str, lock: str) -> tuple[list[str], list[str]]:
    """Say in what this environment differs from the client's.

    Args:
        python: the client's Python, major and minor.
        lock: text of its requirements.lock.

    Returns:
        One phrase per difference: first those in Python and in what the project itself requires, then those in
        what comes with it. What is locked and not required may be missing, development tools are in the lock
        too. A local version (``2.13.0+cpu``) is the same.
    """
    found: list[str] = []
    minor: list[str] = []
    here = ".".join(platform.python_version_tuple()[:2])
    if here != python:
        found.append(f"Python {here} (client {python})")
    needed = {canonicalize_name(Requirement(text).name) for text in requires("rl-rec") or ()}
    for name, locked in _locked(lock).items():
        try:
            installed = version(name)
        except PackageNotFoundError:
            if name in needed:
                found.append(f"{name} is missing (lock {locked})")
            continue
        if Version(installed).public != Version(locked).public:
            (found if name in needed else minor).append(f"{name} {installed} (lock {locked})")
    return found, minor


def _named(differing: Sequence[str]) -> str:
    more = f" and {len(differing) - _NAMED} more" if len(differing) > _NAMED else ""
    return ", ".join(differing[:_NAMED]) + more


def _locked(lock: str) -> dict[str, str]:
    """Versions by name, for this interpreter and platform."""
    versions: dict[str, str] = {}
    for line in lock.splitlines():
        text = line.partition("#")[0].strip()
        if text:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate():
                versions[canonicalize_name(requirement.name)] = str(requirement.specifier).removeprefix("==")
    return versions


def _fail(message: str) -> int:
    sys.stderr.write(f"error: {message}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
