"""Storage that is full, away, or holds what nobody can load."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.drills import s3
from cluster.drills.sandbox import (
    REPORT_EVERY,
    Command,
    LeftOutError,
    Sandbox,
    check,
    user_steps,
    wait_for,
)
from cluster.drills.steps import (
    LONG,
    Outcome,
    check_results,
    end,
    resume,
    saved,
    started,
    started_again,
    terminate,
)
from rl_rec.run_folder import TRIAL, RunFolder

_AWAY_S = 60.0
_MUTE_S = 2.0


def disk_full(box: Sandbox) -> Outcome:
    """A file system of 12 MiB that fills up while it is trained on (needs root, for the mount)."""
    disk = box.folder / "disk"
    disk.mkdir()
    _mount(disk, "12m")
    try:
        run = disk / "run"
        command = box.train(run, LONG)
        started(box, command, 1500)
        ballast = disk / "ballast"
        fault_s = time.monotonic()
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        problem = command.check_end(2, 120, "error: training failed: ", "No space left", "--resume")
        ended_s = time.monotonic() - fault_s
        reported = box.reported(TRIAL)
        box.check_no_orphans()
        whole = saved(run / TRIAL)
        check(whole > 0, f"no checkpoint survived: {problem}")
        ballast.unlink()
        recovery_s, start, command = resume(box, run)
        check(start == whole, f"it went on from {start}, the newest whole checkpoint has {whole}")
        end(box, command, run)
    finally:
        _unmount(disk)
    told = f"ended after {ended_s:.1f} s with one line; with room --resume went on; no report is missing"
    return Outcome(told, recovery_s, max(reported - start, 0))


def _mount(folder: Path, size: str) -> None:
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "drill", str(folder)], capture_output=True, text=True
    )
    if done.returncode:
        raise LeftOutError(f"a small disk cannot be mounted, only root may: {done.stderr.strip()}")


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def storage_away(box: Sandbox) -> Outcome:
    """The folder around the run is renamed away for a minute, and comes back."""
    run, away = box.folder / "runs" / "run", box.folder / "away"
    command = box.train(run, LONG)
    started(box, command)
    fault_s = time.monotonic()
    run.parent.rename(away)
    until = fault_s + _AWAY_S
    while time.monotonic() < until and command.process.poll() is None:
        time.sleep(0.2)
    check(command.process.poll() is not None, "it trained on without its folder for a minute")
    ended_s = time.monotonic() - fault_s
    reported = box.reported(TRIAL)
    if run.parent.exists():
        shutil.rmtree(run.parent)  # what was written to the bare place
    away.rename(run.parent)
    command.check_end(2, 1, "error: training failed")
    box.check_no_orphans()
    recovery_s, start, command = resume(box, run)
    end(box, command, run)
    told = f"ended after {ended_s:.1f} s with one line; --resume went on"
    return Outcome(told, recovery_s, max(reported - start, 0))


@dataclass(frozen=True)
class _InBucket:
    """A run of ``box`` whose folder is behind the URL ``url``."""

    box: Sandbox
    storage: s3.Storage
    folder = "runs/run"
    url = f"s3://{s3.BUCKET}/{folder}"

    def newest(self) -> str:
        """The newest checkpoint whose last file is there."""
        names = self.storage.files(f"{self.folder}/{TRIAL}")
        return max((name for name in names if name.endswith("manifest.json")), default="")

    def look(self, name: str) -> Path:
        """The trial's folder, downloaded as ``name``."""
        return self.storage.download(self.folder, self.box.folder / name) / TRIAL

    def end(self, command: Command) -> float:
        """SIGTERM, and nothing is left on this machine; the seconds until it ended."""
        ended_s = terminate(command, f"rl-rec train --resume {self.url}")
        self.box.check_no_orphans()
        left = list((self.box.folder / "cache" / "work").iterdir())
        check(not left, f"working copies are left behind: {left}")
        return ended_s


@contextmanager
def _in_bucket(box: Sandbox) -> Iterator[tuple[_InBucket, Command]]:
    """A run in a bucket that has saved, and the command that trains it."""
    with s3.storage() as storage:
        box.environment |= {**storage.environment, "RL_REC_CACHE": str(box.folder / "cache")}
        run = _InBucket(box, storage)
        command = box.train(run.url, LONG)
        started(box, command)
        wait_for(run.newest, "a checkpoint in the bucket")
        yield run, command


