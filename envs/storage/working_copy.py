"""Writing a folder behind a URL: a local copy of it that is pulled, worked on, and pushed.

Code that reads and writes local folders does so in the copy and knows nothing of the URL; who lets other nodes
write below the URL pushes before and pulls after (``copy_of``).
"""

import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow.fs as arrow

from envs.errors import Terminated, UserError
from envs.notice import NOTICE
from envs.storage.filesystem import LOCK, Stamp, again, explain, files, open_url, upload
from envs.storage.lease import Lease
from envs.storage.location import Location, Url, remember
from envs.storage.patience import patient
from envs.storage.snapshots import cache_folder, download_all, each

_log = logging.getLogger(__name__)
_open: dict[Path, "WorkingCopy"] = {}


class WorkingCopy:
    """A local folder that stands for one behind a URL; made by ``working_copy``."""

    def __init__(self, url: Url, path: Path) -> None:
        """``path`` is made by the first ``pull`` that finds anything."""
        self.url, self.path = url, path
        self._filesystem, self._root = open_url(url)
        self._lease = Lease(self._filesystem, self._root, url)
        self._kept = f"what could not be written is kept in {path.parent}"
        # What both sides hold, by relative path: how it looked there and here when they were last equal.
        self._there: dict[str, Stamp] = {}
        self._here: dict[str, tuple[int, int]] = {}

    def open(self, new: bool = False) -> None:
        """Keep other commands out of the folder, and make the copy equal to it.

        Raises:
            UserError: another one holds it, it cannot be read or written, or it holds something though ``new``.
        """
        with self._explained():
            self._lease.acquire()
        try:
            self.pull(new)
        except BaseException:
            self._lease.release()
            raise
        _open[self.path] = self

    def close(self, others_write: bool = False) -> None:
        """Push, let go of the folder and remove the copy; who comes second does nothing.

        Args:
            others_write: they may go on for a moment, so that the lock is left to go stale.

        Raises:
            UserError: the folder cannot be written; the copy is kept, and the message says where.
            Terminated: SIGTERM came; what was to be written is written nevertheless.
            BaseException: whatever else cut it short; the copy is kept, and a line says where.
        """
        if _open.pop(self.path, None) is None:
            return
        ended = None
        try:
            if self._lease.lost:
                self.tell_kept()
                return
            try:
                self.push()
            except Terminated as told:  # only the first notice raises, and leaves time for it
                ended = told
                self.push()
        except UserError as problem:
            raise UserError(f"{problem} ({self._kept})") from None
        except BaseException:  # Ctrl-C, say
            self.tell_kept()
            raise
        else:
            shutil.rmtree(self.path.parent, ignore_errors=True)
        finally:
            if others_write:
                self._lease.expire()
            else:
                self._lease.release()
        if ended is not None:
            raise ended

    def tell_kept(self) -> None:
        """Say where the copy stays, for who ends without ``close``."""
        _log.error("%s: %s", self.url, self._kept)

    def pull(self, new: bool = False) -> None:
        """Make the copy equal to the folder.

        Raises:
            UserError: the folder cannot be read, or holds something though it is ``new``.
        """
        with self._explained():
            there = self._list()
            if there and new:
                raise UserError(f"{self.url} exists already; name another folder, or go on with --resume")
            download_all(
                self._filesystem,
                self._root,
                [name for name, stamp in there.items() if self._there.get(name) != stamp],
                self.path,
            )
            for name in self._there.keys() - there.keys():
                _drop(self.path, name)
            self._there, self._here = there, self._look()

    def push(self) -> None:
        """Make the folder equal to the copy, in what changed here since they were last equal.

        What only changed there stays. JSON files, which say that something is whole, go last.

        Raises:
            UserError: the folder cannot be written.
        """
        here = self._look()
        changed = [name for name, stamp in here.items() if self._here.get(name) != stamp]
        gone = self._here.keys() - here.keys()
        if not changed and not gone:
            return
        with self._explained():
            each(self._upload, [name for name in changed if not name.endswith(".json")])
            each(self._upload, [name for name in changed if name.endswith(".json")])
            each(self._delete, gone)
            there = self._list()
        self._there = {name: stamp for name, stamp in there.items() if name in here}
        self._here = here

    def url_of(self, path: Path) -> Url:
        """The URL of ``path``, which is the copy or lies in it."""
        inside = path.relative_to(self.path)
        return self.url if inside == Path() else self.url / inside.as_posix()

    def on_storage(self, path: Path) -> tuple[arrow.FileSystem, str]:
        """A patient file system for any node, and ``path`` on it: the copy, in it, or the folder around it."""
        inside = path.relative_to(self.path.parent)
        around = self._root.rpartition("/")[0]
        return patient(self._filesystem), f"{around}/{inside.as_posix()}".removesuffix("/.")

    def _list(self) -> dict[str, Stamp]:
        return again(lambda: files(self._filesystem, self._root), str(self.url))

    def _look(self) -> dict[str, tuple[int, int]]:
        found = {}
        for path in self.path.rglob("*"):
            if path.is_file() and path.name != LOCK and not path.name.endswith(".partial"):
                with suppress(FileNotFoundError):  # another thread removes it
                    status = path.stat()
                    found[path.relative_to(self.path).as_posix()] = (status.st_size, status.st_mtime_ns)
        return found

    def _upload(self, name: str) -> None:
        target = f"{self._root}/{name}"

        def attempt() -> None:
            with (self.path / name).open("rb") as file:
                upload(self._filesystem, file, target)

        again(attempt, target)

    def _delete(self, name: str) -> None:
        def attempt() -> None:
            with suppress(FileNotFoundError):
                self._filesystem.delete_file(f"{self._root}/{name}")
            if self._filesystem.type_name == "local":
                _drop(Path(self._root), name)

        again(attempt, f"{self._root}/{name}")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise explain(self.url, error) from None


def _drop(root: Path, name: str) -> None:
    """Remove a file, and the folders that it leaves empty: object stores have none such."""
    (root / name).unlink(missing_ok=True)
    with suppress(OSError):  # the first that is not empty
        for folder in Path(name).parents:
            (root / folder).rmdir()


@contextmanager
def working_copy(place: Location, new: bool = False) -> Iterator[Path]:
    """Yield a local folder to write in place of ``place``; a ``Path`` itself, untouched.

    That of a URL is held against other commands, starts as what lies there, and is pushed at the end, also when
    the block fails: what a command leaves half-done on a local disk it leaves behind a URL.

    Args:
        place: of the folder.
        new: nothing may lie behind the URL.

    Raises:
        UserError: another command holds the URL, or it cannot be read or written, or is not new.
    """
    if not isinstance(place, Url):
        yield place
        return
    work = cache_folder() / "work"
    work.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=work)).resolve()
    copy = WorkingCopy(place, scratch / place.name)
    remember(copy.path, place)
    try:
        copy.open(new)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    with NOTICE.last_words(copy.tell_kept):
        try:
            yield copy.path
        except BaseException:
            _close(copy)  # what is told is why the block failed
            raise
        copy.close()


def close_all() -> None:
    """Close the working copies of this process, for who ends it without unwinding while others may write."""
    for copy in list(_open.values()):
        _close(copy, others_write=True)


def _close(copy: WorkingCopy, others_write: bool = False) -> None:
    try:
        copy.close(others_write)
    except UserError as problem:
        _log.error("%s", problem)


def copy_of(path: Path) -> WorkingCopy | None:
    """The working copy that ``path`` is or lies in, or ``None`` for any other local path."""
    path = path.resolve()
    return next((_open[folder] for folder in (path, *path.parents) if folder in _open), None)
