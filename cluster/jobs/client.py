"""Ray's job API with every failure as one line, and logs that outlive a lost connection."""

import asyncio
import logging
import os
import re
import shlex
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import ray
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from cluster.addresses import ADDRESS_VARIABLES, dashboard_address, dashboard_hint
from cluster.ray_session import WORKER_ENVIRONMENT
from cluster.tokens import MISSING, refused, use_token
from envs.errors import UserError

COMMAND_KEY = "rl_rec_command"
"""Where a job's metadata holds its command line as the user gave it."""

JOB_VARIABLES: Mapping[str, str] = {
    **WORKER_ENVIRONMENT,
    # Running trials save, and the command says how to go on: that may take 30 s.
    "RAY_JOB_STOP_SIGNAL": "SIGTERM",
    "RAY_JOB_STOP_WAIT_TIME_S": "35",
}
"""What every job's environment holds; nothing of it is secret."""

_CONNECT_S = 10.0
_ANSWER_S = 120.0
_PAUSE_S = 1.0  # doubled after every failed attempt to reconnect, up to:
_LONGEST_PAUSE_S = 10.0
_QUIET_S = 10.0  # without a line: ask whether the job still runs
PATIENCE_S = 300.0
"""How long the connection may be lost before following ends."""

for _chatty in (
    "dashboard.modules.dashboard_sdk",
    "dashboard.modules.job.sdk",
    "_private.runtime_env.packaging",
):
    logging.getLogger(f"ray.{_chatty}").setLevel(logging.WARNING)

_LOST = (requests.RequestException, aiohttp.ClientError, ConnectionError, TimeoutError, asyncio.TimeoutError)


class LostConnection(Exception):
    """The cluster did not answer for ``PATIENCE_S``; the job is none the worse for it."""


class _Client(JobSubmissionClient):
    """Ray's client, except that a request ends where nobody answers."""

    def _do_request(self, *arguments: Any, **options: Any) -> requests.Response:
        return super()._do_request(*arguments, **{"timeout": (_CONNECT_S, _ANSWER_S), **options})


