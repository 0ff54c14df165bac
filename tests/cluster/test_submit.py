"""`rl-rec submit` and `rl-rec jobs` against a real cluster: started here, with tokens, on ports of its own."""

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cluster.jobs.client import Jobs
from cluster.jobs.submission import Submission, submit
from envs.errors import UserError
from rl_rec.provenance import commit_name

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SECONDS = 900  # for anything: a busy machine takes a minute to import torch
# What a shell starts in the background ignores Ctrl-C, and a test session may be that.
PROGRAM = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from rl_rec.cli.main import main; sys.exit(main())"
)


class Cluster(NamedTuple):
    address: str
    port: int
    token: str
    folder: Path
    node_address: str


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def without_ray() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return kept | {"RAY_USAGE_STATS_ENABLED": "0"}


def in_session(leader: int) -> list[int]:
    """Processes of a session: Ray moves some of its own into process groups of theirs."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[3]) == leader:
                found.append(int(stat.parent.name))
        except (OSError, IndexError):
            continue
    return found


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head node without this checkout on its path: what jobs import has to travel with them."""
    folder = Path(tempfile.mkdtemp(prefix="rlr-"))  # short: Ray puts sockets below it
    token, port = secrets.token_hex(32), free_port()
    environment = without_ray() | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    environment.pop("PYTHONPATH", None)
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    names = ("port", "ray-client-server-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port")
    names += ("metrics-export-port", "runtime-env-agent-port")
    ports = [text for name in names for text in (f"--{name}", str(free_port()))]
    node_address = f"127.0.0.1:{ports[1]}"
    options = ["--head", "--block", "--num-cpus", "2", "--object-store-memory", str(100 * 2**20), *ports]
    options += ["--include-dashboard", "true", "--dashboard-host", "127.0.0.1", "--dashboard-port", str(port)]
    options += ["--min-worker-port", "0", "--max-worker-port", "0", "--temp-dir", str(folder / "ray")]
    command = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", *options]
    log = folder / "log"
    try:
        process = head(command, log, environment, folder)
        try:
            yield Cluster(f"http://127.0.0.1:{port}", port, token, folder, node_address)
        finally:
            end(process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def head(command: list[str], log: Path, environment: dict[str, str], folder: Path) -> "subprocess.Popen[bytes]":
    """Start Ray, again where a busy machine exceeds the 30 s that Ray gives itself."""
    for _ in range(5):
        with log.open("w") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=output, start_new_session=True, env=environment, cwd=folder
            )
        while process.poll() is None:
            if "Ray runtime started" in log.read_text():
                return process
            time.sleep(0.2)
        end(process)
        if "timed out during startup" not in log.read_text():
            break
    pytest.fail(log.read_text())


def end(process: "subprocess.Popen[bytes]") -> None:
    """End Ray and whatever of its session is left."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=60)
    for pid in in_session(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


class Ended(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def start(cluster: Cluster) -> Callable[..., "subprocess.Popen[str]"]:
    """Start `rl-rec` as a process that knows the cluster's token and address."""

    token = cluster.folder / "token"
    token.write_text(cluster.token)

    def run(*arguments: str, address: str = cluster.address, **variables: str) -> "subprocess.Popen[str]":
        known = {"RAY_AUTH_TOKEN_PATH": str(token), "RAY_API_SERVER_ADDRESS": address}
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=without_ray() | known | variables,
            cwd=cluster.folder,
        )

    return run


@pytest.fixture(scope="module")
def rl_rec(cluster: Cluster, start: Callable[..., "subprocess.Popen[str]"]) -> Callable[..., Ended]:
    """Run it to its end; whatever happens, the token is never printed."""

    def run(*arguments: str, **options: str) -> Ended:
        process = start(*arguments, **options)
        out, err = process.communicate(timeout=SECONDS)
        assert cluster.token not in out + err
        return Ended(process.returncode, out, err)

    return run


