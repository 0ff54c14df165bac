"""Output is whole or absent, and nothing existing is lost."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from envs.errors import UserError
from envs.files import new_directory, new_file, read_json, write_json


def names_in(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_directory_appears_only_when_its_block_succeeds(tmp_path):
    target = tmp_path / "deep" / "data"
    with new_directory(target) as draft:
        (draft / "a.txt").write_text("a")
        assert not target.exists()
    assert names_in(target) == {"a.txt"}
    assert names_in(target.parent) == {"data"}


def test_a_failure_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), new_directory(tmp_path / "data") as draft:
        (draft / "a.txt").write_text("a")
        raise RuntimeError("disk on fire")
    assert names_in(tmp_path) == set()


def test_a_failed_overwrite_keeps_the_old_content(tmp_path):
    target = tmp_path / "data"
    target.mkdir()
    (target / "old.txt").write_text("old")
    with pytest.raises(RuntimeError), new_directory(target, overwrite=True):
        raise RuntimeError("disk on fire")
    assert names_in(target) == {"old.txt"}
    assert names_in(tmp_path) == {"data"}


def test_an_overwrite_replaces_the_whole(tmp_path):
    target = tmp_path / "data"
    target.mkdir()
    (target / "old.txt").write_text("old")
    with new_directory(target, overwrite=True) as draft:
        (draft / "new.txt").write_text("new")
    assert names_in(target) == {"new.txt"}
    assert names_in(tmp_path) == {"data"}


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_existing_content_is_refused_before_the_block_runs(tmp_path, kind):
    target = tmp_path / "data"
    if kind == "folder":
        target.mkdir()
        (target / "old.txt").write_text("old")
    else:
        target.write_text("old")
    with pytest.raises(UserError, match="--overwrite"), new_directory(target):
        pytest.fail("the block ran")
    assert names_in(tmp_path) == {"data"}


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "data").mkdir()
    with new_directory(tmp_path / "data") as draft:
        (draft / "a.txt").write_text("a")
    assert names_in(tmp_path / "data") == {"a.txt"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_of_two_writers_at_once_the_second_is_refused_at_once(tmp_path, overwrite):
    target = tmp_path / "data"
    with new_directory(target, overwrite=overwrite) as first:
        (first / "first.txt").write_text("first")
        second = new_directory(target, overwrite=overwrite)
        with pytest.raises(UserError, match=r"another command is writing .*data"), second:
            pytest.fail("the block ran")
    assert names_in(target) == {"first.txt"}
    assert names_in(tmp_path) == {"data"}


def test_a_link_stays_and_its_target_is_written(tmp_path):
    (tmp_path / "disk" / "full").mkdir(parents=True)
    (tmp_path / "disk" / "full" / "old.txt").write_text("old")
    for name, overwrite in (("empty", False), ("missing", False), ("full", True)):
        link = tmp_path / f"to-{name}"
        link.symlink_to(tmp_path / "disk" / name)
        if name == "empty":
            link.resolve().mkdir()
        with new_directory(link, overwrite=overwrite) as draft:
            (draft / "new.txt").write_text("new")
        assert link.is_symlink() and names_in(tmp_path / "disk" / name) == {"new.txt"}
    (tmp_path / "file").symlink_to(tmp_path / "disk" / "a.txt")
    with new_file(tmp_path / "file") as draft:
        draft.write_text("a")
    assert (tmp_path / "file").is_symlink() and (tmp_path / "disk" / "a.txt").read_text() == "a"
    assert names_in(tmp_path / "disk") == {"empty", "missing", "full", "a.txt"}


@pytest.mark.parametrize("name", [".", "..", "/", "deep/.."])
def test_a_place_that_no_folder_can_take_is_refused_before_the_block_runs(tmp_path, monkeypatch, name):
    (tmp_path / "here" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UserError, match="name a folder in it"), new_directory(Path(name), overwrite=True):
        pytest.fail("the block ran")
    assert names_in(tmp_path) == {"here"} and names_in(tmp_path / "here") == {"deep"}


def test_a_name_that_cannot_be_is_refused_in_one_line(tmp_path):
    (tmp_path / "circle").symlink_to("circle")
    for name, why in (("a" * 300, "too long"), ("a" * 250, "too long"), ("circle", "circle")):
        with pytest.raises(UserError, match=why), new_directory(tmp_path / name):
            pytest.fail("the block ran")
    for name, why in (("a" * 300, "too long"), (".", "is a folder")):
        with pytest.raises(UserError, match=why), new_file(tmp_path / name):
            pytest.fail("the block ran")


def test_what_cannot_be_cleared_is_named(tmp_path, monkeypatch):
    left = tmp_path / ".data.partial" / "draft"
    left.mkdir(parents=True)
    monkeypatch.setattr("shutil.rmtree", lambda path, ignore_errors: None)
    with pytest.raises(UserError, match=r"cannot clear .*\.data\.partial"), new_directory(tmp_path / "data"):
        pytest.fail("the block ran")


def test_what_came_meanwhile_is_kept(tmp_path):
    target = tmp_path / "data"
    with pytest.raises(UserError, match="another command"), new_directory(target):
        target.mkdir()
        (target / "other.txt").write_text("other")
    assert names_in(target) == {"other.txt"}
    assert names_in(tmp_path) == {"data"}


_KILLED = """
import os, signal, sys
from pathlib import Path
from envs import files

