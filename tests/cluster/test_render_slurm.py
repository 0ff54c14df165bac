"""The batch script of `rl-rec cluster render slurm`, run with stand-ins for Slurm, and once with a real Ray."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.cluster.manifests import rendered

JOB = str(os.getpid())  # names a folder in /tmp
# One machine plays every node: starts as many copies as there are tasks, passes signals on as Slurm does, and
# ends what they leave behind.
SRUN = r"""#!/bin/bash
echo "srun $*" | head -n 1 >> "$LOG"
tasks=1
while [[ ${1:-} == --* ]]; do case $1 in --ntasks=*) tasks=${1#*=} ;; esac; shift; done
pids=() status=0
for signal in TERM USR1; do trap "kill -$signal "'"${pids[@]}" 2>/dev/null' $signal; done
for ((i = 0; i < tasks; i++)); do setsid "$@" & pids+=($!); echo $! >> "$LOG.sessions"; done
for pid in "${pids[@]}"; do
    while kill -0 "$pid" 2>/dev/null; do status=0; wait "$pid" || status=$?; done
done
for pid in "${pids[@]}"; do pkill -KILL -s "$pid"; done
exit "$status"
"""
SCONTROL = r"""#!/bin/bash
echo "scontrol $*" >> "$LOG"
[ "$1" = requeue ] || printf 'one\ntwo\n'
"""
RAY = r"""#!/bin/bash
echo "ray $*" >> "$LOG"
case $1 in
    start) [ -z "$BROKEN" ] || { echo "no port"; exit 1; }; exec sleep 600 ;;
    health-check) [ -z "$BROKEN" ] && grep -q "^ray start --head" "$LOG" ;;
esac
"""
PYTHON = r"""#!/bin/bash
if [[ $1 = -c && $2 == *execvp* ]]; then shift 2; exec ray start "$@"; fi
if [ "$1" = -c ]; then echo 127.0.0.1 6001 6002 6003; exit; fi
cat > /dev/null
until [ "$(grep -c "^ray start" "$LOG")" = 2 ]; do sleep 0.05; done
echo "2 nodes"
"""
COMMAND = r"""#!/bin/bash
echo "rl-rec $*" >> "$LOG"
stat -c "token %a" "$RAY_AUTH_TOKEN_PATH" >> "$LOG"
echo "$RAY_ADDRESS $RAY_AUTH_MODE $(wc -c < "$RAY_AUTH_TOKEN_PATH")" >> "$LOG"
[ -z "$SLEEP" ] || exec sleep "$SLEEP"
exit "${STATUS:-0}"
"""
# Runs one task on each node, and is refused with another token.
REAL_COMMAND = rf"""#!{sys.executable}
import os, subprocess, sys, time
import ray
ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level="ERROR")
@ray.remote(num_cpus=1)
def where():
    time.sleep(1)  # longer than it takes to start the other
    return ray.get_runtime_context().get_node_id()
with open(os.environ["LOG"], "a") as log:
    print("ran on", len(set(ray.get([where.remote() for _ in range(2)]))), "nodes", file=log)
    stranger = "import os, ray; ray.init(address=os.environ['RAY_ADDRESS'], log_to_driver=False); print('in')"
    environment = os.environ | {{"RAY_AUTH_TOKEN": "f" * 64}}
    done = subprocess.run([sys.executable, "-c", stranger], env=environment, capture_output=True, text=True)
    print("stranger", "in" if "in\n" in done.stdout else "out", "Authentication" in done.stderr, file=log)
