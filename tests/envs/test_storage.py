"""Folders behind URLs: what they are called, how they are fetched, pulled and pushed, and what goes wrong."""

import json
import math
import os
import pickle
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from unittest.mock import Mock

import pyarrow.fs as arrow
import pytest

from envs import notice, world_folder
from envs.errors import Terminated, UserError
from envs.notice import NOTICE
from envs.storage import filesystem as filesystems
from envs.storage import lease as leases
from envs.storage import patience, snapshots
from envs.storage.filesystem import again, open_url
from envs.storage.lease import Lease
from envs.storage.location import Url, location, remember, shown
from envs.storage.patience import PatientHandler, once, patient
from envs.storage.snapshots import fetch
from envs.storage.working_copy import WorkingCopy, close_all, copy_of, working_copy


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


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


class Failing(PatientHandler):
    """A file system of which some operations fail now and then, as storage does that is away for a moment."""

    def __init__(self, failures: int, error: OSError | None = None) -> None:
        super().__init__(arrow.LocalFileSystem())
        self.left, self.error, self.calls = failures, error or OSError("503 slow down"), 0

    def _again(self, attempt, path):  # type: ignore[no-untyped-def]
        self.calls += 1
        if self.left > 0:
            self.left -= 1
            raise self.error
        return attempt()


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a/b", Path("a/b")),
        ("/a/b", Path("/a/b")),
        ("C:b", Path("C:b")),
        ("s3://bucket/a/", Url("s3://bucket/a")),
        ("s3://bucket/a/?region=eu-west-1", Url("s3://bucket/a?region=eu-west-1")),
        ("gs://anonymous@bucket/a", Url("gs://anonymous@bucket/a")),
        (Path("a"), Path("a")),
    ],
)
def test_text_is_a_path_or_a_url(text, expected):
    assert location(text) == expected


def test_what_a_broken_file_may_hold_is_no_path():
    with pytest.raises(TypeError, match="3 is no path"):
        location(3)


def test_a_url_is_taken_apart_and_put_together_as_a_path_is():
    url = Url("s3://bucket/a/b?region=eu")
    assert (url.name, str(url.parent), str(url / "c")) == (
        "b",
        "s3://bucket/a?region=eu",
        "s3://bucket/a/b/c?region=eu",
    )
    assert url.resolve() is url


def test_a_person_reads_the_urls_of_what_lies_in_copies():
    remember(Path("/copies/one/run"), Url("s3://bucket/run?region=eu"))
    remember(Path("/copies/two/run"), Url("s3://bucket/other"))
    kept = "/copies/one/run-2/x /copies/one/run.partial"
    assert shown(kept) == kept
    assert shown("'/copies/one/run/x_(1).json'") == "'s3://bucket/run/x_(1).json?region=eu'"
    asked = "/copies/one/run: see (/copies/one/run/trial/a=b.json), /copies/one/run/a.png. /copies/two/run/b"
    assert shown(asked) == (
        "s3://bucket/run?region=eu: see (s3://bucket/run/trial/a=b.json?region=eu), "
        "s3://bucket/run/a.png?region=eu. s3://bucket/other/b"
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("s3://key:secret@bucket/a", "a URL must hold no credentials"),
        ("gs://anonymous:secret@bucket/a", "a URL must hold no credentials"),
        ("s3://bucket", "names no folder: expected s3://bucket/folder"),
        ("s3://bucket/", "names no folder"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused(text, problem):
    with pytest.raises(UserError, match=problem) as raised:
        location(text)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("xyz://a/b", "neither Arrow nor fsspec knows this scheme"),
        ("s3a://a/b", "Install s3fs to access S3 .pip"),
    ],
)
def test_an_unknown_scheme_is_told_in_one_line(text, problem):
    with pytest.raises(UserError, match=problem) as raised:
        open_url(Url(text))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (OSError("AWS Error NETWORK_CONNECTION during HeadBucket operation"), "it cannot be reached"),
        (ImportError("Install huggingface_hub to access HfFileSystem"), "pip install it on every node"),
    ],
)
def test_what_keeps_arrow_from_opening_a_url_is_told(monkeypatch, error, problem):
    """Without a region in the environment, S3 is asked for the bucket's."""
    missing = Mock(side_effect=ImportError("Install it"))
    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    monkeypatch.setattr(filesystems, "arrow", Mock(FileSystem=Mock(from_uri=Mock(side_effect=error))))
    with pytest.raises(UserError, match=problem):
        open_url(Url("s3://bucket/folder"))


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


