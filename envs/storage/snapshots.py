"""Reading a folder behind a URL: once per node and version, into a cache.

CACHE/<of the URL>/<of what lies there>/NAME/    one version of the folder, whole

A version is named by the names, sizes and times of its files. Listing them (one request per 1000 files) tells
whether the cache is still current, so that a folder that changed is never served from an old version.
"""

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pyarrow.fs as arrow

from envs.errors import UserError
from envs.storage.filesystem import again, download, explain, files, open_url
from envs.storage.location import Location, Url, remember

_AT_ONCE = 8
"""Transfers: most files are small, and wait for the network."""
_ATTEMPTS = 3
"""How often a folder may change while it is read."""
_UNUSED_S = 7 * 24 * 3600
"""After which an older version is deleted when a newer one comes."""


def cache_folder() -> Path:
    """Where this node keeps copies: ``RL_REC_CACHE``, by default ``rl-rec`` in the user's cache folder."""
    chosen = os.environ.get("RL_REC_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(chosen) if chosen else Path(home).expanduser() / "rl-rec"


def fetch(place: Location) -> Path:
    """The folder ``place`` as a local one that is read and never written; a ``Path`` is returned as it is.

    Any number of processes of a node may ask at the same time: one of them transfers, the others wait.

    Raises:
        UserError: the URL cannot be read, holds nothing, or is being written all the time.
    """
    if not isinstance(place, Url):
        return place
    filesystem, root = open_url(place)
    shelf = cache_folder() / _hash(place.text)
    try:
        for _ in range(_ATTEMPTS):
            listing = again(lambda: files(filesystem, root), str(place))
            if not listing:
                raise UserError(f"{place}: nothing lies there")
            version = shelf / _hash(json.dumps(sorted(listing.items())))
            with _alone(shelf):  # who finds a version uses it before another process may delete it
                if not version.exists():
                    draft = shelf / "draft"
                    shutil.rmtree(draft, ignore_errors=True)
                    download_all(filesystem, root, listing, draft / place.name)
                    if again(lambda: files(filesystem, root), str(place)) != listing:
                        continue
                    draft.rename(version)
                    _clear(shelf)
                os.utime(version)
            remember(version / place.name, place)
            return version / place.name
    except OSError as error:
        raise explain(place, error) from None
    raise UserError(f"{place} changes while it is read: wait until it is written")


def download_all(filesystem: arrow.FileSystem, root: str, names: Iterable[str], folder: Path) -> None:
    """Copy files below ``root`` to ``folder``; each appears as a whole."""

    def one(name: str) -> None:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.partial")

        def attempt() -> None:
            with draft.open("wb") as file:
                download(filesystem, f"{root}/{name}", file)

        again(attempt, f"{root}/{name}")
        draft.replace(target)

    each(one, names)


def each(function: Callable[[str], None], names: Iterable[str]) -> None:
    """Call ``function`` with every name, some at a time; the first failure is raised."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in pool.map(function, names):
            pass


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:20]


@contextmanager
def _alone(shelf: Path) -> Iterator[None]:
    shelf.mkdir(parents=True, exist_ok=True)
    with (shelf / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _clear(shelf: Path) -> None:
    for version in shelf.iterdir():
        if version.is_dir() and version.name != "draft" and time.time() - version.stat().st_mtime > _UNUSED_S:
            shutil.rmtree(version, ignore_errors=True)