def one_line(ended: Ended) -> str:
    assert ended.code == 2 and ended.out == "" and ended.err.count("\n") == 1, ended
    return ended.err


class Relay:
    """A connection to the cluster that can be cut and mended."""

    def __init__(self, port: int) -> None:
        self._port, self._pairs = port, []
        self.listener: socket.socket | None = None
        self.port = free_port()
        self.mend()

    def mend(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._serve, args=(self.listener,), daemon=True).start()

    def cut(self) -> None:
        assert self.listener is not None
        # shutdown: closing alone does not wake the thread that waits in accept.
        for each in [self.listener, *self._pairs]:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._pairs.clear()

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._port))
            self._pairs += [near, far]
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=self._copy, args=(source, target), daemon=True).start()

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(2**16):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass


@pytest.fixture(scope="module")
def trained(cluster, start, command) -> tuple[Ended, Path, str | None]:
    """A job that trains; the connection is cut when it says so, and mended a moment later."""
    relay = Relay(cluster.port)
    run = cluster.folder / "shared/run"
    run.parent.mkdir()
    arguments = ["submit", "--name", "trains", "--environment", "any", "--env", "SECRET=verysecretvalue"]
    commit = commit_name()
    process = start(*arguments, "--", *command(run, 400), address=f"http://127.0.0.1:{relay.port}")
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "training; interrupt" in line:
            relay.cut()
            time.sleep(3)
            relay.mend()
    err = process.stderr.read()
    return Ended(process.wait(timeout=SECONDS), "".join(lines), err), run, commit


def test_a_job_trains_on_the_cluster(trained):
    ended, run, _ = trained
    assert ended.code == 0, ended
    assert "trains: succeeded after" in ended.err
    assert json.loads((run / "finished.json").read_text()) is not None
    assert list(run.glob("trial/checkpoint_*/manifest.json"))


def test_the_run_knows_the_commit_and_the_command_though_git_did_not_travel(trained):
    _, folder, commit = trained
    run = json.loads((folder / "run.json").read_text())
    assert run["git"]["commit"] + ("-dirty" if run["git"]["dirty"] else "") == commit
    assert run["command"][:3] == ["rl-rec", "train", "hac"]
    assert run["versions"]["rl-rec"] is not None


def test_the_log_goes_on_where_the_lost_connection_left_it(trained, rl_rec):
    ended, *_ = trained
    assert "lost the connection" in ended.err
    assert ended.out == rl_rec("jobs", "logs", "trains").out


def test_no_value_of_a_variable_is_shown(trained, rl_rec):
    shown = rl_rec("jobs", "show", "trains")
    assert "SECRET" in shown.out and "succeeded" in shown.out  # as `jobs list` writes it
    assert "verysecretvalue" not in shown.out + trained[0].out + trained[0].err


def test_a_name_is_taken_once(trained, rl_rec):
    again = one_line(rl_rec("submit", "--name", "trains", "--", "train", "--resume", "/x"))
    assert "there is a job trains already" in again


def test_a_failing_command_gives_its_exit_code_and_a_document(cluster, rl_rec):
    ended = rl_rec("submit", "--environment", "any", "--json", "--", "train", "--resume", "/no/such/run")
    document = json.loads(ended.out)
    assert ended.code == document["exit_code"] == 2
    assert document["status"] == "FAILED" and document["command"] == "rl-rec train --resume /no/such/run"
    assert "/no/such/run" in ended.err and "Traceback" not in ended.err


