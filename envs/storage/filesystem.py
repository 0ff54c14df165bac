"""The file systems behind URLs: opening them, trying again what fails for a moment, transfers."""

import json
import logging
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, TypeVar

import pyarrow.fs as arrow
from pyarrow import ArrowInvalid

from envs.errors import UserError
from envs.files import write_json
from envs.notice import NOTICE
from envs.storage.location import Url

PAUSES_S: tuple[float, ...] = (1, 2, 4, 8, 16, 32, 60)
"""Before each further attempt: an outage of two minutes goes by."""
_LAST_PAUSE_S = 1.0
"""With less than this left of a notice to end, nothing is tried again; with nothing left, nothing is tried."""

_LASTING = (FileNotFoundError, PermissionError, FileExistsError, NotADirectoryError, IsADirectoryError)
_REFUSALS = {
    "NO_SUCH_BUCKET": "there is no such bucket",
    "ACCESS_DENIED": "access is denied: check the credentials in the environment and their rights",
    "PERMISSION_DENIED": "access is denied: check the credentials in the environment and their rights",
    "INVALID_ACCESS_KEY_ID": "the access key is not known: check the credentials in the environment",
    "SIGNATURE_DOES_NOT_MATCH": "the secret key is wrong: check the credentials in the environment",
}
"""What no patience helps against, by the error code in Arrow's message."""

_CHUNK = 2**24
"""Bytes that a transfer reads at once: each is a request."""
_GCS_ATTEMPT = timedelta(seconds=15)
_HINTS = {
    "OAuth2 access token": "no Google credentials were found: see docs/storage.md",
    "NETWORK_CONNECTION": "it cannot be reached: check the network, and AWS_ENDPOINT_URL if you set it",
}

LOCK = ".lock"
"""Name of the file by which a folder is held."""

Stamp: TypeAlias = tuple[int, int | str]
"""Size of a file, and what tells its versions apart: the time of its last change (ns) or a hash of that."""

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


def open_url(url: Url) -> tuple[arrow.FileSystem, str]:
    """The file system of a URL, and the folder's path on it.

    Asks nothing of the network but an S3 bucket's region, where neither the URL nor the environment has it.

    Raises:
        UserError: an unknown scheme, one that needs a package which is not installed, or no answer.
    """
    try:
        filesystem, path = arrow.FileSystem.from_uri(url.text)
    except (ArrowInvalid, ImportError):  # unknown to Arrow, or fsspec's
        return _open_with_fsspec(url)
    except OSError as error:
        raise explain(url, error) from None
    return tuned(filesystem), path.rstrip("/")


def tuned(filesystem: arrow.FileSystem) -> arrow.FileSystem:
    """``filesystem`` with the options that have no place in a URL, and which Arrow's pickles may leave out."""
    if isinstance(filesystem, arrow.S3FileSystem):
        # Uploads that write in the background wait for threads that copy, and these for them
        # (https://github.com/apache/arrow/issues/32372). A small file is one request instead of three.
        # ``again`` is who tries again: three attempts in each of its own outlast a notice to end.
        return _with_options(
            filesystem,
            background_writes=False,
            allow_delayed_open=True,
            retry_strategy=arrow.AwsStandardS3RetryStrategy(max_attempts=1),
        )
    if filesystem.type_name == "gcs":
        # By default one attempt lasts a quarter of an hour.
        return _with_options(filesystem, retry_time_limit=_GCS_ATTEMPT)
    return filesystem


def _with_options(filesystem: arrow.FileSystem, **options: Any) -> arrow.FileSystem:
    make, (known,) = filesystem.__reduce__()
    return make({**known, **options})


def _open_with_fsspec(url: Url) -> tuple[arrow.FileSystem, str]:
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(url.text)
    except ValueError:
        problem = "neither Arrow nor fsspec knows this scheme; use s3://, gs:// or file://"
        raise UserError(f"{url}: {problem}") from None
    except ImportError as error:
        raise UserError(f"{url}: {_first_line(error)} (pip install it on every node)") from None
    return arrow.PyFileSystem(arrow.FSSpecHandler(filesystem)), path.rstrip("/")


def again(attempt: Callable[[], _T], what: str) -> _T:
    """Call ``attempt`` until it succeeds, with growing pauses; ``what`` names it in warnings.

    A process that was told to end tries only as long as the notice lasts.

    Raises:
        OSError: the last failure, one that time does not heal, or no time is left.
    """
    pauses = iter(PAUSES_S)
    while NOTICE.left_s > 0:
        try:
            return attempt()
        except OSError as error:
            pause_s = next(pauses, None)
            if pause_s is None or not _heals(error) or NOTICE.left_s < _LAST_PAUSE_S:
                raise
            wait_s = min(pause_s, NOTICE.left_s / 2)
            _log.warning("%s: %s; trying again in %.2g s", what, _first_line(error), wait_s)
            NOTICE.pause(pause_s)
    raise TimeoutError(f"{what} was not tried: no time is left of the notice to end")


def _heals(error: OSError) -> bool:
    return not isinstance(error, _LASTING) and not any(code in str(error) for code in _REFUSALS)


def explain(url: Url, error: OSError) -> UserError:
    """One line for a person."""
    known = {**_REFUSALS, **_HINTS}
    problem = next((text for code, text in known.items() if code in str(error)), _first_line(error))
    return UserError(f"{url}: {problem}")


def _first_line(error: object) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def download(filesystem: arrow.FileSystem, path: str, into: BinaryIO) -> None:
    """Copy the file ``path`` to ``into``."""
    with filesystem.open_input_stream(path) as stream:
        shutil.copyfileobj(stream, into, _CHUNK)


def upload(filesystem: arrow.FileSystem, source: BinaryIO, path: str) -> None:
    """Copy what is left of ``source`` to the file ``path``, which is the old or the new one at any moment."""
    # Object stores have no folders, and show a file when it is complete; disks show it as it grows.
    grows = filesystem.type_name == "local"
    folder, _, name = path.rpartition("/")
    if filesystem.type_name not in ("s3", "gcs"):
        filesystem.create_dir(folder)
    draft = f"{folder}/.{name}.partial" if grows else path
    with filesystem.open_output_stream(draft) as stream:
        shutil.copyfileobj(source, stream, _CHUNK)
    if grows:
        filesystem.move(draft, path)


def store_json(filesystem: arrow.FileSystem, path: str, value: Any) -> None:
    """``write_json`` for a file on any node's ``filesystem``: local where that is the local one."""
    if isinstance(filesystem, arrow.LocalFileSystem):
        write_json(Path(path), value)
        return
    with filesystem.open_output_stream(path) as stream:
        stream.write((json.dumps(value, indent=2) + "\n").encode())


def files(filesystem: arrow.FileSystem, root: str) -> dict[str, Stamp]:
    """What lies below the folder ``root``, by relative path; empty where nothing is.

    Left out are our lock, and files on their way.
    """
    selector = arrow.FileSelector(root, allow_not_found=True, recursive=True)
    found = {}
    for info in filesystem.get_file_info(selector):
        name = info.path.strip("/").removeprefix(root.strip("/")).strip("/")
        if info.type == arrow.FileType.File and name not in ("", LOCK) and not name.endswith(".partial"):
            # fsspec's file systems call the time of a change by many names, or have none.
            changed = filesystem.handler.fs.ukey(info.path) if info.mtime_ns is None else info.mtime_ns
            found[name] = (info.size, changed)
    return found
