"""A little Slurm of two nodes on this machine, of whoever runs the tests, all in one folder."""

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
PATH = f"{os.environ['PATH']}:/usr/sbin"
_CONFIGURATION = """
ClusterName=little
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdSpoolDir={folder}/%n
SlurmdPidFile={folder}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
FirstJobId={first}
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4 RealMemory=4096
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4 RealMemory=4096
PartitionName=all Nodes=n[1-2] Default=YES
"""


def missing() -> str | None:
    """What to install before Slurm can be started here."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    return f"no {', '.join(absent)}: apt-get install slurmctld slurmd slurm-client munge" if absent else None


class Slurm:
    """Where its commands are given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "PATH": PATH, "SLURM_CONF": str(folder / "slurm.conf")}

    def run(self, *command: str) -> str:
        """What ``command`` printed."""
        done = subprocess.run(
            command, env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def wait_for(self, text: str, *command: str, timeout_s: float = 60) -> str:
        """What ``command`` printed once that held ``text``."""
        deadline = time.monotonic() + timeout_s
        while text not in (printed := self.run(*command)):
            assert time.monotonic() < deadline, f"{printed}\n{self.logs()}"
            time.sleep(0.5)
        return printed

    def logs(self) -> str:
        return "\n".join(file.read_text(errors="replace")[-2000:] for file in self.folder.glob("*.log"))


@contextmanager
def running(folder: Path) -> Iterator[Slurm]:
    """Slurm until the block ends, with two idle nodes n1 and n2 of 4 CPUs and 4 GiB."""
    slurm = Slurm(folder)
    host, user = socket.gethostname().split(".")[0], pwd.getpwuid(os.getuid()).pw_name
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    text = _CONFIGURATION.format(folder=folder, host=host, user=user, ports=ports, first=os.getpid())
    (folder / "slurm.conf").write_text(text)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    (folder / "state").mkdir()
    places = {"key-file": key, "seed-file": folder / "munge.seed", "pid-file": folder / "munge.pid"}
    munged = ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket"]
    commands = {
        "munged": [*munged, *(f"--{name}={path}" for name, path in places.items())],
        "slurmctld": ["slurmctld", "-D"],
        "n1": ["slurmd", "-D", "-N", "n1"],
        "n2": ["slurmd", "-D", "-N", "n2"],
    }
    started: list[subprocess.Popen[bytes]] = []
    try:
        for name, command in commands.items():
            with (folder / f"{name}.log").open("wb") as log:
                started.append(
                    subprocess.Popen(command, env=slurm.environment, stdout=log, stderr=subprocess.STDOUT)
                )
            if name == "munged":
                _wait_for_file(folder / "munge.socket")
        slurm.wait_for("idle idle", "bash", "-c", "sinfo -h -N -o %T | xargs || true")
        yield slurm
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait(timeout=30)


def _wait_for_file(path: Path) -> None:
    deadline = time.monotonic() + 10
    while not path.exists():
        assert time.monotonic() < deadline, f"no {path}"
        time.sleep(0.05)