def test_a_detached_job_is_listed_followed_left_and_stopped(cluster, rl_rec, start, simulator, command):
    shared = cluster.folder / "work"
    shared.mkdir()
    (shared / "sim").symlink_to(simulator)
    long = command(Path("run"), 10**7)
    long[long.index("--simulator") + 1] = "sim"  # relative to --cwd
    detached = rl_rec("submit", "--environment", "any", "--cwd", str(shared), "--detach", "--", *long)
    assert detached.code == 0
    job = detached.out.strip()
    assert re.fullmatch(r"train-\d{8}-\d{6}-[0-9a-f]{4}", job)
    listed: list[dict[str, Any]] = json.loads(rl_rec("jobs", "list", "--json").out)["jobs"]
    assert listed[0]["job"] == job and listed[0]["status"] in ("PENDING", "RUNNING")

    follower = start("jobs", "logs", job, "--follow")
    assert any("training; interrupt" in line for line in follower.stdout)
    follower.send_signal(signal.SIGINT)
    _, err = follower.communicate(timeout=SECONDS)
    assert follower.returncode == 130 and f"detached; {job} goes on" in err
    assert not (shared / "run/finished.json").exists()

    assert rl_rec("jobs", "stop", job, "--wait").code == 0
    ended = rl_rec("jobs", "logs", job, "--follow")
    assert ended.code == 130 and "go on with: rl-rec train --resume run" in ended.out
    assert (shared / "run/run.json").is_file()


def test_a_token_is_needed_and_must_be_the_clusters(cluster, rl_rec):
    home = str(cluster.folder / "home")  # Ray looks for ~/.ray/auth_token
    assert "asks for a token" in one_line(rl_rec("jobs", "list", RAY_AUTH_TOKEN_PATH="", HOME=home))
    assert "refuses this token" in one_line(rl_rec("jobs", "list", RAY_AUTH_TOKEN="f" * 64))
    assert "names no file" in one_line(rl_rec("jobs", "list", RAY_AUTH_TOKEN_PATH="/no/token"))


def test_a_process_of_the_cluster_is_told_of_its_token_before_ray_tries_for_seconds(cluster, rl_rec, command):
    run = cluster.folder / "refused"
    joining = [*command(run, 400), "--address", cluster.node_address]
    home = str(cluster.folder / "home")
    assert "asks for a token" in one_line(rl_rec(*joining, RAY_AUTH_TOKEN_PATH="", HOME=home))
    assert "refuses this token" in one_line(rl_rec(*joining, RAY_AUTH_TOKEN="f" * 64))
    assert not run.exists()


@pytest.fixture
def jobs(cluster, monkeypatch) -> Jobs:
    """The cluster's jobs in this process, whose Ray has read its token mode long ago."""
    headers = {"Authorization": f"Bearer {cluster.token}"}
    ray_client = "ray.dashboard.modules.dashboard_sdk"
    monkeypatch.setattr(f"{ray_client}.get_auth_headers_if_auth_enabled", lambda _: headers)
    monkeypatch.setattr("cluster.jobs.client.use_token", lambda: None)
    return Jobs(cluster.address)


def test_an_unknown_job_is_one_line(jobs):
    for ask in (jobs.show, jobs.logs, jobs.stop, lambda job: jobs.follow(job, print, print)):
        with pytest.raises(UserError, match="knows no job nobody"):
            ask("nobody")


def test_a_package_over_the_limit_and_another_ray_are_refused_before_anything_travels(jobs, monkeypatch):
    known = len(jobs.list())
    with pytest.raises(UserError, match=r"more than --size-limit 0.1: the largest are \S+\.(py|json)"):
        submit(jobs, Submission(["train"], size_limit_mib=0.1))
    monkeypatch.setattr("ray.__version__", "2.59.1")
    with pytest.raises(UserError, match=r"runs Ray \S+, this client 2\.59\.1"):
        submit(jobs, Submission(["train"]))
    assert len(jobs.list()) == known


def test_nobody_who_answers_and_no_job_api_are_one_line(jobs):
    with pytest.raises(UserError, match=r"no Ray dashboard answers at http://127\.0\.0\.1:1 "):
        Jobs("http://127.0.0.1:1")
    served = ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    try:
        with pytest.raises(UserError, match="has no job API"):
            Jobs(f"http://127.0.0.1:{served.server_port}")
    finally:
        served.shutdown()
        served.server_close()
