"""Small good files of every loader, and `rl-rec data prepare` of them as a person would call it."""

import contextlib
import fcntl
import io
import math
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from unittest.mock import patch

from envs.data.dataset import Dataset, load
from rl_rec.cli.main import main
from tests.data.conftest import write_100k
from tests.data.generators.folders import make

_TINY = {
    "own": ("users=20", "items=30", "page_size=4", "sessions_per_user=2"),
    "rl4rs": ("users=15", "items=30", "sessions_per_user=2"),
    "kuairand-pure": ("users=12", "items=30", "random_per_user=4", "session_size=4", "sessions_per_user=4"),
    "ml-1m": ("users=20", "items=60", "unrated=5", "session_size=5", "sessions_per_user=2"),
}


@dataclass(frozen=True)
class Loader:
    """A loader: what it is called, its files (the log first), and how its options are written."""

    source: str
    files: tuple[str, ...]
    write: Callable[[Path], object]

    def arguments(self, folder: Path) -> list[str]:
        """What `prepare` is told to read."""
        if self.source != "own":
            return [self.source, "--raw", str(folder), "--set", "factors=0"]
        log, items, users = (str(folder / file) for file in self.files)
        roles = ("purchase=behaviour:purchase", "random=random", "page=page")
        maps = [part for role in roles for part in ("--map", role)]
        return ["own", "--interactions", log, "--items", items, "--users", users, *maps]


def _generated(name: str, *assignments: str) -> Callable[[Path], object]:
    return lambda folder: make(name, folder, *_TINY[name], *assignments)


LOADERS = {
    "own": Loader("own", ("interactions.csv", "items.csv", "users.csv"), _generated("own")),
    "own-parquet": Loader(
        "own",
        ("interactions.parquet", "items.parquet", "users.parquet"),
        _generated("own", "format=parquet"),
    ),
    "rl4rs": Loader("rl4rs", ("rl4rs_dataset_b_rl.csv", "item_info.csv"), _generated("rl4rs")),
    "kuairand": Loader(
        "kuairand-pure",
        (
            "data/log_standard_4_08_to_4_21_pure.csv",
            "data/log_random_4_22_to_5_08_pure.csv",
            "data/user_features_pure.csv",
            "data/video_features_basic_pure.csv",
        ),
        _generated("kuairand-pure"),
    ),
    "ml-1m": Loader("ml-1m", ("ratings.dat", "users.dat", "movies.dat"), _generated("ml-1m")),
    "ml-100k": Loader("ml-100k", ("u.data", "u.user", "u.item"), write_100k),
}


@cache
def _contents(name: str, root: Path) -> dict[str, bytes]:
    folder = root / name
    root.mkdir(parents=True, exist_ok=True)
    LOADERS[name].write(folder)
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if "truth" not in path.name}


def good_files(name: str, root: Path) -> dict[str, bytes]:
    """The files of the loader ``name``, by their paths; ``root`` is a folder to generate them in."""
    return _contents(name, root)


def lay_out(files: dict[str, bytes], folder: Path) -> Path:
    """Write files into a new ``folder``."""
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


@dataclass(frozen=True)
class Outcome:
    """How a command ended: its exit code, what it said on stderr, and the dataset if it wrote one."""

    code: int
    stderr: str
    dataset: Dataset | None


def run(name: str, folder: Path, out: Path, *options: str) -> Outcome:
    """Prepare ``folder`` in this process; warnings count as lines on stderr.

    Asserts what holds for every input: a whole dataset that loads, or exit code 2, one line, and nothing left
    that blocks the next command.
    """
    said, stdout = io.StringIO(), io.StringIO()
    arguments = ["data", "prepare", *LOADERS[name].arguments(folder), "--out", str(out), *options]
    with (
        warnings.catch_warnings(record=True) as warned,
        contextlib.redirect_stderr(said),
        contextlib.redirect_stdout(stdout),
        patch("rl_rec.cli.progress.LINE_EVERY_S", math.inf),  # a busy machine is no reason to say more
    ):
        warnings.simplefilter("always")
        code = main(arguments)
    stderr = said.getvalue() + "".join(f"warning: {warning.message}\n" for warning in warned)
    if code == 0:
        assert stderr == "", stderr
        return Outcome(code, stderr, load(out))
    assert code == 2, stderr
    assert stderr.startswith("error: ") and stderr.count("\n") == 1 and stderr.endswith("\n"), stderr
    assert stderr.removesuffix("\n").isprintable(), stderr
    assert len(stderr) < 1000, stderr
    assert not out.exists()
    work = out.parent / f".{out.name}.prepare"
    for left in out.parent.glob(f".{out.name}.*"):
        assert left == work, left
    if work.exists():
        with (work / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(work)
    return Outcome(code, stderr, None)
