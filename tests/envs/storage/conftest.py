"""A bucket, the URL in front of it, and its failures."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pyarrow.fs as arrow
import pytest

from envs.storage import filesystem as filesystems
from envs.storage import lease as leases
from envs.storage.location import Url
from tests.envs.storage.bucket import Failing


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cache of the test's own, and no patience."""
    monkeypatch.setenv("RL_REC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(filesystems, "PAUSES_S", (0, 0, 0))
    monkeypatch.setattr(leases, "SETTLE_S", 0.0)
    monkeypatch.setattr(leases, "BEAT_S", 0.05)
    monkeypatch.setattr(leases, "STALE_S", 0.5)


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    """What lies behind ``url``."""
    folder = tmp_path / "bucket" / "folder"
    (folder / "part").mkdir(parents=True)
    (folder / "a.json").write_text("{}")
    (folder / "part" / "b.bin").write_bytes(b"b" * 3000)
    return folder


@pytest.fixture
def url(bucket: Path) -> Url:
    return Url(f"file://{bucket}")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Makes ``open_url`` give a file system that fails ``n`` times."""

    def install(failures: int, error: OSError | None = None) -> Failing:
        handler = Failing(failures, error)
        opened = lambda url: (arrow.PyFileSystem(handler), url.text.removeprefix("file://"))  # noqa: E731
        monkeypatch.setattr("envs.storage.snapshots.open_url", opened)
        monkeypatch.setattr("envs.storage.working_copy.open_url", opened)
        return handler

    return install


@pytest.fixture
def interruptible() -> Iterator[None]:
    """What a shell starts in the background ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
