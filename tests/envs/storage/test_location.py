"""Paths and URLs: which is which, and what a person reads of them."""

from pathlib import Path
from unittest.mock import Mock

import pytest

from envs.errors import UserError
from envs.storage import filesystem as filesystems
from envs.storage.filesystem import open_url
from envs.storage.location import Url, location, remember, shown


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