def storage_away_url(box: Sandbox) -> Outcome:
    """The S3 server behind ``--out s3://...`` refuses connections for a minute, and is back."""
    with _in_bucket(box) as (run, command):
        run.storage.gate.shut()
        before, began_s = run.newest(), time.monotonic()
        while time.monotonic() < began_s + _AWAY_S:
            check(command.process.poll() is None, f"the command ended: {command.said[-2:]}")
            time.sleep(0.2)
        check(run.newest() == before, "something came through a gate that was shut")
        run.storage.gate.open()
        back_s = time.monotonic()

        def stored() -> bool:
            check(command.process.poll() is None, f"the command ended: {command.said[-2:]}")
            return run.newest() > before

        wait_for(stored, "a checkpoint in the bucket that is back", 180, every_s=0.5)
        recovery_s = time.monotonic() - back_s
        run.end(command)
        reported, kept = box.reported(TRIAL), saved(run.look("kept"))
        check(kept == reported, f"{reported} user-steps were reported, {kept} saved")
        _, start, command = resume(box, run.url)
        run.end(command)
        check_results(run.look("all"))
        check(".lock" not in run.storage.files(run.folder), "the folder is still held")
    told = "saving waited, training went on by itself; saved at SIGTERM; --resume went on"
    return Outcome(told, recovery_s, max(reported - start, 0))


def terminated_away_url(box: Sandbox) -> Outcome:
    """SIGTERM while the S3 server behind ``--out s3://...`` refuses connections."""
    with _in_bucket(box) as (run, command):
        run.storage.gate.shut()
        ended_s = run.end(command)
        late = [line for line in command.said if "not stored in time" in line]
        check(len(late) == 1, f"it did not say what was not stored: {command.said[-4:]}")
        reported, kept = box.reported(TRIAL), saved(run.look("kept"))
        run.storage.gate.open()
        _, start, command = resume(box, run.url)
        check(start == kept, f"it went on from {start}, the newest whole checkpoint has {kept}")
        run.end(command)
        check_results(run.look("all"))
    told = f"ended in {ended_s:.1f} s with exit code 143, and said what was not stored; --resume went on"
    return Outcome(told, ended_s, max(reported - start, 0))


def terminated_mute_url(box: Sandbox) -> Outcome:
    """SIGTERM for a study with two trials running, while the S3 server accepts all and answers nothing."""
    url, trials = f"s3://{s3.BUCKET}/runs/study", [f"hac-world0-seed{seed}" for seed in range(2)]
    with s3.storage() as storage:
        box.environment |= {**storage.environment, "RL_REC_CACHE": str(box.folder / "cache")}

        def kept(look: str) -> dict[str, int]:
            folder = storage.download("runs/study", box.folder / look)
            return {trial: saved(folder / trial) for trial in trials}

        def stored(trial: str) -> bool:
            return any(name.endswith("manifest.json") for name in storage.files(f"runs/study/{trial}"))

        command = box.study(url, LONG, 2)
        for trial in trials:
            started(box, command, 600, trial)
        wait_for(lambda: all(map(stored, trials)), "checkpoints in the bucket", every_s=0.5)
        storage.gate.mute()
        time.sleep(_MUTE_S)  # requests are under way
        hint = f"rl-rec study --resume {url}"
        ended_s = terminate(command, hint)
        box.check_no_orphans()
        late = [line for line in command.said if "not stored in time" in line]
        check(len(late) == 1, f"it did not say what was not stored: {command.said[-4:]}")
        check(all(trial in late[0] for trial in trials), f"it named others: {late[0]}")
        reported, whole = {trial: box.reported(trial) for trial in trials}, kept("kept")
        known = {trial: len(box.lines(trial)) for trial in trials}
        storage.gate.open()
        command, lost = box.resume(url, "study"), 0
        for trial in trials:
            first = started_again(box, command, trial, known[trial])
            start = user_steps(first) - REPORT_EVERY
            check(start == whole[trial], f"{trial} went on from {start}, {whole[trial]} were stored")
            lost += max(reported[trial] - start, 0)
        terminate(command, hint)
        box.check_no_orphans()
        after = kept("all")
        for trial in trials:
            behind = max(user_steps(line) for line in box.lines(trial)[known[trial] :])
            check(after[trial] == behind, f"{trial}: {behind} reported, {after[trial]} saved")
            check_results(box.folder / "all" / trial)
    told = f"ended in {ended_s:.1f} s with exit code 143, and said what was not stored; --resume went on"
    return Outcome(told, ended_s, lost)


def checkpoint_damaged(box: Sandbox) -> Outcome:
    """The newest checkpoint is truncated and a foreign folder lies beside it."""
    run = box.folder / "run"
    command = box.train(run, LONG)
    started(box, command, 1500)
    terminate(command, f"--resume {run}")
    box.check_no_orphans()
    reported = box.reported(TRIAL)
    newest, older = RunFolder(run).checkpoints()[:2]
    state = newest / "algorithm_state.pkl"
    with state.open("r+b") as file:
        file.truncate(state.stat().st_size // 2)
    whole = saved(run / TRIAL)
    check(0 < whole < reported, f"the truncated one counts as whole: {whole}")
    foreign = run / TRIAL / "checkpoint_999999"
    foreign.mkdir()
    (foreign / "weights.pt").write_bytes(b"of another program")
    recovery_s, start, command = resume(box, run)
    check(start == whole, f"it went on from {start}, the newest whole checkpoint ({older.name}) has {whole}")
    end(box, command, run)
    return Outcome("both were passed over; --resume went on from the older one", recovery_s, reported - start)