def test_what_is_done_in_a_working_copy_is_done_to_the_folder(bucket, url, tmp_path):
    with working_copy(url) as copy:
        assert contents(copy) == contents(bucket)
        (copy / "a.json").unlink()
        (copy / "part" / "b.bin").write_bytes(b"new")
        (copy / "more").mkdir()
        (copy / "more" / "c.txt").write_text("c")
        (copy / "empty").mkdir()
    assert contents(bucket) == {"part/b.bin": b"new", "more/c.txt": b"c"}
    with working_copy(url) as copy:
        shutil.rmtree(copy / "more")
    assert {path.name for path in bucket.iterdir()} == {"part"}
    assert not list((tmp_path / "cache" / "work").iterdir())


def test_a_new_folder_begins_as_nothing(tmp_path):
    with working_copy(Url(f"file://{tmp_path}/new"), new=True) as copy:
        assert not copy.exists()
        copy.mkdir()
        (copy / "a.json").write_text("{}")
    assert contents(tmp_path / "new") == {"a.json": b"{}"}


def test_one_that_must_be_new_is_refused_before_anything_is_read(bucket, url, monkeypatch):
    monkeypatch.setattr(snapshots, "download", lambda *_: pytest.fail("read"))
    with pytest.raises(UserError, match="exists already"), working_copy(url, new=True):
        pass
    assert set(contents(bucket)) == {"a.json", "part/b.bin"}


def test_what_others_write_below_the_url_is_pulled_and_never_undone(bucket, url):
    with working_copy(url) as path:
        copy = copy_of(path / "part")
        assert copy is not None and copy.url_of(path / "part") == url / "part"
        (path / "mine.txt").write_text("mine")
        copy.push()
        (bucket / "theirs.txt").write_text("theirs")
        (bucket / "a.json").unlink()
        (bucket / "part" / "b.bin").write_bytes(b"t" * 3000)
        copy.push()  # nothing changed here
        assert "theirs.txt" in contents(bucket)
        copy.pull()
        assert contents(path) == {"mine.txt": b"mine", "theirs.txt": b"theirs", "part/b.bin": b"t" * 3000}
        (bucket / "late.txt").write_text("unknown to the copy")
        (path / "mine.txt").write_text("changed")
    assert contents(bucket)["late.txt"] == b"unknown to the copy" and contents(bucket)["mine.txt"] == b"changed"


def test_folders_that_end_there_end_here(bucket, url):
    with working_copy(url) as path:
        for file in (bucket / "part").iterdir():
            file.unlink()
        copy = copy_of(path)
        assert copy is not None
        copy.pull()
        assert not (path / "part").exists()


def test_json_goes_last(bucket, url, monkeypatch):
    order: list[str] = []
    with working_copy(url) as path:
        for name in ("a.json", "b.bin", "z.json", "part/c.bin"):
            (path / name).write_text(f"new {name}")
        monkeypatch.setattr(WorkingCopy, "_upload", lambda _, name: order.append(name))
    assert set(order[:2]) == {"b.bin", "part/c.bin"} and set(order[2:]) == {"a.json", "z.json"}


def test_what_was_done_before_a_failure_is_kept(bucket, url):
    with pytest.raises(RuntimeError), working_copy(url) as path:
        (path / "half.txt").write_text("half")
        raise RuntimeError
    assert contents(bucket)["half.txt"] == b"half"


def test_two_commands_cannot_write_one_folder(url):
    with (
        working_copy(url),
        pytest.raises(UserError, match=f"is writing {url}: wait for its end"),
        working_copy(url),
    ):
        pass
    with working_copy(url):  # and the next may, once the first has ended
        pass


