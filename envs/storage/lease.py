"""Holding a folder behind a URL: a lock file in it that shows signs of life.

Object stores have no locks. Ours keeps two commands from writing into one folder by mistake: the file
``.lock`` names its holder, who rewrites it every ``BEAT_S`` seconds. Whoever finds one watches it for
``STALE_S`` seconds: if it changes, its holder lives and the newcomer gives up; if not, its holder is dead and
the newcomer takes over. No clocks are compared.
"""

import _thread
import io
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import pyarrow.fs as arrow

from envs.errors import UserError
from envs.storage.filesystem import LOCK, again, upload
from envs.storage.location import Url

BEAT_S = 20.0
"""Between two signs of life."""
STALE_S = 75.0
"""Without one, the holder counts as dead: three beats and the time that a request may take."""
SETTLE_S = 0.5
"""Between writing the lock and reading whose it is, when two come at the same time."""

_log = logging.getLogger(__name__)


class Lease:
    """Holds a folder from ``acquire`` to ``release``; the thread that does so ends with the process."""

    def __init__(self, filesystem: arrow.FileSystem, root: str, url: Url) -> None:
        self._filesystem, self._root, self._url = filesystem, root, url
        self._path = f"{root}/{LOCK}"
        self.lost = False
        """Whether another command took over, because no sign of life had come through."""
        self._me = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "machine": _machine(),
            "token": uuid.uuid4().hex,
        }
        self._ended = threading.Event()
        self._beating = threading.Thread(target=self._beat, name=f"lease of {url}", daemon=True)

    def acquire(self) -> None:
        """Hold the folder.

        Raises:
            UserError: another command does.
            OSError: the storage cannot be reached.
        """
        held = self._read()
        if held is not None and not _died_here(held):
            self._watch(held)
        self._write()
        time.sleep(SETTLE_S)
        if not self._is_mine(self._read()):
            raise UserError(f"another command is writing {self._url}: wait for its end or name another folder")
        self._beating.start()

    def release(self) -> None:
        """Let go of the folder."""
        self._end(lambda: again(lambda: self._filesystem.delete_file(self._path), self._path))

    def expire(self) -> None:
        """Hold the folder for ``STALE_S`` more, as if the holder had died elsewhere."""
        self._me["machine"] = ""  # a newcomer on this one would see that the process is no more
        self._end(self._write)

    def _end(self, last: Callable[[], None]) -> None:
        self._ended.set()
        if self._beating.ident is not None:
            self._beating.join()
        try:
            if self._is_mine(self._read()):
                last()
        except OSError as error:  # it goes stale
            _log.warning("%s: its lock stays for %g s: %s", self._url, STALE_S, error)

    def _watch(self, held: dict[str, Any]) -> None:
        """Wait until the holder counts as dead.

        Raises:
            UserError: it shows a sign of life.
        """
        who = f"process {held.get('pid')} on {held.get('host')}"
        _log.warning("%s is held by %s: waiting up to %g s for a sign of life", self._url, who, STALE_S)
        end = time.monotonic() + STALE_S
        while time.monotonic() < end:
            time.sleep(min(5.0, STALE_S / 10))
            now = self._read()
            if now is None:
                return
            if now != held:
                raise UserError(f"{who} is writing {self._url}: wait for its end or name another folder")

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S):
            try:
                held = self._read()
                if held is not None and not self._is_mine(held):
                    self.lost = True
                    _log.error("%s was taken over by %s: stopping", self._url, held.get("host"))
                    _thread.interrupt_main()
                    return
                self._write()
            except OSError as error:
                _log.warning("%s: no sign of life could be given: %s", self._url, error)

    def _is_mine(self, held: dict[str, Any] | None) -> bool:
        return held is not None and held.get("token") == self._me["token"]

    def _read(self) -> dict[str, Any] | None:
        def read() -> bytes:
            with self._filesystem.open_input_stream(self._path) as stream:
                return bytes(stream.read())

        try:
            held = json.loads(again(read, self._path))
        except FileNotFoundError:
            return None
        except ValueError:  # half-written, where files show as they grow
            return {}
        return held if isinstance(held, dict) else {}

    def _write(self) -> None:
        content = json.dumps({**self._me, "beat": time.time()}).encode()

        def write() -> None:
            upload(self._filesystem, io.BytesIO(content), self._path)

        again(write, self._path)


def _died_here(held: dict[str, Any]) -> bool:
    """Whether the holder was a process of this machine that is no more."""
    if held.get("machine") != _machine():
        return False
    try:
        os.kill(int(held["pid"]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, KeyError, ValueError, TypeError):
        return False
    return False


def _machine() -> str:
    # Containers may share a host's name, and none of its process ids.
    try:
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()