"""


class Cluster:
    """A folder of stand-ins, and the script."""

    def __init__(self, folder: Path, *assignments: str) -> None:
        self.folder, self.log = folder, folder / "log"
        self.log.touch()
        (folder / "log.sessions").touch()
        environment = folder / "venv" / "bin"
        environment.mkdir(parents=True)
        (environment / "activate").write_text(f'export PATH="{folder}:$PATH"\n')
        where = [f"slurm.environment={folder / 'venv'}", f"slurm.state={folder / 'state'}"]
        small = ["workers=2", "gpus=0", "worker.cpus=1", "worker.memory_gib=2", "worker.object_store_gib=1"]
        self.script = folder / "job.sbatch"
        self.script.write_text(rendered("slurm", *where, *small, *assignments)["rl-rec.sbatch"])

    def stand_in(self, **programs: str) -> None:
        for name, text in programs.items():
            path = self.folder / name.replace("_", "-")
            path.write_text(text)
            path.chmod(0o755)

    def start(self, **variables: str) -> subprocess.Popen[str]:
        slurm = {"SLURM_JOB_ID": JOB, "SLURM_JOB_NODELIST": "[one-two]", "SLURM_CPUS_PER_TASK": "1"}
        empty: Mapping[str, str] = {"BROKEN": "", "SLEEP": "", "STATUS": ""}
        environment = {**os.environ, **slurm, "LOG": str(self.log), **empty, **variables}
        environment["PATH"] = f"{self.folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        return subprocess.Popen(
            ["bash", str(self.script)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()


@pytest.fixture
def make(tmp_path: Path):
    started: list[subprocess.Popen[str]] = []

    def cluster(*assignments: str) -> Cluster:
        one = Cluster(tmp_path, *assignments)
        one.stand_in(srun=SRUN, scontrol=SCONTROL)
        start = one.start
        one.start = lambda **variables: (started.append(start(**variables)), started[-1])[1]  # type: ignore[method-assign]
        return one

    yield cluster
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for session in (tmp_path / "log.sessions").read_text().split():
                subprocess.run(["pkill", "-KILL", "-s", session])


Make = Callable[..., Cluster]


@pytest.fixture
def quick(make: Make) -> Make:
    """Without Ray."""

    def cluster(*assignments: str) -> Cluster:
        one = make(*assignments)
        one.stand_in(ray=RAY, python=PYTHON, rl_rec=COMMAND)
        return one

    return cluster


def finished(cluster: Cluster, process: subprocess.Popen[str], timeout: float = 60) -> str:
    """Everything that it printed, once it has ended and nothing of it is left."""
    text, _ = process.communicate(timeout=timeout)
    assert not list((cluster.folder / "state").iterdir())  # the token went with it
    deadline = time.monotonic() + 30
    with pytest.raises(ProcessLookupError):  # Ray's processes take a moment to go
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            time.sleep(0.1)
    return text


def test_the_head_first_then_the_others_then_the_command(quick):
    cluster = quick()
    process = cluster.start(STATUS="7")
    finished(cluster, process)
    assert process.returncode == 7
    lines = cluster.lines()
    starts = [line for line in lines if line.startswith("ray start")]
    assert "--head" in starts[0] and "--port=6001" in starts[0] and "--dashboard-host=127.0.0.1" in starts[0]
    assert starts[1].startswith("ray start --block --address=127.0.0.1:6001") and len(starts) == 2
    steps = [line for line in lines if line.startswith("srun")]
    assert any("--nodelist=one" in step and "bash" in step for step in steps)
    assert any("--exclude=one" in step and "--ntasks=1" in step for step in steps)
    command = next(n for n, line in enumerate(lines) if line.startswith("rl-rec"))
    assert lines[command].endswith("--if-exists resume") and command > lines.index(starts[1])
    assert lines[command + 1 : command + 3] == ["token 600", "127.0.0.1:6001 token 64"]


def stopped(cluster: Cluster, **variables: str) -> str:
    """What it printed after the TERM that Slurm sends."""
    process = cluster.start(SLEEP="600", **variables)
    deadline = time.monotonic() + 60
    while not any(line.endswith("token 64") for line in cluster.lines()):
        assert time.monotonic() < deadline and process.poll() is None, cluster.lines()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    text = finished(cluster, process)
    assert process.returncode == 143
    return text


def test_near_the_end_of_its_time_a_job_is_queued_again(quick):
    cluster = quick("job.hours=1")
    # bash counts on from SECONDS: as if the job had run for that long.
    assert "queued again" in stopped(cluster, SECONDS=str(3600 - 120))
    assert f"scontrol requeue {JOB}" in cluster.lines()


@pytest.mark.parametrize(
    "variables",
    [{"SECONDS": "60"}, {"SECONDS": "3500", "SLURM_RESTART_COUNT": "2"}],
    ids=["cancelled", "often"],
)
def test_a_cancelled_job_and_one_that_was_tried_often_are_not(quick, variables):
    cluster = quick("job.hours=1", "job.retries=2")
    assert "stopped" in stopped(cluster, **variables)
    assert not any("requeue" in line for line in cluster.lines())


def test_a_head_that_does_not_start_is_told_with_its_log(quick):
    cluster = quick()
    process = cluster.start(BROKEN="yes")
    text = finished(cluster, process)
    assert "the head on one did not start" in text and "no port" in text and process.returncode == 1
    assert not any(line.startswith("rl-rec") for line in cluster.lines())


def test_shellcheck_has_nothing_to_say(tmp_path):
    program = shutil.which("shellcheck") or Path(sys.executable).with_name("shellcheck")
    for number, container in enumerate(("none", "$HOME/rl-rec.sif")):
        script = tmp_path / f"{number}.sbatch"
        script.write_text(
            rendered("slurm", f"slurm.container={container}", "slurm.account=me")["rl-rec.sbatch"]
        )
        done = subprocess.run([str(program), str(script)], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout


@pytest.mark.ray
@pytest.mark.slow
def test_two_nodes_of_a_real_ray_run_the_command_and_refuse_a_stranger(make):
    cluster = make()
    cluster.stand_in(rl_rec=REAL_COMMAND)
    process = cluster.start()
    text = finished(cluster, process, timeout=300)
    assert process.returncode == 0, text
    assert "2 nodes: " in text and not Path(f"/tmp/ray-{JOB}").exists()
    assert cluster.lines()[-2:] == ["ran on 2 nodes", "stranger out True"], cluster.lines()
