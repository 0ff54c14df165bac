"""Every source by name: which files it is read from, by what, and its own defaults."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

from envs.data import advertising, kuairand, movielens, own, rl4rs, synthetic
from envs.data.logs import Logs
from envs.data.prepare_settings import PrepareSettings
from envs.data.raw.bad_rows import BadRows
from envs.data.raw.job import Job, Raw
from envs.errors import UserError
from envs.lookup import look_up

MovieLensReader = Callable[[Path, float, int, BadRows], Logs]
_OWN = frozenset({"interactions", "items", "users", "roles"})


@dataclass(frozen=True)
class Source:
    """A source: a new one is a reader and a line in ``SOURCES``.

    Attributes:
        read: makes the logs.
        files: what it is read from.
        factors: how many by default.
        slate_size: K by default; ``None``: the source finds it in the logs.
        takes: the attributes of ``Raw`` that mean something to it.
    """

    read: Callable[[Job], Logs]
    files: Callable[[Raw, PrepareSettings], list[Path]]
    factors: Callable[[Raw], int]
    slate_size: int | None = 10
    takes: frozenset[str] = frozenset({"folder", "skip_bad_rows"})

    def resolve(self, raw: Raw, settings: PrepareSettings) -> PrepareSettings:
        """The settings with the defaults of this source where they leave the choice to it."""
        factors = self.factors(raw) if settings.factors is None else settings.factors
        return settings.model_copy(
            update={"factors": factors, "slate_size": settings.slate_size or self.slate_size}
        )


def find_source(name: str) -> Source:
    """The source called ``name``.

    Raises:
        UserError: there is none.
    """
    return look_up("dataset", name, SOURCES)


def check_raw(name: str, raw: Raw) -> None:
    """Refuse what does not belong to the source ``name``.

    Raises:
        UserError: names the option and the sources that take it.
    """
    source = find_source(name)
    if raw.folder is not None and name in ("synthetic", "advertising"):
        raise UserError(f"{name} is drawn, not read: leave out the raw folder {raw.folder}")
    for entry in fields(raw):
        if getattr(raw, entry.name) != entry.default and entry.name not in source.takes:
            takers = ", ".join(other for other, taker in SOURCES.items() if entry.name in taker.takes)
            raise UserError(f"{name} takes no {_OPTIONS[entry.name]}: that is for {takers}")


def _read_movielens(job: Job, load: MovieLensReader, name: str) -> Logs:
    movielens_files(job.raw, job.settings, name)
    assert job.raw.folder is not None
    return load(job.raw.folder, job.settings.positive_above, job.slate_size, job.bad_rows)


def movielens_files(raw: Raw, settings: PrepareSettings, name: str) -> list[Path]:
    """The files of ML-100K or ML-1M.

    Raises:
        UserError: no folder, or one of them is missing.
    """
    if raw.folder is None:
        raise UserError(f"{name} needs the folder of its raw files ({movielens.DOWNLOAD})")
    return movielens.files(raw.folder, name)


def _movielens(name: str, load: MovieLensReader) -> Source:
    return Source(
        partial(_read_movielens, load=load, name=name),
        partial(movielens_files, name=name),
        factors=lambda _: 24,
    )


def _kuairand(size: str) -> Source:
    return Source(
        partial(kuairand.read_kuairand, size=size),
        lambda raw, _: kuairand.kuairand_files(raw, size),
        factors=lambda _: 24,
    )


def _read_synthetic(job: Job) -> Logs:
    return synthetic.generate(job.settings.synthetic, job.slate_size, job.settings.seed)


def _read_advertising(job: Job) -> Logs:
    return advertising.generate(job.settings.advertising, job.slate_size, job.settings.seed)


def _drawn(read: Callable[[Job], Logs]) -> Source:
    return Source(read, lambda _raw, _settings: [], factors=lambda _: 0, takes=frozenset())


_OPTIONS = {
    "folder": "--raw",
    "interactions": "--interactions",
    "items": "--items",
    "users": "--users",
    "roles": "--map",
    "skip_bad_rows": "--skip-bad-rows",
}
SOURCES = {
    "ml-100k": _movielens("ml-100k", movielens.load_100k),
    "ml-1m": _movielens("ml-1m", movielens.load_1m),
    "rl4rs": Source(rl4rs.read_rl4rs, rl4rs.rl4rs_files, factors=lambda _: 0, slate_size=rl4rs.PAGE),
    "kuairand-pure": _kuairand("pure"),
    "kuairand-1k": _kuairand("1k"),
    "own": Source(
        own.read_own,
        lambda raw, _: own.own_files(raw),
        factors=lambda raw: 0 if raw.items else own.FACTORS,
        slate_size=None,
        takes=_OWN | {"skip_bad_rows"},
    ),
    "synthetic": _drawn(_read_synthetic),
    "advertising": _drawn(_read_advertising),
}
"""Every source by name."""
