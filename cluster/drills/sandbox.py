"""Where a drill happens: a folder and processes of its own, all gone at its end."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import ray

from cluster.drills.ray_state import RayState
from cluster.drills.simulator import make_simulator
from cluster.ray_session import WORKER_ENVIRONMENT
from rl_rec.run_folder import parse_results

T = TypeVar("T")

_MARK = "RL_REC_DRILL"
_ENDING_S = 90.0  # Ray's agents look for their raylet only now and then
REPORT_EVERY = 100
"""User-steps between two reports of ``settings``."""
SAVE_EVERY = 500
"""User-steps between two checkpoints."""
_SETTINGS = (
    f"report_every={REPORT_EVERY}",
    f"checkpoint_every={SAVE_EVERY}",
    "world.history_length=4",
    "world.max_steps=5",
    "rollout.users=10",
    "rollout.fragment=5",
    "replay.learning_starts=50",
    "replay.batch_size=16",
    "replay.capacity=2000",
    "evaluation.every=0",
    "agent.encoder.dim=8",
    "agent.encoder.heads=2",
    "agent.encoder.feedforward=8",
    "agent.item_hidden=4",
)


class DrillFailedError(AssertionError):
    """Something did not happen that had to, or the other way round."""


class LeftOutError(Exception):
    """This machine has not what the drill needs; the message is one line that says what to install."""


def check(holds: bool, otherwise: str) -> None:
    """Raise ``DrillFailedError`` with ``otherwise`` unless it ``holds``."""
    if not holds:
        raise DrillFailedError(otherwise)


class Command:
    """An ``rl-rec`` process with its output."""

    def __init__(self, process: subprocess.Popen[str], out: Path) -> None:
        self.process, self._out = process, out
        self.began_s = time.monotonic()

    @property
    def said(self) -> list[str]:
        """Lines on stdout and stderr."""
        return self._out.read_text(errors="replace").splitlines()

    def wait(self, seconds: float) -> int:
        """The exit code.

        Raises:
            DrillFailedError: it hangs.
        """
        try:
            return self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise DrillFailedError(
                f"the command did not end in {seconds:g} s; it said: {self.said[-3:]}"
            ) from None

    def check_end(self, code: int, seconds: float, *parts: str) -> str:
        """Its last line, once it ended with exit code ``code`` and that one line, which holds ``parts``."""
        found = self.wait(seconds)
        problem = self.said[-1] if self.said else ""
        check(found == code, f"exit code {found}, not {code}: {self.said[-3:]}")
        check(all(part in problem for part in parts), f"its last line is {problem!r}")
        native = [line for line in self.said if "Traceback" in line or "*** " in line or "core_worker" in line]
        check(not native, f"it printed a trace: {native[:1]}")
        return problem


class Node:
    """A Ray node as processes below ``ray start --block``; ``id`` is Ray's."""

    def __init__(self, process: subprocess.Popen[str], id: str) -> None:
        self.process, self.id = process, id

    def pids(self) -> set[int]:
        """Everything that runs on it."""
        return {self.process.pid, *descendants(self.process.pid)}

    def kill(self) -> None:
        """Power off."""
        for pid in self.pids():
            _kill(pid)
        self.process.wait()


