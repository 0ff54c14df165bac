"""`rl-rec submit` and `rl-rec jobs`: the same command lines on a Ray cluster, through its job API."""

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table
from rich.text import Text

from envs.errors import Terminated, UserError
from rl_rec.cli.options import Choice, json_option
from rl_rec.cli.output import console, emit

if TYPE_CHECKING:
    from cluster.jobs.client import Jobs

_COMMAND_WIDTH = 70

address_option = click.option(
    "--address",
    metavar="URL",
    help="The cluster's dashboard, http://HOST:8265; by default RAY_API_SERVER_ADDRESS or RAY_ADDRESS. A token "
    "is taken from RAY_AUTH_TOKEN_PATH or RAY_AUTH_TOKEN.",
)


@click.command(
    context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False},
    epilog="Example: rl-rec submit --address http://head:8265 --name hac-1 --env WANDB_API_KEY -- train hac "
    "--simulator /mnt/shared/sim --out /mnt/shared/runs/hac-1",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND...")
@address_option
@click.option(
    "--name",
    "--submission-id",
    "name",
    metavar="ID",
    help="The job's id, once per cluster: submitting it again is refused. Made up by default.",
)
@click.option(
    "--environment",
    type=Choice(["image", "lock", "any"]),
    default="image",
    show_default=True,
    help="image: the cluster has the locked versions, and the job ends at once where it has not. lock: pip "
    "installs them there, once per node. any: do not compare.",
)
@click.option(
    "--env",
    "variables",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="A variable for the job, or one of your own by its name; may be repeated. Values are never printed.",
)
@click.option(
    "--cwd",
    metavar="DIR",
    help="Folder on the cluster to run the command in; without it, paths must be absolute.",
)
@click.option(
    "--wheel", metavar="PATH|build", help="Ship a wheel, or build one, instead of the code that runs here."
)
@click.option(
    "--size-limit",
    type=click.FloatRange(min=0, min_open=True),
    default=16,
    show_default=True,
    metavar="MIB",
    help="Refuse a larger package. Data does not travel in it.",
)
@click.option(
    "--entrypoint-cpus",
    type=click.FloatRange(min=0),
    default=0,
    show_default=True,
    help="CPUs for the command itself, beside those of its trials. With 0 it runs on the head node.",
)
@click.option("--detach", is_flag=True, help="Print the job's id and return; do not follow its log.")
@json_option
def submit(
    command: Sequence[str],
    address: str | None,
    name: str | None,
    environment: str,
    variables: Sequence[str],
    cwd: str | None,
    wheel: str | None,
    size_limit: float,
    entrypoint_cpus: float,
    detach: bool,
    as_json: bool,
) -> None:
    """Run `rl-rec COMMAND...` as a job on a Ray cluster, follow its log, and return its exit code.

    Ships the project's packages, nothing else: data and results are absolute paths or URLs of storage that the
    whole cluster sees. COMMAND is checked here first.

    Ctrl-C detaches: the job goes on, and the exit code is 130. Follow it again with
    `rl-rec jobs logs ID --follow`, stop it with `rl-rec jobs stop ID`. A lost connection is made again. Exit
    codes: the command's own, 1 for a job that failed without one, 130 for one that was stopped.
    """
    from cluster.jobs.command import check_command
    from rl_rec.cli.main import cli

    if cwd is not None and not PurePosixPath(cwd).is_absolute():
        raise UserError(f"--cwd {cwd}: give an absolute path on the cluster")
    for warning in check_command(cli, command, cwd is not None):
        console.print(f"[yellow]{warning}[/yellow]", soft_wrap=True)

    from cluster.jobs import submission
    from cluster.jobs.client import Jobs

    job = submission.Submission(
        command=command,
        name=name,
        environment=environment,
        variables=submission.read_variables(variables),
        cwd=cwd,
        wheel=wheel,
        size_limit_mib=size_limit,
        entrypoint_cpus=entrypoint_cpus,
    )
    jobs = Jobs(address)
    identity, size = submission.submit(jobs, job)
    _say(f"submitted {identity} to {jobs.address} ({size / 2**20:.1f} MiB)")
    if not detach:
        _follow(jobs, identity, as_json)
    elif as_json:
        emit({"job": identity, "address": jobs.address, "detached": True}, as_json)
    else:
        _say(_hint(jobs, identity))
        click.echo(identity)


@click.group(epilog="Example: rl-rec jobs list --address http://head:8265")
def jobs() -> None:
    """List, show, follow and stop the jobs of a Ray cluster."""


@jobs.command("list", epilog="Example: rl-rec jobs list --address http://head:8265")
@address_option
@json_option
def list_jobs(address: str | None, as_json: bool) -> None:
    """List all jobs, the newest first."""
    from cluster.jobs.client import describe

    found = _connect(address).list()
    emit({"jobs": [describe(job) for job in found]}, as_json, _table)


@jobs.command(epilog="Example: rl-rec jobs show hac-1 --address http://head:8265")
@click.argument("job", metavar="ID")
@address_option
@json_option
def show(job: str, address: str | None, as_json: bool) -> None:
    """Show one job: its command, status, exit code and times, and the names of its variables."""
    from cluster.jobs.client import describe

    found = describe(_connect(address).show(job))
    emit(found, as_json, lambda result: _entries(result))


