"""Results behind URLs: a copy on this machine, its lock, and what outages and ends leave."""

import json
import shutil
import threading
import time
from pathlib import Path

import pytest

from envs.errors import Terminated, UserError
from envs.notice import NOTICE
from envs.storage import lease as leases
from envs.storage import snapshots
from envs.storage.filesystem import open_url
from envs.storage.lease import Lease
from envs.storage.location import Url
from envs.storage.snapshots import fetch
from envs.storage.working_copy import WorkingCopy, close_all, copy_of, working_copy
from tests.envs.storage.bucket import contents


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


def test_sign_of_life_survives_an_outage(url, failing):
    handler = failing(0)
    with working_copy(url):
        handler.left = 10
        time.sleep(0.5)
        assert handler.left == 0 and threading.active_count() > 1