class Sandbox:
    """One drill's folder, world and processes.

    ``address`` is its cluster's, if it started one; ``environment`` is what its processes get.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.address = folder, ""
        self.mark = f"{folder.name}.{os.getpid()}"
        self.simulator = make_simulator(folder)
        unwanted = ("RAY_ADDRESS", "RAY_JOB_ID", "PYTEST_CURRENT_TEST")
        self.environment: dict[str, str] = {
            **{name: value for name, value in os.environ.items() if name not in unwanted},
            **WORKER_ENVIRONMENT,
            _MARK: self.mark,
            "RAY_TMPDIR": str(folder),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "disabled",  # a token in the home folder would be asked for
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }

    def start(self, *arguments: str, **environment: str) -> Command:
        """``rl-rec`` with ``arguments``, as a terminal would start it."""
        out = self.folder / f"out-{time.monotonic_ns()}"
        with out.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "rl_rec.cli.main", *arguments],
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
                start_new_session=True,
                env={**self.environment, **environment},
            )
        return Command(process, out)

    def train(self, out: Path | str, steps: int, *settings: str, **environment: str) -> Command:
        """``rl-rec train`` of a small run, on the sandbox's cluster if there is one."""
        base = ["train", "hac", "--simulator", str(self.simulator), "--out", str(out), "--steps", str(steps)]
        return self.start(*base, *self._where(), *self.settings(*settings), **environment)

    def study(self, out: Path | str, steps: int, seeds: int, *settings: str) -> Command:
        """``rl-rec study`` of small trials, two at once."""
        base = ["study", "hac", "--simulator", str(self.simulator), "--out", str(out), "--steps", str(steps)]
        sizes = ["--seeds", str(seeds), "--episodes", "16", "--parallel", "2"]
        return self.start(*base, *sizes, *self._where(), *self.settings(*settings))

    def sweep(self, search: Path, out: Path, *more: str) -> Command:
        """``rl-rec sweep`` of a file, two candidates at once."""
        base = ["sweep", str(search), "--simulator", str(self.simulator), "--out", str(out), "--parallel", "2"]
        return self.start(*base, *more, *self._where(), *self.settings())

    def resume(self, out: Path | str, verb: str = "train", **environment: str) -> Command:
        """Go on with it."""
        return self.start(verb, "--resume", str(out), *self._where(), **environment)

    def _where(self) -> list[str]:
        return ["--address", self.address] if self.address else []

    @staticmethod
    def settings(*more: str) -> list[str]:
        """Options that make a run small."""
        return [argument for setting in (*_SETTINGS, *more) for argument in ("--set", setting)]

    def head(self, cpus: int, store_mb: int = 100) -> Node:
        """Start a cluster's head, which others join."""
        port = free_port()
        self.address = f"{ray.util.get_node_ip_address()}:{port}"
        return self._node(
            "--head", f"--port={port}", "--include-dashboard=false", f"--num-cpus={cpus}", store_mb=store_mb
        )

    def node(self, cpus: int) -> Node:
        """Start another node."""
        return self._node(f"--address={self.address}", f"--num-cpus={cpus}")

    def _node(self, *arguments: str, store_mb: int = 100) -> Node:
        out = self.folder / f"node-{time.monotonic_ns()}"
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *arguments]
        sizes = [f"--object-store-memory={store_mb * 2**20}"]
        known: set[str] = set()
        if "--head" not in arguments:
            known = set(RayState(self.address).nodes())
        else:
            sizes.append(f"--temp-dir={self.folder / 'ray'}")
        with out.open("w") as file:
            process = subprocess.Popen(
                [*command, *sizes],
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
                env=self.environment,
            )
        wait_for(lambda: "Ray runtime started" in out.read_text(), f"a node that starts: {out}", 90)
        (new,) = RayState(self.address).nodes().keys() - known
        return Node(process, new)

    def lines(self, trial: str) -> list[dict[str, Any]]:
        """The reports of a trial from all its starts: Tune copies them to its folder only now and then."""
        files = self.folder.glob(f"ray/session_2*/artifacts/*/*/driver_artifacts/{trial}/result.json")
        found = [line for file in sorted(files) for line in parse_results(file.read_bytes())]
        # A run that goes on copies the reports of its earlier starts to where it notes its own.
        return list({(line["pid"], line["training_iteration"]): line for line in found}.values())

    def reported(self, trial: str) -> int:
        """User-steps of its last report."""
        return max((user_steps(line) for line in self.lines(trial)), default=0)

    def processes(self, *titles: str) -> set[int]:
        """Living processes of this drill whose title begins with one of ``titles``."""
        return {pid for pid in self._marked() if any(title(pid).startswith(start) for start in titles)}

    def _marked(self) -> set[int]:
        entry = f"{_MARK}={self.mark}".encode()
        found = set()
        for environ in Path("/proc").glob("[0-9]*/environ"):
            try:
                if entry in environ.read_bytes().split(b"\0"):
                    found.add(int(environ.parent.name))
            except OSError:
                continue
        return found

    def check_no_orphans(self) -> None:
        """Everything of this drill ends within moments.

        Raises:
            DrillFailedError: something did not.
        """
        end = time.monotonic() + _ENDING_S
        while left := self._marked():
            names = sorted({title(pid)[:60] for pid in left})
            check(time.monotonic() < end, f"{len(left)} processes are left behind: {names}")
            time.sleep(0.2)

    def clean_up(self) -> None:
        """End what still runs."""
        end = time.monotonic() + _ENDING_S
        while (left := self._marked()) and time.monotonic() < end:
            for pid in left:
                _kill(pid)
            time.sleep(0.2)


@contextmanager
def sandbox() -> Iterator[Sandbox]:
    """A sandbox for the block, with a short path: Ray's sockets lie in it."""
    folder = Path(tempfile.mkdtemp(prefix="rld.", dir="/tmp"))
    made = None
    try:
        made = Sandbox(folder)
        yield made
    finally:
        if made is not None:
            made.clean_up()
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(what: Callable[[], T], name: str, seconds: float = 120.0, every_s: float = 0.05) -> T:
    """Poll ``what`` until it returns something true.

    Raises:
        DrillFailedError: not in time.
    """
    end = time.monotonic() + seconds
    while not (found := what()):
        check(time.monotonic() < end, f"waited {seconds:g} s for {name}")
        time.sleep(every_s)
    return found


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def user_steps(line: dict[str, Any]) -> int:
    """Behind a report."""
    return int(line["num_env_steps_sampled_lifetime"])


def title(pid: int) -> str:
    """What a process calls itself; empty once it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def descendants(pid: int) -> set[int]:
    """Of a process, all generations."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
    found, layer = set[int](), {pid}
    while layer:
        layer = {child for child, parent in parents.items() if parent in layer} - found
        found |= layer
    return found


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