def test_of_two_that_come_together_one_gives_up(bucket, url, monkeypatch):
    filesystem, root = open_url(url)
    late = Lease(filesystem, root, url)

    def meanwhile(_: float) -> None:
        monkeypatch.setattr(leases.time, "sleep", lambda _: None)
        late._write()  # it had found no lock either

    monkeypatch.setattr(leases.time, "sleep", meanwhile)
    with pytest.raises(UserError, match="another command is writing"):
        Lease(filesystem, root, url).acquire()


@pytest.mark.parametrize("held", [{"host": "elsewhere", "pid": 1, "token": "t"}, {}])
def test_the_lock_of_a_dead_command_goes_stale(bucket, url, held):
    (bucket / ".lock").write_text(json.dumps(held))
    before = time.monotonic()
    with working_copy(url) as path:
        assert time.monotonic() - before >= leases.STALE_S
        assert not (path / ".lock").exists()
    assert not (bucket / ".lock").exists()


def test_a_lock_of_a_process_that_is_no_more_costs_no_waiting(bucket, url, monkeypatch):
    monkeypatch.setattr(leases, "STALE_S", 60.0)
    filesystem, root = open_url(url)
    left = Lease(filesystem, root, url)
    left._me["pid"] = 2**22 + 1  # above what Linux gives
    left._write()
    with working_copy(url):
        pass


