"""What travels with a job: the code that an installation would hold, and nothing that lies beside it."""

import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from configparser import ConfigParser
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from envs.errors import UserError

PROJECT = "rl-rec"
LOCK = "requirements.lock"
_MIB = 2**20
_NAMED = 3  # of the largest files, where all are too large together
_DESCRIBED = ("METADATA", "entry_points.txt")
"""What makes the shipped code a distribution: its version, its verbs, what it requires."""
_BUILT_FROM = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE")

Files = dict[str, Path]
"""Where each file is now, by its name in the package."""


def checkout() -> Path | None:
    """The project checkout that this code runs from; None where it was installed."""
    root = Path(__file__).resolve().parent.parent.parent
    return root if (root / "setup.cfg").is_file() else None


def collect(scratch: Path, wheel: str | None = None) -> Files:
    """Find the files of a job's package: code, its metadata and a lock file.

    Args:
        scratch: an empty folder for what has to be written first.
        wheel: path of a wheel to ship, or ``build`` to build one from the checkout; by default the checkout's
            own files, or those of the installation where there is no checkout.

    Raises:
        UserError: no such wheel, or it is not one of this project that runs on any platform.
    """
    root = checkout()
    if wheel == "build":
        if root is None:
            raise UserError(
                "--wheel build needs the project's checkout; leave it out to ship what is installed"
            )
        wheel = str(_build(root, scratch))
    if wheel is not None:
        files = _wheel_files(Path(wheel), scratch)
    elif root is not None:
        files = _source_files(root) | _describe(root, scratch)
    else:
        files = _installed_files(distribution(PROJECT))
    lock = root / LOCK if root is not None else scratch / LOCK
    if root is None:
        lock.write_text("".join(f"{name}=={version}\n" for name, version in sorted(_closure().items())))
    return files | {LOCK: lock}


def write(files: Files, folder: Path, limit_mib: float) -> int:
    """Copy a package into ``folder`` and return its bytes.

    Raises:
        UserError: it is larger than ``limit_mib``; the largest files are named.
    """
    sizes = {name: path.stat().st_size for name, path in files.items()}
    total = sum(sizes.values())
    if total > limit_mib * _MIB:
        largest = sorted(sizes, key=lambda name: -sizes[name])[:_NAMED]
        named = ", ".join(f"{name} ({sizes[name] / _MIB:.2g} MiB)" for name in largest)
        raise UserError(
            f"the package is {total / _MIB:.1f} MiB, more than --size-limit {limit_mib:g}: the largest are "
            f"{named}; data belongs on the cluster's storage"
        )
    for name, path in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / name)
    return total


def _source_files(root: Path) -> Files:
    """The files of the checkout that a wheel would hold, by the same rules of setup.cfg."""
    setup = _setup(root)
    patterns = ["*.py", *(text.strip() for text in setup["options.package_data"]["*"].split(","))]
    tops = [name for name in setup["options.packages.find"]["include"].split() if "*" not in name]
    found = {
        path
        for top in tops
        for folder in _package_folders(root / top)
        for pattern in patterns
        for path in folder.glob(pattern)
        if path.is_file()
    }
    return {path.relative_to(root).as_posix(): path for path in sorted(found)}


def _package_folders(folder: Path) -> Iterator[Path]:
    if (folder / "__init__.py").is_file() and folder.name != "tests":
        yield folder
        for child in sorted(folder.iterdir()):
            if child.is_dir():
                yield from _package_folders(child)


def _describe(root: Path, scratch: Path) -> Files:
    """Metadata from setup.cfg as it is now: an editable installation's may be older than the code."""
    setup = _setup(root)
    version = setup["metadata"]["version"]
    requires = "".join(
        f"Requires-Dist: {line}\n" for line in setup["options"]["install_requires"].strip().splitlines()
    )
    points = "\n".join(f"[{group}]{lines}" for group, lines in setup["options.entry_points"].items())
    folder = f"rl_rec-{version}.dist-info"
    (scratch / folder).mkdir()
    header = f"Metadata-Version: 2.1\nName: {PROJECT}\nVersion: {version}\n"
    (scratch / folder / "METADATA").write_text(header + requires)
    (scratch / folder / "entry_points.txt").write_text(points + "\n")
    return {f"{folder}/{name}": scratch / folder / name for name in _DESCRIBED}


def _setup(root: Path) -> ConfigParser:
    setup = ConfigParser(interpolation=None)
    setup.read(root / "setup.cfg", encoding="utf-8")
    return setup


def _build(root: Path, scratch: Path) -> Path:
    # From a copy: a build leaves folders behind.
    source, wheels = scratch / "source", scratch / "wheels"
    source.mkdir()
    files = _source_files(root) | {name: root / name for name in _BUILT_FROM}
    write(files, source, limit_mib=float("inf"))
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command = [*pip, "--wheel-dir", str(wheels), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    built = list(wheels.glob("*.whl"))
    if done.returncode or not built:
        reason = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise UserError(f"pip cannot build the wheel: {' '.join(reason)}")
    return built[0]


def _wheel_files(wheel: Path, scratch: Path) -> Files:
    if not wheel.is_file():
        raise UserError(f"there is no wheel {wheel}: name a file, or `--wheel build`")
    if not wheel.name.startswith("rl_rec-") or not wheel.name.endswith("-none-any.whl"):
        raise UserError(f"{wheel.name} is not a wheel of {PROJECT} for any platform (rl_rec-*-none-any.whl)")
    folder = scratch / "wheel"
    try:
        with ZipFile(wheel) as archive:
            archive.extractall(folder)
    except BadZipFile:
        raise UserError(f"{wheel} is broken: not a zip file") from None
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return _without_records({path.relative_to(folder).as_posix(): path for path in paths})


def _installed_files(installed: Distribution) -> Files:
    if installed.files is None:
        raise UserError(f"the installation of {PROJECT} does not list its files: give --wheel PATH")
    inside = (file for file in installed.files if ".." not in file.parts and "__pycache__" not in file.parts)
    return _without_records({file.as_posix(): Path(str(installed.locate_file(file))) for file in inside})


def _without_records(files: Mapping[str, Path]) -> Files:
    """Without what an installer noted: it is of no use elsewhere, and names folders of this machine."""

    def is_kept(name: str) -> bool:
        folder, _, file = name.partition("/")
        return not folder.endswith(".data") and (not folder.endswith(".dist-info") or file in _DESCRIBED)

    return {name: path for name, path in files.items() if is_kept(name)}


def _closure() -> dict[str, str]:
    """Versions of everything that the installed project needs, and what that needs."""
    versions: dict[str, str] = {}
    waiting = [Requirement(PROJECT)]
    done: set[tuple[str, str]] = set()
    while waiting:
        wanted = waiting.pop()
        for extra in ("", *wanted.extras):
            name = canonicalize_name(wanted.name)
            if (name, extra) in done:
                continue
            done.add((name, extra))
            try:
                found = distribution(name)
            except PackageNotFoundError:  # an optional one
                continue
            if name != PROJECT:
                versions[name] = found.version
            for text in found.requires or ():
                requirement = Requirement(text)
                if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                    waiting.append(requirement)
    return versions
