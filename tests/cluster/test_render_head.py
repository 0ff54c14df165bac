"""A head started as the manifests say: its token, its probes, and who is let in."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import ray
import yaml

from tests.cluster.manifests import rendered

WAIT_S = 120


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def answer(url: str, token: str | None = None) -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


def probed(group: dict, port: int) -> str:
    """The address that a readiness probe asks, on another port."""
    command = group["template"]["spec"]["containers"][0]["readinessProbe"]["exec"]["command"][-1]
    address = next(word for word in command.split() if word.startswith("http"))
    assert command.endswith("| grep -q success")
    return address.replace(address.split(":")[2].split("/")[0], str(port))


@pytest.mark.ray
@pytest.mark.slow
def test_a_head_as_described_is_ready_without_the_token_and_lets_nobody_in_without_it(tmp_path: Path):
    config = yaml.safe_load(rendered("aws", "gpus=0")["cluster.yaml"])
    spec = list(yaml.safe_load_all(rendered("kuberay")["cluster.yaml"]))[-1]["spec"]
    bin_path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "HOME": str(tmp_path), "RAY_AUTH_MODE": "token", "PATH": bin_path}
    for command in config["head_setup_commands"]:
        subprocess.run(["bash", "-c", command], env=environment, check=True, timeout=WAIT_S)
    file = tmp_path / ".ray" / "auth_token"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and len(file.read_text()) >= 32

    # As the operator makes a command line of them.
    parameters = {**spec["headGroupSpec"]["rayStartParams"], "object-store-memory": str(2**27)}
    options = [f"--{name}" if value == "true" else f"--{name}={value}" for name, value in parameters.items()]
    port, dashboard, agent, client = free_ports(4)
    ours = [f"--port={port}", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"]
    ours += [f"--ray-client-server-port={client}", "--dashboard-agent-grpc-port=0", "--metrics-export-port=0"]
    temporary = f"/tmp/ray-{os.getpid()}"  # short: it holds sockets
    ours += ["--runtime-env-agent-port=0", f"--temp-dir={temporary}"]
    log = (tmp_path / "log").open("w")
    head = subprocess.Popen(
        ["ray", "start", "--head", "--block", *options, *ours],
        env=environment,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        ready = [probed(spec["headGroupSpec"], dashboard), probed(spec["workerGroupSpecs"][0], agent)]
        deadline = time.monotonic() + WAIT_S
        for address in ready:
            while True:
                try:
                    if answer(address) == (200, "success"):
                        break
                except OSError:
                    pass
                assert head.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
                time.sleep(0.5)
        jobs = f"http://127.0.0.1:{dashboard}/api/jobs/"
        assert answer(jobs)[0] == 401 and answer(jobs, "f" * 64)[0] == 403
        assert answer(jobs, file.read_text()) == (200, "[]")
        socket.create_connection((ray.util.get_node_ip_address(), port), timeout=5).close()
        with pytest.raises(OSError):  # the dashboard on loopback only
            socket.create_connection((ray.util.get_node_ip_address(), dashboard), timeout=5)
    finally:
        os.killpg(head.pid, signal.SIGTERM)
        try:
            head.wait(60)
        except subprocess.TimeoutExpired:  # a busy machine; how Ray ends is not what is tested
            os.killpg(head.pid, signal.SIGKILL)
        log.close()
        shutil.rmtree(temporary, ignore_errors=True)