class Jobs:
    """The jobs of one cluster.

    Args:
        address: of its dashboard, ``http://HOST:8265``; by default ``RAY_API_SERVER_ADDRESS`` or
            ``RAY_ADDRESS``.

    Raises:
        UserError: no address, one of another kind, nobody answers there, or no token that is accepted.
    """

    def __init__(self, address: str | None) -> None:
        self.address = dashboard_address(address)
        use_token()
        with self._one_line():
            parts = urlsplit(self.address)
            port = parts.port or (443 if parts.scheme == "https" else 80)
            socket.create_connection((parts.hostname or "", port), timeout=_CONNECT_S).close()
            with _environment({ADDRESS_VARIABLES[0]: self.address}):  # it would go before the argument
                self._client = _Client(self.address)
        self.ray_version: str | None = self._client._server_ray_version

    def check_version(self) -> None:
        """Refuse a cluster of another Ray: what a job pickles and its settings follow the version.

        Raises:
            UserError: the versions differ.
        """
        if self.ray_version != ray.__version__:
            raise UserError(
                f"the cluster at {self.address} runs Ray {self.ray_version}, this client {ray.__version__}: "
                "install the cluster's version here, or use a cluster of this one"
            )

    def submit(self, secrets: Iterable[str] = (), **request: Any) -> None:
        """Submit what ``JobSubmissionClient.submit_job`` takes; ``secrets`` stay out of errors."""
        with self._one_line(request["submission_id"], secrets):
            self._client.submit_job(**request)

    def exists(self, job: str) -> bool:
        """Whether the cluster knows ``job``."""
        return any(each.submission_id == job for each in self.list())

    def list(self) -> list[JobDetails]:
        """All submitted jobs, the newest first."""
        with self._one_line():
            jobs = [job for job in self._client.list_jobs() if job.submission_id]
        return sorted(jobs, key=lambda job: -(job.start_time or 0))

    def show(self, job: str) -> JobDetails:
        """The details of ``job``."""
        with self._one_line(job):
            return self._client.get_job_info(job)

    def logs(self, job: str) -> str:
        """All that ``job`` has printed so far."""
        with self._one_line(job):
            return self._client.get_job_logs(job)

    def stop(self, job: str, wait: bool = False) -> bool:
        """Ask ``job`` to stop; False where it had ended already. ``wait`` until it has ended."""
        with self._one_line(job):
            stopped = self._client.stop_job(job)
            while wait and not self._client.get_job_info(job).status.is_terminal():
                time.sleep(_PAUSE_S)
        return stopped

    def follow(
        self,
        job: str,
        write: Callable[[str], None],
        notice: Callable[[str], None],
        patience_s: float = PATIENCE_S,
    ) -> JobDetails:
        """Pass on the job's log, from its beginning until its end.

        A lost connection is made again, and the log goes on where it was.

        Args:
            job: its submission id.
            write: takes pieces of the log.
            notice: takes a line about the connection.
            patience_s: how long to try to connect again.

        Returns:
            The ended job.

        Raises:
            UserError: there is no such job.
            LostConnection: nobody answered for ``patience_s``.
        """
        self.show(job)
        return asyncio.run(_Follower(self._client, job, write, notice, patience_s).run())

    @contextmanager
    def _one_line(self, job: str | None = None, secrets: Iterable[str] = ()) -> Iterator[None]:
        try:
            yield
        except AuthenticationError as error:
            raise UserError(_token_problem(str(error))) from None
        except (requests.JSONDecodeError, KeyError):
            raise UserError(
                f"what answers at {self.address} is no Ray dashboard: {dashboard_hint(self.address)}"
            ) from None
        except (requests.RequestException, OSError) as error:
            problem = _reason(error)
            hint = dashboard_hint(self.address)
            raise UserError(f"no Ray dashboard answers at {self.address} ({problem}): {hint}") from None
        except (RuntimeError, ValueError) as error:
            text = str(error)
            if "already exists" in text:
                raise UserError(f"there is a job {job} already: choose another --name") from None
            if "does not exist" in text and job is not None:
                raise UserError(f"{self.address} knows no job {job}: see `rl-rec jobs list`") from None
            if "404" in text or "405" in text:
                raise UserError(
                    f"the Ray at {self.address} has no job API: its head needs ray[default]"
                ) from None
            raise UserError(f"the cluster refuses: {last_line(redact(text, secrets))}") from None


def exit_code(job: JobDetails) -> int:
    """What a command that ended as ``job`` did would return: its own code, 1 without one, 130 when stopped."""
    if job.status == JobStatus.SUCCEEDED:
        return 0
    if job.status == JobStatus.STOPPED:
        return 130
    code = job.driver_exit_code
    if code is None or code == 0:
        return 1
    return code if code > 0 else 128 - code  # ended by a signal


def describe(job: JobDetails) -> dict[str, Any]:
    """One job as plain data. Variables are named, their values are not shown."""
    variables: Mapping[str, str] = (job.runtime_env or {}).get("env_vars") or {}
    secrets = [value for name, value in variables.items() if name not in JOB_VARIABLES]
    ended = job.end_time if job.status.is_terminal() else None
    message = job.message if job.status == JobStatus.FAILED else None
    return {
        "job": job.submission_id,
        "status": job.status.value,
        "exit_code": exit_code(job) if job.status.is_terminal() else None,
        "command": (job.metadata or {}).get(COMMAND_KEY) or job.entrypoint,
        "problem": _problem(redact(message, secrets)) if message else None,
        "started_s": job.start_time / 1000 if job.start_time else None,
        "ended_s": ended / 1000 if ended else None,
        "variables": sorted(variables),
        "ray_job": job.job_id,
        "node": job.driver_node_id,
    }


