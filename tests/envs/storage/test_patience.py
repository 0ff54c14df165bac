"""The file system that Ray Tune is given: it tries again, and uploads in order."""

import pickle
import threading
from pathlib import Path

import pyarrow.fs as arrow

from envs.notice import NOTICE
from envs.storage import filesystem as filesystems
from envs.storage import patience
from envs.storage.patience import PatientHandler, patient
from tests.envs.storage.bucket import Failing, contents


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


def copy_older(filesystem: arrow.PyFileSystem, bucket: Path) -> None:
    with filesystem.open_output_stream(f"{bucket}/a.json") as stream:
        stream.write(b"older")


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

    copying = threading.Thread(target=copy_older, args=(filesystem, bucket))
    copying.start()
    assert inside.wait(10)
    (bucket / "newer").write_text("newer")
    patience.upload_newest(filesystem, bucket / "newer", f"{bucket}/a.json")
    go_on.set()
    copying.join()
    assert (bucket / "a.json").read_text() == "newer"
    copy_older(filesystem, bucket)  # it is no longer older
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

    monkeypatch.setattr(patience, "upload", slow)
    copying = threading.Thread(target=copy_older, args=(filesystem, bucket))
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