@jobs.command(epilog="Example: rl-rec jobs logs hac-1 --address http://head:8265 --follow")
@click.argument("job", metavar="ID")
@address_option
@click.option(
    "--follow", is_flag=True, help="Go on until the job ends, and return its exit code; Ctrl-C detaches."
)
@json_option
def logs(job: str, address: str | None, follow: bool, as_json: bool) -> None:
    """Print what a job has printed."""
    connected = _connect(address)
    if follow:
        _follow(connected, job, as_json)
        return
    text = connected.logs(job)
    if as_json:
        emit({"job": job, "logs": text}, as_json)
    else:
        _write(text)


@jobs.command(epilog="Example: rl-rec jobs stop hac-1 --address http://head:8265 --wait")
@click.argument("job", metavar="ID")
@address_option
@click.option("--wait", is_flag=True, help="Return when it has ended.")
@json_option
def stop(job: str, address: str | None, wait: bool, as_json: bool) -> None:
    """Stop a job: running trials save first. What has not ended after 35 s is killed."""
    connected = _connect(address)
    stopped = connected.stop(job, wait)
    status = connected.show(job).status.value
    if as_json:
        emit({"job": job, "stopped": stopped, "status": status}, as_json)
    elif not stopped:
        _say(f"{job} had ended already: {status.lower()}")
    else:
        _say(f"{job} is stopped" if wait else f"{job} is being stopped: {status.lower()}")


def _connect(address: str | None) -> "Jobs":
    from cluster.jobs.client import Jobs

    return Jobs(address)


def _follow(connected: "Jobs", job: str, as_json: bool) -> None:
    """Pass on the log until the job ends, and exit with its code."""
    from cluster.jobs.client import LostConnection, describe, exit_code

    try:
        ended = connected.follow(job, _write, _say)
    except KeyboardInterrupt:
        _say(f"\ndetached; {job} goes on: {_hint(connected, job)}")
        _detached(connected, job, as_json)
        raise click.exceptions.Exit(130) from None
    except Terminated:
        _say(f"{job} goes on: {_hint(connected, job)}")
        _detached(connected, job, as_json)
        raise
    except LostConnection as error:
        _detached(connected, job, as_json)
        _say(f"error: lost {connected.address} ({error}); {job} goes on: {_hint(connected, job)}")
        raise click.exceptions.Exit(1) from None
    found = describe(ended)
    code = exit_code(ended)
    if as_json:
        emit({"address": connected.address, "detached": False, **found}, as_json)
    _say(f"{job}: {_outcome(found)}")
    if code:
        raise click.exceptions.Exit(code)


def _detached(connected: "Jobs", job: str, as_json: bool) -> None:
    if as_json:
        emit({"address": connected.address, "detached": True, "job": job}, as_json)


def _hint(connected: "Jobs", job: str) -> str:
    from cluster.jobs.client import follow_hint

    return follow_hint(job, connected.address)


def _outcome(job: Mapping[str, Any]) -> str:
    text = f"{job['status'].lower()} after {_duration(job)}"
    return f"{text}; {job['problem']}" if job["problem"] else text


def _write(text: str) -> None:
    # --json moves sys.stdout to stderr: only the document is on stdout.
    sys.stdout.write(text)
    sys.stdout.flush()


def _say(line: str) -> None:
    console.print(line, markup=False, soft_wrap=True)


_CELLS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "job": lambda job: job["job"],
    "status": lambda job: job["status"].lower(),
    "exit": lambda job: "" if job["exit_code"] is None else str(job["exit_code"]),
    "started": lambda job: _moment(job["started_s"]),
    "took": lambda job: _duration(job),
    "command": lambda job: _shortened(job["command"]),
}


def _table(result: Mapping[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="bold")
    for column in _CELLS:  # where there is no room, the command alone is cut
        right = column in ("exit", "took")
        table.add_column(column, justify="right" if right else "left", no_wrap=column != "command")
    for job in result["jobs"]:
        *cells, command = (cell(job) for cell in _CELLS.values())
        table.add_row(*cells, Text(command, no_wrap=True, overflow="ellipsis"))
    return table


def _entries(job: Mapping[str, Any]) -> Table:
    from rl_rec.cli.output import entries_table

    told = {
        "status": job["status"].lower(),
        "started": _moment(job["started_s"]),
        "took": _duration(job),
    }
    return entries_table({name: value for name, value in job.items() if not name.endswith("_s")} | told)


def _moment(seconds: float | None) -> str:
    return "-" if seconds is None else datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")


def _duration(job: Mapping[str, Any]) -> str:
    if job["started_s"] is None:
        return "-"
    end_s = job["ended_s"] or datetime.now().timestamp()
    minutes, seconds = divmod(max(round(end_s - job["started_s"]), 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


def _shortened(command: str) -> str:
    words = shlex.split(command)
    text = shlex.join(words)
    return text if len(text) <= _COMMAND_WIDTH else text[: _COMMAND_WIDTH - 1] + "…"
