"""Inputs behind URLs: fetched once per version, never stale."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from envs import world_folder
from envs.errors import UserError
from envs.storage import snapshots
from envs.storage.location import Url, shown
from envs.storage.snapshots import fetch
from envs.storage.working_copy import copy_of, working_copy
from tests.envs.storage.bucket import contents


def test_a_local_path_passes_untouched(bucket):
    assert fetch(bucket) is bucket
    with working_copy(bucket) as path:
        assert path is bucket and copy_of(path) is None


def test_a_folder_is_fetched_once(bucket, url, monkeypatch):
    first = fetch(url)
    assert contents(first) == contents(bucket) and first.name == "folder"
    monkeypatch.setattr(snapshots, "download", lambda *_: pytest.fail("fetched again"))
    assert fetch(url) == first
    assert shown(f"{first}/a.json is damaged") == f"{url}/a.json is damaged"


def test_a_folder_that_changed_is_never_served_from_the_cache(bucket, url):
    before = fetch(url)
    (bucket / "part" / "b.bin").write_bytes(b"c" * 3000)  # of the same size
    after = fetch(url)
    assert (after / "part" / "b.bin").read_bytes() == b"c" * 3000
    assert (before / "part" / "b.bin").read_bytes() == b"b" * 3000  # who reads it goes on


def test_many_fetch_at_once_and_one_transfers(bucket, url, monkeypatch):
    transfers, download = [], snapshots.download

    def slow(filesystem, path, into):  # type: ignore[no-untyped-def]
        transfers.append(path)
        time.sleep(0.05)
        download(filesystem, path, into)

    monkeypatch.setattr(snapshots, "download", slow)
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(fetch, [url] * 4))
    assert len(found) == 1 and len(transfers) == 2


def test_a_folder_that_changes_while_it_is_fetched_is_fetched_again(bucket, url, monkeypatch):
    download, changes = snapshots.download, iter(range(1))

    def rewritten(filesystem, path, into):  # type: ignore[no-untyped-def]
        download(filesystem, path, into)
        if next(changes, None) is not None:
            (bucket / "a.json").write_text('{"newer": 1}')

    monkeypatch.setattr(snapshots, "download", rewritten)
    assert (fetch(url) / "a.json").read_text() == '{"newer": 1}'


def test_a_folder_that_never_stays_the_same_is_refused(bucket, url, monkeypatch):
    download = snapshots.download

    def rewritten(filesystem, path, into):  # type: ignore[no-untyped-def]
        download(filesystem, path, into)
        (bucket / "a.json").write_text("x" * time.monotonic_ns().bit_length() + str(time.monotonic_ns()))

    monkeypatch.setattr(snapshots, "download", rewritten)
    with pytest.raises(UserError, match="changes while it is read"):
        fetch(url)


def test_an_interrupted_fetch_leaves_nothing_that_is_served(bucket, url, monkeypatch):
    monkeypatch.setattr(snapshots, "download", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        fetch(url)
    monkeypatch.undo()
    assert contents(fetch(url)) == contents(bucket)


def test_nothing_there_is_one_line(tmp_path):
    with pytest.raises(UserError, match="nothing lies there"):
        fetch(Url(f"file://{tmp_path}/nowhere"))


def test_a_simulator_is_loaded_from_its_url(simulator):
    fitted = world_folder.load(f"file://{simulator}")
    assert fitted.dataset.fingerprint == world_folder.load(simulator).dataset.fingerprint


def test_a_scheme_of_fsspec(tmp_path):
    fsspec = pytest.importorskip("fsspec")
    with working_copy(Url("memory://bucket/folder")) as copy:
        (copy / "part").mkdir(parents=True)
        (copy / "part" / "a.txt").write_text("one")
    assert fsspec.filesystem("memory").cat("/bucket/folder/part/a.txt") == b"one"
    fetched = fetch(Url("memory://bucket/folder"))
    assert (fetched / "part" / "a.txt").read_text() == "one"
    fsspec.filesystem("memory").pipe("/bucket/folder/part/a.txt", b"two")
    assert (fetch(Url("memory://bucket/folder")) / "part" / "a.txt").read_text() == "two"


def test_a_version_that_is_found_is_not_cleared_away(bucket, url, monkeypatch):
    """Another process fetches a newer one between this one's look and its use."""
    old, utime = fetch(url), os.utime
    os.utime(old.parent, (0, 0))
    others: list[threading.Thread] = []

    def meanwhile(path: Path) -> None:
        monkeypatch.setattr(os, "utime", utime)
        (bucket / "a.json").write_text('{"new": 1}')
        others.append(threading.Thread(target=fetch, args=(url,)))
        others[0].start()
        others[0].join(0.5)
        utime(path)

    monkeypatch.setattr(os, "utime", meanwhile)
    assert fetch(url) == old
    others[0].join()
    assert contents(old)["a.json"] == b"{}"
