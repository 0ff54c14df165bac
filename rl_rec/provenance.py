"""What a run was: enough to repeat it, and nothing that names the machine or its owner."""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from envs.files import write_json
from envs.settings import Settings
from rl_rec.json_values import json_value

RUN_FILE = "run.json"
_PACKAGES = ("rl-rec", "torch", "ray", "numpy")
_CHECKOUT = Path(__file__).resolve().parent.parent
COMMIT_VARIABLE = "RL_REC_GIT_COMMIT"
"""Names the commit of code that travels without its checkout: ``<commit>`` or ``<commit>-dirty``."""
_DIRTY = "-dirty"


def describe_run(
    config: Settings | Mapping[str, Any], seed: int, data_fingerprint: str | None, device: str = "cpu"
) -> dict[str, Any]:
    """Describe the run that starts now.

    Args:
        config: the resolved configuration, defaults included.
        seed: of all randomness.
        data_fingerprint: of the dataset that the run reads; None for a run without one.
        device: where torch computes, ``cpu`` or ``cuda:<index>``.

    Returns:
        Plain data for ``write_run``: config, seed, data_fingerprint, versions, git, command, machine and
        started_utc.
    """
    return {
        "config": json_value(config),
        "seed": seed,
        "data_fingerprint": data_fingerprint,
        "versions": package_versions(),
        "git": code_state(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "machine": _machine(device),
        "started_utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def write_run(folder: Path, run: Mapping[str, Any]) -> Path:
    """Write ``run`` to ``run.json`` in ``folder``, whole or not at all, and return the file's path."""
    path = Path(folder) / RUN_FILE
    write_json(path, json_value(run))
    return path


def package_versions() -> dict[str, str | None]:
    """Versions of Python and of what decides a result; None for what is not installed."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return versions


def code_state() -> dict[str, Any] | None:
    """The running code's ``git_state``: its checkout's, else what ``RL_REC_GIT_COMMIT`` says."""
    named = os.environ.get(COMMIT_VARIABLE)
    state = git_state(_CHECKOUT)
    if state is None and named:
        return {"commit": named.removesuffix(_DIRTY), "dirty": named.endswith(_DIRTY)}
    return state


def commit_name() -> str | None:
    """The running code's commit as ``RL_REC_GIT_COMMIT`` holds it; None where nothing is known."""
    state = code_state()
    return None if state is None else state["commit"] + (_DIRTY if state["dirty"] else "")


def git_state(checkout: Path) -> dict[str, Any] | None:
    """The commit at ``checkout`` and whether tracked files differ from it.

    Returns:
        ``{"commit": ..., "dirty": ...}``, or None where ``checkout`` is not the top of a git checkout: an
        installed copy may lie inside some other project's repository.
    """
    try:
        # `--show-prefix` is empty at the top, whatever links the path goes through.
        prefix, commit = _git(checkout, "rev-parse", "--show-prefix", "HEAD").split("\n")[:2]
        if prefix:
            return None
        return {
            "commit": commit,
            "dirty": bool(_git(checkout, "status", "--porcelain", "--untracked-files=no")),
        }
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def _git(checkout: Path, *arguments: str) -> str:
    command = ["git", "-C", str(checkout), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout


def _machine(device: str) -> dict[str, Any]:
    import torch

    name: str | None = platform.machine()
    if device.startswith("cuda"):  # a cluster's head may have none, and drive what computes elsewhere
        name = torch.cuda.get_device_name(device) if torch.cuda.is_available() else None
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": _usable_cpus(),
        "threads": torch.get_num_threads(),
        "device": device,
        "device_name": name,
    }


def _usable_cpus() -> int:
    # Containers and job schedulers pin processes to fewer CPUs than the machine has.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