def redact(text: str, secrets: Iterable[str]) -> str:
    """Hide values in ``text``, and their lines, since a message may indent, quote or cut what has several.

    What is shorter than four signs is no secret, and would hide ordinary words.
    """
    parts = {part.strip() for secret in secrets for part in (secret, *secret.splitlines())}
    for part in sorted((each for each in parts if len(each) > 3), key=len, reverse=True):
        text = text.replace(part, "***")
    return text


def last_line(text: str) -> str:
    """The line of a server's traceback that names the problem."""
    lines = [line.strip() for line in text.splitlines() if line.strip(" .\t")]
    return lines[-1].rstrip(".") if lines else text


def follow_hint(job: str, address: str) -> str:
    """How to go on with a job that nobody follows."""
    tail = f"{shlex.quote(job)} --address {shlex.quote(address)}"
    return f"follow it with: rl-rec jobs logs {tail} --follow; stop it with: rl-rec jobs stop {tail}"


def _problem(message: str) -> str:
    first = message.strip().splitlines()[0].rstrip(":, ")
    if "exit code" in first:  # Ray repeats the log's end
        summary, _, log = message.strip().partition(", last available")
        cause = _cause(log.partition("\n")[2])
        return f"{summary}: {cause}" if cause else summary
    last = last_line(message)
    return first if last == first else f"{first}: {last}"


def _cause(log: str) -> str | None:
    """The last line of a log that tells an error: a command's own, or a traceback's; else simply the last."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"error: |[\w.]*(Error|Exception)\b", line)]
    return next(reversed(errors or lines), None)


def _token_problem(text: str) -> str:
    if "Authentication required" in text:
        return MISSING
    return refused() if "Authentication failed" in text else last_line(text)


def _reason(error: BaseException) -> str:
    if isinstance(error, (TimeoutError, requests.Timeout)):
        return "timed out"
    known = r"refused|timed out|name resolution|not known|reset|certificate|unreachable"
    found = re.search(known, str(error))
    return found[0] if found else type(error).__name__


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class _Follower:
    """One job's log over as many connections as it takes."""

    def __init__(
        self,
        client: JobSubmissionClient,
        job: str,
        write: Callable[[str], None],
        notice: Callable[[str], None],
        patience_s: float,
    ) -> None:
        self._client, self._job, self._patience_s = client, job, patience_s
        self._write, self._notice = write, notice
        self._written = 0  # characters

    async def run(self) -> JobDetails:
        lost_s: float | None = None  # since when
        pause_s = _PAUSE_S
        while True:
            before = self._written
            try:
                await self._tail()
                job = self._client.get_job_info(self._job)
                if job.status.is_terminal():
                    # What a proxy held back or a dying agent never sent.
                    self._pass_on(0, self._client.get_job_logs(self._job))
                    return job
                if lost_s is not None:
                    self._notice("connected again")
                lost_s, pause_s = None, _PAUSE_S
            except (*_LOST, RuntimeError) as error:
                now_s = time.monotonic()
                if lost_s is None or self._written > before:
                    lost_s, pause_s = now_s, _PAUSE_S
                    self._notice(f"lost the connection ({_reason(error)}); the job goes on, trying again")
                if now_s - lost_s > self._patience_s:
                    raise LostConnection(_reason(error)) from None
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _tail(self) -> None:
        """Pass on what is new until the stream or the job ends; a new stream begins at the start."""
        stream = self._client.tail_job_logs(self._job)
        position = 0
        while True:
            piece = asyncio.ensure_future(anext(stream))
            try:
                # A connection that a proxy or a sleeping laptop dropped brings neither data nor an error.
                while not (await asyncio.wait({piece}, timeout=_QUIET_S))[0]:
                    if self._client.get_job_info(self._job).status.is_terminal():
                        return
                text = await piece
            except StopAsyncIteration:
                return
            finally:
                piece.cancel()
            self._pass_on(position, text)
            position += len(text)

    def _pass_on(self, position: int, text: str) -> None:
        """Write what of ``text``, which begins at ``position``, has not been written."""
        new = text[max(self._written - position, 0) :]
        if new:
            self._write(new)
            self._written = position + len(text)
