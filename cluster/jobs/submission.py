"""A command line as a Ray job: what it ships, in which environment it runs, and how it is started."""

import os
import platform
import re
import secrets
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PathDistribution
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from packaging.requirements import Requirement

from cluster.jobs import package
from cluster.jobs.client import COMMAND_KEY, JOB_VARIABLES, Jobs
from envs.errors import UserError
from rl_rec.provenance import COMMIT_VARIABLE, commit_name

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PACKAGE_FOLDER = "${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}"  # Ray puts the folder's path in its place


@dataclass(frozen=True)
class Submission:
    """What to run, and how.

    Args:
        command: what follows ``rl-rec``.
        name: the job's submission id, unique on the cluster; made up from the verb and the time by default.
        environment: ``image`` compares the cluster's versions with the lock, ``lock`` installs them
            there, ``any`` takes what there is.
        variables: of the job's environment, by name.
        cwd: folder on the cluster in which the command runs.
        wheel: what to ship instead of the running code; see ``package.collect``.
        size_limit_mib: of the package.
        entrypoint_cpus: CPUs that the command itself reserves; trials reserve their own.
    """

    command: Sequence[str]
    name: str | None = None
    environment: str = "image"
    variables: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    wheel: str | None = None
    size_limit_mib: float = 16
    entrypoint_cpus: float = 0

    def __post_init__(self) -> None:
        if self.name is not None and not _NAME.fullmatch(self.name):
            raise UserError(f"--name takes letters, digits, dots, dashes and underscores, got {self.name!r}")


def submit(jobs: Jobs, job: Submission) -> tuple[str, int]:
    """Package and submit ``job``.

    Returns:
        Its submission id and the bytes of its package.

    Raises:
        UserError: the name is taken, another Ray runs there, the package is too large, or the cluster refuses.
    """
    jobs.check_version()
    name = job.name or _made_up(job.command)
    if job.name is not None and jobs.exists(name):  # before the upload
        raise UserError(f"there is a job {name} already: choose another --name")
    with TemporaryDirectory(prefix="rl-rec-") as temporary:
        scratch, folder = Path(temporary) / "made", Path(temporary) / "package"
        scratch.mkdir()
        folder.mkdir()
        size = package.write(package.collect(scratch, job.wheel), folder, job.size_limit_mib)
        jobs.submit(
            secrets=job.variables.values(),
            submission_id=name,
            entrypoint=entrypoint(job),
            runtime_env=runtime_environment(job, folder),
            metadata={COMMAND_KEY: shlex.join(["rl-rec", *job.command])},
            entrypoint_num_cpus=job.entrypoint_cpus or None,
        )
    return name, size


def entrypoint(job: Submission) -> str:
    """The shell command that Ray runs."""
    python = ".".join(platform.python_version_tuple()[:2])
    options = ["--python", python, "--environment", job.environment, *(["--cwd", job.cwd] if job.cwd else [])]
    # exec: no shell between Ray and the command, whose exit code and signals are then its own.
    return "exec " + shlex.join(["python", "-m", "cluster.jobs.main", *options, "--", *job.command])


def runtime_environment(job: Submission, folder: Path) -> dict[str, Any]:
    """Ray's ``runtime_env`` for a package that lies in ``folder``."""
    commit = None if job.wheel not in (None, "build") else commit_name()  # a wheel does not know its commit
    code = {COMMIT_VARIABLE: commit} if commit else {}
    variables = {**JOB_VARIABLES, **code, **job.variables}
    environment: dict[str, Any] = {"working_dir": str(folder), "env_vars": variables}
    if job.environment == "lock":
        (metadata,) = folder.glob("*.dist-info")
        needed = [Requirement(text) for text in PathDistribution(metadata).requires or ()]
        environment["pip"] = {
            # What the code requires, at the locked versions; the lock holds development tools as well.
            "packages": [
                *(str(each) for each in needed if each.marker is None),
                f"-c {_PACKAGE_FOLDER}/{package.LOCK}",
            ],
            "pip_check": False,
        }
    return environment


def read_variables(texts: Sequence[str]) -> dict[str, str]:
    """Read ``NAME=VALUE`` and ``NAME``, whose value is this process's.

    Raises:
        UserError: not a name, or a name that is not set here. Values are never repeated.
    """
    variables = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not _VARIABLE.fullmatch(name):
            raise UserError("--env takes NAME=VALUE or NAME, and one of the names given is not a variable's")
        if not equals:
            if name not in os.environ:
                raise UserError(f"--env {name}: {name} is not set here; set it, or give {name}=VALUE")
            value = os.environ[name]
        variables[name] = value
    return variables


def _made_up(command: Sequence[str]) -> str:
    verb = next((word for word in command if _NAME.fullmatch(word)), "job")
    return f"{verb}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"
