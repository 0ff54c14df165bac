"""The batch script of `rl-rec cluster render slurm` in a real Slurm: `make test-slurm`."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import slurm as little
from tests.cluster.manifests import rendered
from tests.cluster.slurm import Slurm

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(little.missing() is not None, reason=str(little.missing())),
]
# Runs one actor on each node, prints where, and ends with a status of its own. Told to end, it first asks both
# again, as a run does that saves.
COMMAND = f"""#!{sys.executable}
import os, signal, sys, time
import ray
ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level="ERROR")
@ray.remote(num_cpus=1)
class Trial:
    def place(self):
        return os.environ["SLURMD_NODENAME"]
trials = [Trial.remote() for _ in range(2)]
places = lambda: sorted(ray.get([trial.place.remote() for trial in trials]))
def end(*_):
    time.sleep(3)  # whoever heard the signal as well has ended
    print("saved on", *places(), flush=True)
    sys.exit(143)
signal.signal(signal.SIGTERM, end)
print("ran on", *places(), flush=True)
if "HOLD" in os.environ:
    time.sleep(600)
sys.exit(7)
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with little.running(tmp_path_factory.mktemp("slurm")) as one:
        yield one


def submit(slurm: Slurm, folder: Path, *options: str) -> str:
    """The id of a job on two nodes."""
    programs = folder / "venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "activate").write_text(f'export PATH="{programs}:{Path(sys.executable).parent}:$PATH"\n')
    (programs / "rl-rec").write_text(COMMAND)
    (programs / "rl-rec").chmod(0o755)
    where = [f"slurm.environment={folder / 'venv'}", f"slurm.state={folder / 'state'}"]
    small = ["workers=2", "gpus=0", "worker.cpus=1", "worker.memory_gib=2", "worker.object_store_gib=1"]
    script = folder / "rl-rec.sbatch"
    script.write_text(rendered("slurm", *where, *small)["rl-rec.sbatch"])
    return slurm.run("sbatch", "--parsable", f"--output={folder}/log", *options, str(script)).strip()


def ended(slurm: Slurm, job: str, folder: Path) -> str:
    """What Slurm says of the job once it has ended and nothing of it is left."""
    slurm.wait_for("0", "bash", "-c", f"squeue -h -j {job} | wc -l", timeout_s=120)
    assert not list((folder / "state").iterdir()) and not Path(f"/tmp/ray-{job}").exists()
    mark = f"SLURM_JOB_ID={job}\0".encode()
    assert not [one for one in Path("/proc").glob("[0-9]*/environ") if mark in _read(one)]
    return slurm.run("scontrol", "show", "job", job)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:  # ended meanwhile, or somebody else's
        return b""


def test_a_job_runs_on_both_nodes_and_slurm_has_its_status(slurm, tmp_path):
    job = submit(slurm, tmp_path)
    described = ended(slurm, job, tmp_path)
    assert "ran on n1 n2" in (tmp_path / "log").read_text()
    assert "JobState=FAILED" in described and "ExitCode=7:0" in described


@pytest.mark.parametrize("command", ["scancel", "requeue"])
def test_told_to_end_the_command_still_has_its_cluster(slurm, tmp_path, command):
    job = submit(slurm, tmp_path, "--export=ALL,HOLD=1")
    slurm.wait_for("ran on", "bash", "-c", f"cat {tmp_path}/log 2>/dev/null || true", timeout_s=120)
    if command == "scancel":
        slurm.run("scancel", job)
        assert "JobState=CANCELLED" in ended(slurm, job, tmp_path)
    else:
        slurm.run("scontrol", "requeue", job)
        slurm.wait_for("PENDING", "squeue", "-h", "-o", "%T", "-j", job)
        slurm.run("scancel", job)
        assert "Restarts=1" in ended(slurm, job, tmp_path)
    assert "saved on n1 n2" in (tmp_path / "log").read_text()