target = Path(sys.argv[1])
rename = os.rename

def killed(source, to):
    rename(source, to)
    os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[2] == "renaming":
    os.rename = killed
if sys.argv[2] == "file":
    with files.new_file(target) as draft:
        draft.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)
with files.new_directory(target, overwrite=True) as draft:
    (draft / "half.txt").write_text("half")
    if sys.argv[2] == "writing":
        os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_writer(target, where: str) -> None:
    done = subprocess.run([sys.executable, "-c", _KILLED, str(target), where])
    assert done.returncode == -signal.SIGKILL
    assert len(names_in(target.parent)) > 1 or not target.exists()


def test_what_a_killed_writer_left_is_cleared(tmp_path):
    target = tmp_path / "data"
    killed_writer(target, "writing")
    assert not target.exists() and names_in(tmp_path)
    with new_directory(target) as draft:
        assert names_in(draft) == set()
        (draft / "a.txt").write_text("a")
    assert names_in(target) == {"a.txt"}
    assert names_in(tmp_path) == {"data"}


def test_what_a_killed_overwrite_had_moved_away_comes_back(tmp_path):
    target = tmp_path / "data"
    target.mkdir()
    (target / "old.txt").write_text("old")
    killed_writer(target, "renaming")
    assert not target.exists()
    with pytest.raises(RuntimeError), new_directory(target, overwrite=True):
        raise RuntimeError("disk on fire")
    assert names_in(target) == {"old.txt"}
    assert names_in(tmp_path) == {"data"}


def test_a_file_is_whole_or_absent(tmp_path):
    target = tmp_path / "a.txt"
    killed_writer(target, "file")
    assert not target.exists()
    with new_file(target) as draft:
        assert not draft.exists()
        draft.write_text("whole")
        with pytest.raises(UserError, match=r"another command is writing .*a\.txt"), new_file(target):
            pytest.fail("the block ran")
    assert target.read_text() == "whole"
    with pytest.raises(RuntimeError), new_file(target) as draft:
        draft.write_text("half")
        raise RuntimeError("disk on fire")
    assert target.read_text() == "whole"
    assert names_in(tmp_path) == {"a.txt"}


def test_a_parent_that_is_a_file_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"), new_directory(tmp_path / "file" / "data"):
        pytest.fail("the block ran")


def test_json_comes_back_and_leaves_no_draft(tmp_path):
    write_json(tmp_path / "a.json", {"b": [1, None]})
    assert read_json(tmp_path / "a.json", "a test") == {"b": [1, None]}
    assert names_in(tmp_path) == {"a.json"}


def test_a_folder_where_json_is_expected_is_a_user_error(tmp_path):
    (tmp_path / "a.json").mkdir()
    with pytest.raises(UserError, match=r"cannot be read.*is not a dataset"):
        read_json(tmp_path / "a.json", "a dataset")


def test_a_value_without_json_form_keeps_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", object())
    assert read_json(tmp_path / "a.json", "a test") == 1


@pytest.mark.parametrize(
    "content, expected",
    [
        (None, "is missing"),
        (b'{\n"a": }', r"a\.json:2: malformed JSON"),
        (b"\xff\xfe\x00", "is not a text file"),
    ],
)
def test_unreadable_json_is_a_user_error(tmp_path, content, expected):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=expected):
        read_json(path, "a dataset")
