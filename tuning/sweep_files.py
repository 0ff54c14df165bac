"""Finding a sweep or a search: by name among those that come along, or in a file of one's own."""

import importlib.util
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from envs.errors import UserError
from envs.lookup import look_up
from envs.settings import expectation
from tuning.search import Search
from tuning.sweep import Sweep
from tuning.sweeps import SWEEPS


def find_sweep(name: str) -> Sweep | Search:
    """The built-in sweep or search called ``name``, or the one in the file of that name.

    A YAML file holds its fields (one with a ``space`` is a search); a Python file defines ``SWEEP``.

    Raises:
        UserError: neither; a file that cannot be read or that holds no sweep.
    """
    if is_file(name):
        return _READERS[Path(name).suffix](Path(name))
    return look_up("sweep (no .yaml or .py file either)", name, SWEEPS)


def is_file(name: str) -> bool:
    """Whether ``name`` is a file's, and not that of a sweep that comes along."""
    return name not in SWEEPS and Path(name).suffix in _READERS


class _StrictLoader(yaml.SafeLoader):
    """YAML lets a later key silently replace an earlier one of the same name."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"{key!r} stands there twice (line {node.start_mark.line + 1} on)")
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file, in which no key stands twice.

    Raises:
        UserError: it cannot be read, or is not YAML.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _StrictLoader)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None


def _from_yaml(path: Path) -> Sweep | Search:
    values = read_yaml(path)
    if not isinstance(values, Mapping):
        raise UserError(f"{path} holds no sweep: it needs name, question, and cases, a grid or a space")
    return (Search if "space" in values else Sweep).from_mapping(values, file=path)


def _from_python(path: Path) -> Sweep | Search:
    if not path.is_file():
        raise UserError(f"cannot read {path}: no such file")
    spec = importlib.util.spec_from_file_location(f"sweep_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except UserError:
        raise
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = ".".join(map(str, problem["loc"]))
        raise UserError(f"{path}: {error.title}({field}=...): {expectation(problem)}") from None
    except Exception as error:
        raise UserError(f"{path} cannot be run: {type(error).__name__}: {error}") from None
    sweep = getattr(module, "SWEEP", None)
    if not isinstance(sweep, Sweep | Search):
        raise UserError(f"{path} does not define SWEEP = Sweep(...) (from tuning.sweep import Sweep)")
    return sweep


_READERS = {".yaml": _from_yaml, ".yml": _from_yaml, ".py": _from_python}