@pytest.fixture
def interruptible() -> Iterator[None]:
    """What a shell starts in the background ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_who_lost_the_folder_stops_and_writes_nothing_more(bucket, url, interruptible):
    with pytest.raises(KeyboardInterrupt), working_copy(url) as path:
        (path / "mine.txt").write_text("mine")
        (bucket / ".lock").write_text(json.dumps({"host": "elsewhere", "token": "other"}))
        time.sleep(5)
    assert "mine.txt" not in contents(bucket)
    assert json.loads((bucket / ".lock").read_text())["token"] == "other"


def test_a_storage_that_is_away_for_a_moment_is_tried_again(bucket, url, failing, caplog):
    handler = failing(3)
    assert contents(fetch(url)) == contents(bucket)
    assert handler.left == 0 and "503 slow down; trying again" in caplog.text
    handler = failing(3)
    with working_copy(url) as path:
        handler.left = 3
        (path / "a.json").write_text('{"new": 1}')
    assert handler.left == 0 and contents(bucket)["a.json"] == b'{"new": 1}'


def test_a_storage_that_stays_away_is_one_line_and_what_was_done_is_kept(bucket, url, failing):
    handler = failing(0)
    problem = f"{url}: 503 slow down .what could not be written is kept in "
    with pytest.raises(UserError, match=problem), working_copy(url) as path:
        (path / "a.json").write_text('{"new": 1}')
        handler.left = 10**6
    assert (path / "a.json").read_text() == '{"new": 1}'


def test_of_two_failures_the_first_is_raised_and_the_storage_is_one_line(url, failing, caplog):
    handler = failing(0)
    with pytest.raises(Terminated), working_copy(url) as path:
        (path / "a.json").write_text('{"new": 1}')
        handler.left = 10**6
        raise Terminated
    (told,) = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert told == f"{url}: 503 slow down (what could not be written is kept in {path.parent})"


@pytest.mark.parametrize("first", [None, Terminated])
def test_an_interrupted_push_says_what_is_kept_where(url, monkeypatch, caplog, first):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), working_copy(url) as path:
        (path / "a.json").write_text('{"new": 1}')
        monkeypatch.setattr(WorkingCopy, "push", interrupted)
        if first is not None:
            raise first
    (told,) = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert told == f"{url}: what could not be written is kept in {path.parent}"
    assert (path / "a.json").read_text() == '{"new": 1}'


def test_a_push_that_the_notice_interrupts_is_done_after_all(bucket, url, monkeypatch):
    push, pushes = WorkingCopy.push, []

    def told(copy: WorkingCopy) -> None:
        pushes.append(copy)
        if len(pushes) == 1:
            raise Terminated
        push(copy)

    with pytest.raises(Terminated), working_copy(url) as path:
        (path / "a.json").write_text('{"new": 1}')
        monkeypatch.setattr(WorkingCopy, "push", told)
    assert contents(bucket)["a.json"] == b'{"new": 1}'
    assert not path.exists()


def test_who_must_end_in_the_middle_of_it_says_what_is_kept_where(bucket, url, caplog):
    with working_copy(url) as path:
        NOTICE.say_last_words()
    NOTICE.say_last_words()
    (told,) = [record.message for record in caplog.records]
    assert told == f"{url}: what could not be written is kept in {path.parent}"


def test_a_file_that_goes_while_the_copy_is_looked_at_is_gone(bucket, url, monkeypatch):
    with working_copy(url) as path:
        is_file = Path.is_file

        def racing(file: Path) -> bool:
            found = is_file(file)
            if file == path / "a.json":
                file.unlink(missing_ok=True)
            return found

        monkeypatch.setattr(Path, "is_file", racing)
    assert "a.json" not in contents(bucket)


def test_working_copies_are_closed_for_who_ends_without_unwinding(bucket, url):
    with working_copy(url) as path:
        (path / "a.json").write_text('{"new": 1}')
        close_all()
        assert not path.parent.exists() and contents(bucket)["a.json"] == b'{"new": 1}'
    assert contents(bucket)["a.json"] == b'{"new": 1}'


def test_who_ends_without_unwinding_leaves_the_lock_for_what_others_still_write(bucket, url, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(leases.os, "getpid", lambda: 2**22 + 1)  # above what Linux gives: it is no more
        with working_copy(url):
            close_all()
    assert (bucket / ".lock").exists()
    before = time.monotonic()
    with working_copy(url):
        assert time.monotonic() - before >= leases.STALE_S
    assert not (bucket / ".lock").exists()


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


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (OSError("When reading: AWS Error ACCESS_DENIED during HeadObject: no\nresponse"), "access is denied"),
        (OSError("AWS Error NO_SUCH_BUCKET during PutObject operation"), "there is no such bucket"),
        (PermissionError(13, "Permission denied"), "Permission denied"),
    ],
)
def test_what_time_does_not_heal_fails_at_once(url, failing, error, problem):
    handler = failing(10**6, error)
    with pytest.raises(UserError, match=problem) as raised:
        fetch(url)
    assert handler.calls == 1 and "\n" not in str(raised.value)


def test_pauses_grow(monkeypatch):
    slept: list[float] = []
    monkeypatch.setattr(filesystems, "PAUSES_S", (1, 2, 4))
    monkeypatch.setattr(NOTICE, "pause", slept.append)

    def fails() -> None:
        raise OSError("away")

    with pytest.raises(OSError, match="away"):
        again(fails, "it")
    assert slept == [1, 2, 4]


@pytest.mark.parametrize("known", [True, False])
def test_who_was_told_to_end_does_not_try_for_minutes(monkeypatch, caplog, known):
    """Also who slept when the notice came."""
    monkeypatch.setattr(filesystems, "PAUSES_S", (60, 60, 60, 60, 60, 60, 60, 60))
    monkeypatch.setattr(filesystems, "_LAST_PAUSE_S", 0.1)
    monkeypatch.setattr(notice, "LASTS_S", 1.0)
    attempts: list[float] = []

    def fails() -> None:
        attempts.append(time.monotonic())
        raise OSError("away")

    if known:
        NOTICE.give()
    else:
        threading.Timer(0.3, NOTICE.give).start()
    began = time.monotonic()
    try:
        with pytest.raises(OSError, match="away"):
            again(fails, "it")
        assert "trying again in 60 s" not in caplog.text or not known
        time.sleep(max(NOTICE.left_s, 0.0))
        with pytest.raises(OSError, match="the lock was not tried: no time is left"):
            again(lambda: attempts.append(math.inf), "the lock")
    finally:
        NOTICE.withdraw()
    assert 0.5 < time.monotonic() - began < 5 and len(attempts) >= 3 and math.inf not in attempts


@pytest.mark.parametrize("sent", [False, True])
def test_an_attempt_at_s3_is_one_request(monkeypatch, sent):
    """Also on another node: who tries again is ``again``, which knows how much time is left."""
    server, asked = socket.create_server(("127.0.0.1", 0)), []

    def hang_up() -> None:
        with suppress(OSError):
            while True:
                client, _ = server.accept()
                asked.append(client.recv(100))
                client.close()

    threading.Thread(target=hang_up, daemon=True).start()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "key")
    address = f"127.0.0.1:{server.getsockname()[1]}"
    filesystem, root = open_url(Url(f"s3://b/folder?region=r&scheme=http&endpoint_override={address}"))
    if sent:
        filesystem = once(pickle.loads(pickle.dumps(patient(filesystem))))
    with server, pytest.raises(OSError, match="NETWORK_CONNECTION"):
        filesystems.files(filesystem, root)
    assert len(asked) == 1


@pytest.mark.slow
def test_an_s3_server_that_never_answers_is_one_line_in_seconds(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "key")
    monkeypatch.setattr(filesystems, "PAUSES_S", (0,))
    with socket.create_server(("127.0.0.1", 0)) as mute:
        query = f"region=r&scheme=http&endpoint_override=127.0.0.1:{mute.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(UserError, match="it cannot be reached: check the network"):
            fetch(Url(f"s3://b/folder?{query}"))
    assert time.monotonic() - began < 20


class TestPatient:
    """The file system that Ray Tune is given."""

    def test_it_copies_whole_folders_both_ways(self, bucket, tmp_path):
        filesystem = patient(arrow.LocalFileSystem())
        target = tmp_path / "there" / "folder"
        filesystem.create_dir(str(target))
        arrow.copy_files(str(bucket), str(target), destination_filesystem=filesystem)
        assert contents(target) == contents(bucket)
        arrow.copy_files(str(target), str(tmp_path / "back"), source_filesystem=filesystem)
        assert contents(tmp_path / "back") == contents(bucket)

    def test_it_lists_the_folders_that_a_store_without_such_leaves_out(self, bucket, tmp_path):
        class Flat(PatientHandler):
            def get_file_info_selector(self, selector):  # type: ignore[no-untyped-def]
                return [info for info in self.inner.get_file_info(selector) if info.is_file]

        (bucket / "a" / "b").mkdir(parents=True)
        (bucket / "a" / "b" / "c").write_text("c")
        flat = patient(arrow.PyFileSystem(Flat(arrow.LocalFileSystem())))
        found = flat.get_file_info(arrow.FileSelector(str(bucket), recursive=True))
        assert sorted(info.base_name for info in found if not info.is_file) == ["a", "b", "part"]
        arrow.copy_files(str(bucket), str(tmp_path / "back"), source_filesystem=flat)
        assert contents(tmp_path / "back") == contents(bucket)

    def test_it_goes_to_other_nodes(self, bucket):
        filesystem = pickle.loads(pickle.dumps(patient(arrow.LocalFileSystem())))
        assert filesystem == patient(arrow.LocalFileSystem())
        assert filesystem.get_file_info(str(bucket / "a.json")).size == 2

    def test_every_operation_is_tried_again(self, bucket):
        inner = Failing(0)
        filesystem = patient(arrow.PyFileSystem(inner))
        folder = str(bucket)

        def twice(operation):  # type: ignore[no-untyped-def]
            inner.left = 2
            result = operation()
            assert inner.left == 0
            return result

        twice(lambda: filesystem.create_dir(f"{folder}/new"))
        assert twice(lambda: filesystem.get_file_info(f"{folder}/a.json")).size == 2
        assert len(twice(lambda: filesystem.get_file_info(arrow.FileSelector(folder)))) == 3
        with twice(lambda: filesystem.open_input_file(f"{folder}/part/b.bin")) as stream:
            assert stream.read() == b"b" * 3000
        twice(lambda: filesystem.move(f"{folder}/a.json", f"{folder}/new/a.json"))
        twice(lambda: filesystem.copy_file(f"{folder}/new/a.json", f"{folder}/new/b.json"))
        twice(lambda: filesystem.delete_file(f"{folder}/new/a.json"))
        twice(lambda: filesystem.delete_dir_contents(f"{folder}/new"))
        twice(lambda: filesystem.delete_dir(f"{folder}/new"))
        assert set(contents(bucket)) == {"part/b.bin"}

    def test_a_file_appears_as_a_whole_after_a_torn_upload(self, bucket, monkeypatch):
        filesystem, upload, torn = patient(arrow.LocalFileSystem()), filesystems.upload, iter(range(1))

        def tears(inner, source, path):  # type: ignore[no-untyped-def]
            if next(torn, None) is not None:
                source.read(4)
                raise OSError("connection reset")
            upload(inner, source, path)

        monkeypatch.setattr(patience, "upload", tears)
        with filesystem.open_output_stream(f"{bucket}/c.bin") as stream:
            stream.write(b"0123456789")
            assert not (bucket / "c.bin").exists()
        assert (bucket / "c.bin").read_bytes() == b"0123456789"
        assert set(contents(bucket)) == {"a.json", "part/b.bin", "c.bin"}


def test_an_older_version_is_not_tried_again_after_a_newer_one(bucket, monkeypatch):
    """Tune copies a trial's results in the background; what was stored before a checkpoint must stay."""
    filesystem, inside, go_on = patient(arrow.LocalFileSystem()), threading.Event(), threading.Event()
    upload, older = filesystems.upload, iter(range(1))

    def away(inner, source, path):  # type: ignore[no-untyped-def]
        if next(older, None) is not None:
            inside.set()
            raise OSError("503")
        upload(inner, source, path)

    monkeypatch.setattr(patience, "upload", away)
    monkeypatch.setattr(NOTICE, "pause", lambda _: go_on.wait(10))

    def copy_older() -> None:
        with filesystem.open_output_stream(f"{bucket}/a.json") as stream:
            stream.write(b"older")

    copying = threading.Thread(target=copy_older)
    copying.start()
    assert inside.wait(10)
    (bucket / "newer").write_text("newer")
    patience.upload_newest(filesystem, bucket / "newer", f"{bucket}/a.json")
    go_on.set()
    copying.join()
    assert (bucket / "a.json").read_text() == "newer"
    copy_older()  # it is no longer older
    assert (bucket / "a.json").read_text() == "older"


