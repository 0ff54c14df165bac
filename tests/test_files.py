"""Output is whole or absent, and nothing existing is lost."""

import pytest

from envs.errors import UserError
from envs.files import new_directory, read_json, write_json


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


def test_of_two_writers_at_once_the_second_is_refused(tmp_path):
    target = tmp_path / "data"
    with pytest.raises(UserError, match="another command"), new_directory(target) as slow:
        (slow / "slow.txt").write_text("slow")
        with new_directory(target) as fast:
            (fast / "fast.txt").write_text("fast")
    assert names_in(target) == {"fast.txt"}
    assert names_in(tmp_path) == {"data"}


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
