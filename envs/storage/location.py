"""Where a folder lies: a local path, or a URL, which a ``Path`` would mangle (``s3:/bucket``)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from envs.errors import UserError

_SECRET = re.compile(r"(^|&)[^=&]*(sig|secret|password|token|key)[^=&]*=", re.IGNORECASE)
# Names up to white space or quotes; punctuation behind them is the sentence's.
_INSIDE = r"(?![\w-]|\.\w)((?:/[^\s'\"]*[^\s'\".,:;)])?)"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True)
class Url:
    """The URL of a folder, with what code asks of a ``Path`` before it reads anything."""

    text: str
    """Without a slash at its end."""

    @property
    def name(self) -> str:
        """Its last part."""
        return self._parts()[0].rpartition("/")[2]

    @property
    def parent(self) -> "Url":
        """The folder around it."""
        path, query = self._parts()
        return Url(path.rpartition("/")[0] + query)

    def resolve(self) -> "Url":
        """Itself: a URL means the same everywhere."""
        return self

    def __truediv__(self, name: str) -> "Url":
        path, query = self._parts()
        return Url(f"{path}/{name}{query}")

    def __str__(self) -> str:
        return self.text

    def _parts(self) -> tuple[str, str]:
        path, mark, query = self.text.partition("?")
        return path, mark + query


Location: TypeAlias = Path | Url


def location(value: str | Location) -> Location:
    """``value`` as a ``Path`` or a ``Url`` if it is text; itself if it is one already.

    Raises:
        UserError: a URL that names no folder, or that holds a password, which would end up in logs.
        TypeError: neither, as a broken file may hold.
    """
    if isinstance(value, Path | Url):
        return value
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no path")
    if not _SCHEME.match(value):
        return Path(value)
    parts = urlsplit(value)
    account = parts.scheme in ("abfs", "abfss") and ":" not in parts.netloc  # container@account
    public = parts.scheme == "gs" and parts.username == "anonymous" and parts.password is None
    if (
        ("@" in parts.netloc and not account and not public)
        or "@" in parts.query
        or _SECRET.search(parts.query)
    ):
        raise UserError(
            f"{parts.scheme}://{parts.hostname}...: a URL must hold no credentials; "
            "give them through the environment (see docs/storage.md)"
        )
    if not parts.path.strip("/"):
        raise UserError(f"{value} names no folder: expected {parts.scheme}://{parts.netloc or 'bucket'}/folder")
    query = f"?{parts.query}" if parts.query else ""
    return Url(f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}{query}")


_copies: dict[str, Url] = {}


def remember(copy: Path, url: Url) -> None:
    """Note that the local folder ``copy`` stands for ``url``."""
    _copies[str(copy)] = url


def shown(value: object) -> str:
    """Text for a person: URLs in place of the paths of their local copies."""
    text = str(value)
    for copy, url in _copies.items():
        path, query = (part.replace("\\", r"\\") for part in url._parts())
        text = re.sub(f"{re.escape(copy)}{_INSIDE}", rf"{path}\g<1>{query}", text)
    return text


def with_urls(value: Any) -> Any:
    """A result for a person: ``shown`` applied to all text and paths in it."""
    if not _copies:
        return value
    if isinstance(value, Mapping):
        return {name: with_urls(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [with_urls(part) for part in value]
    return shown(value) if isinstance(value, (str, Path)) else value
