"""A file system that tries again, for those who call it by themselves: Ray Tune, from any node."""

import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from weakref import WeakSet

import pyarrow.fs as arrow
from pyarrow import PythonFile

from envs.storage.filesystem import again, download, tuned, upload

_T = TypeVar("_T")


class PatientHandler(arrow.FileSystemHandler):
    """A file system that tries again, for those who call it by themselves, such as Ray Tune.

    A file passes through a temporary one on this node, so that a transfer can be repeated from its beginning;
    a file that is written appears as a whole.
    """

    def __init__(self, inner: arrow.FileSystem) -> None:
        self.inner = inner

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.inner = tuned(state["inner"])  # Arrow's pickles leave the strategy of retries out

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PatientHandler) and bool(self.inner == other.inner)

    __hash__ = None  # type: ignore[assignment]

    def get_type_name(self) -> str:
        return str(self.inner.type_name)

    def normalize_path(self, path: str) -> str:
        return str(self.inner.normalize_path(path))

    def get_file_info(self, paths: list[str]) -> Any:
        return self._again(lambda: self.inner.get_file_info(paths), paths[0])

    def get_file_info_selector(self, selector: Any) -> Any:
        found = self._again(lambda: self.inner.get_file_info(selector), selector.base_dir)
        return _with_folders(found, selector.base_dir) if selector.recursive else found

    def create_dir(self, path: str, recursive: bool) -> None:
        self._again(lambda: self.inner.create_dir(path, recursive=recursive), path)

    def delete_dir(self, path: str) -> None:
        self._again(lambda: self.inner.delete_dir(path), path)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        self._again(lambda: self.inner.delete_dir_contents(path, missing_dir_ok=missing_dir_ok), path)

    def delete_root_dir_contents(self) -> None:
        raise PermissionError("a whole storage is never emptied")

    def delete_file(self, path: str) -> None:
        self._again(lambda: self.inner.delete_file(path), path)

    def move(self, src: str, dest: str) -> None:
        self._again(lambda: self.inner.move(src, dest), src)

    def copy_file(self, src: str, dest: str) -> None:
        self._again(lambda: self.inner.copy_file(src, dest), src)

    def open_input_stream(self, path: str) -> PythonFile:
        def read() -> BinaryIO:
            spool = tempfile.TemporaryFile()  # noqa: SIM115 (Arrow closes it)
            download(self.inner, path, spool)
            spool.seek(0)
            return spool

        return PythonFile(self._again(read, path), mode="r")

    open_input_file = open_input_stream

    def open_output_stream(self, path: str, metadata: Any) -> PythonFile:
        return PythonFile(_Upload(self, path), mode="w")

    def open_append_stream(self, path: str, metadata: Any) -> PythonFile:
        raise NotImplementedError("object stores do not append")

    def _again(self, attempt: Callable[[], _T], path: str) -> _T:
        return again(attempt, path)


def _with_folders(found: list[arrow.FileInfo], root: str) -> list[arrow.FileInfo]:
    """Also the folders below ``root`` that nobody made: who copies files elsewhere makes those listed first.

    Arrow lists them for S3, and not for Google's storage.
    """
    known, missing = {info.path.rstrip("/") for info in found} | {root.rstrip("/")}, []
    for info in found:
        folder = info.path.rstrip("/").rpartition("/")[0]
        while folder not in known:
            known.add(folder)
            missing.append(arrow.FileInfo(folder, arrow.FileType.Directory))
            folder = folder.rpartition("/")[0]
    return missing + found


class _Upload:
    """Keeps what is written, and uploads it when it is closed (an ``io`` class: also when it is dropped)."""

    def __init__(self, handler: PatientHandler, path: str) -> None:
        self._handler, self.path = handler, path
        self._spool: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 (closed with this)
        self.superseded = False
        """Whether a newer version has been stored."""
        self.trying = threading.Lock()
        with _uploads_change:
            _uploads.add(self)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self._spool.write(data)

    def tell(self) -> int:
        return self._spool.tell()

    def flush(self) -> None:
        pass

    @property
    def closed(self) -> bool:
        return self._spool.closed

    def close(self) -> None:
        if not self.closed:
            with self._spool:
                self._handler._again(self._try, self.path)

    def _try(self) -> None:
        with self.trying:
            if not self.superseded:
                self._spool.seek(0)
                upload(self._handler.inner, self._spool, self.path)


_uploads: WeakSet[_Upload] = WeakSet()
"""Those of this process that are under way, and may be tried again for minutes."""
_uploads_change = threading.Lock()


def patient(filesystem: arrow.FileSystem) -> arrow.PyFileSystem:
    """``filesystem`` with ``PatientHandler`` around it; it can be sent to other nodes."""
    return arrow.PyFileSystem(PatientHandler(filesystem))


def once(filesystem: arrow.FileSystem) -> arrow.FileSystem:
    """What ``patient`` was made of: it fails at the first attempt, for those who must not wait."""
    handler = getattr(filesystem, "handler", None)
    return handler.inner if isinstance(handler, PatientHandler) else filesystem


def upload_newest(filesystem: arrow.FileSystem, source: Path, path: str) -> None:
    """Copy ``source`` to ``path`` at the first attempt; what others began to copy there is not tried again.

    Raises:
        OSError: it failed; the others go on.
    """
    with ExitStack() as waiting:
        with _uploads_change:
            older = [one for one in _uploads if one.path == path]
        for one in older:
            waiting.enter_context(one.trying)
        with source.open("rb") as file:
            upload(once(filesystem), file, path)
        for one in older:
            one.superseded = True
