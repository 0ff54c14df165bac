"""Imports point one way, envs <- rl_rec <- tuning <- cluster, and the tensor programs know nothing of Ray."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ORDER = ("envs", "rl_rec", "tuning", "cluster")
RAY_FREE_NAMES = {"networks", "losses", "encoder", "replay", "rollout", "evaluation"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for package in ORDER for path in sorted((ROOT / package).rglob("*.py"))}


def is_ray_free(module: str) -> bool:
    """Whether it must not reach Ray: the world but its RLlib door, and the agent's tensor programs."""
    parts = module.split(".")
    if parts[0] == "envs":
        return module != "envs.rllib"
    return parts[0] == "rl_rec" and (parts[-1] in RAY_FREE_NAMES or parts[:2] == ["rl_rec", "bench"])


def imported(source: str, module: str, is_package: bool) -> set[str]:
    """Absolute names of all modules that ``source`` imports, inside functions too."""
    names: set[str] = set()
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *filter(None, [node.module])])
            names.update([origin, *(f"{origin}.{alias.name}" for alias in node.names)])
    return names


def tops(module: str) -> set[str]:
    path = MODULES[module]
    names = imported(path.read_text(), module, path.name == "__init__.py")
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("module", MODULES)
def test_no_module_imports_a_package_above_its_own(module):
    above = set(ORDER[ORDER.index(module.partition(".")[0]) + 1 :])
    assert not tops(module) & above


@pytest.mark.parametrize("module", [*filter(is_ray_free, MODULES)])
def test_ray_stays_out_of_the_tensor_programs(module):
    assert "ray" not in tops(module)


def test_importing_the_tensor_programs_does_not_load_ray():
    # What they import may import Ray in turn, which the source alone does not show.
    modules = [module for module in MODULES if is_ray_free(module)]
    program = f"import sys, {', '.join(modules)}; sys.exit('ray' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr or "ray was imported"


@pytest.mark.parametrize(
    "source, expected",
    [
        ("import ray.tune", "ray.tune"),
        ("def f():\n    from rl_rec import x", "rl_rec.x"),
        ("from ..rl_rec import y", "a.rl_rec.y"),
        ("from . import z", "a.b.z"),
    ],
)
def test_every_form_of_import_is_seen(source, expected):
    assert expected in imported(source, "a.b.c", is_package=False)