def test_a_newer_version_waits_for_an_older_one_that_is_under_way(bucket, monkeypatch):
    filesystem, inside, newer_asked = patient(arrow.LocalFileSystem()), threading.Event(), threading.Event()
    upload, older = filesystems.upload, iter(range(1))

    def slow(inner, source, path):  # type: ignore[no-untyped-def]
        if next(older, None) is not None:
            inside.set()
            newer_asked.wait(0.5)  # in vain: it waits for this one
        else:
            newer_asked.set()
        upload(inner, source, path)

    def copy_older() -> None:
        with filesystem.open_output_stream(f"{bucket}/a.json") as stream:
            stream.write(b"older")

    monkeypatch.setattr(patience, "upload", slow)
    copying = threading.Thread(target=copy_older)
    copying.start()
    assert inside.wait(10)
    (bucket / "newer").write_text("newer")
    patience.upload_newest(filesystem, bucket / "newer", f"{bucket}/a.json")
    copying.join()
    assert (bucket / "a.json").read_text() == "newer"


def test_folders_that_a_store_does_not_list_come_before_their_files():
    """Google's storage has none; who copies files elsewhere makes those listed, and none above the root."""
    kinds = arrow.FileType
    found = [
        arrow.FileInfo("bucket/run/a/b/c.json", kinds.File),
        arrow.FileInfo("bucket/run/a/d.json", kinds.File),
    ]
    listed = patience._with_folders(found, "bucket/run")
    folders = [info.path for info in listed if info.type == kinds.Directory]
    assert sorted(folders) == ["bucket/run/a", "bucket/run/a/b"] and listed[2:] == found


def test_sign_of_life_survives_an_outage(url, failing):
    handler = failing(0)
    with working_copy(url):
        handler.left = 10
        time.sleep(0.5)
        assert handler.left == 0 and threading.active_count() > 1
