"""The whole way in one call: synthetic logs → simulator → HAC → a table beside the reference policies."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table

from cluster.ray_session import ray_session
from envs import world_folder
from envs.data import dataset as datasets
from envs.data.dataset import Split
from envs.data.prepare import PrepareSettings, prepare
from envs.errors import UserError
from envs.files import write_json
from envs.fit import FitSettings, fit
from rl_rec.agents import find_agent
from rl_rec.cli.options import refuse_existing
from rl_rec.cli.output import console
from rl_rec.cli.progress import reporting
from rl_rec.comparison import Comparison, reference_names
from rl_rec.json_values import json_value
from rl_rec.provenance import describe_run
from tuning.curves import draw_learning_curve
from tuning.training import train

_EPISODES = 1024


def walk(out: Path, steps: int, seed: int, device: str, overwrite: bool) -> dict[str, Any]:
    """Do it, into the folder ``out``: ``data``, ``simulator``, ``run``, ``result.json`` and a picture.

    Raises:
        UserError: ``out`` exists and ``overwrite`` is off, or it cannot be made.
    """
    with _claimed(out, overwrite):
        return _walk(out, steps, seed, device)


@contextmanager
def _claimed(out: Path, overwrite: bool) -> Iterator[None]:
    """Own the folder ``out`` in the block; where that fails, what was there before is there again.

    A draft that is renamed in the end would not do: a run remembers where its simulator is.
    """
    refuse_existing(out, overwrite)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".old", dir=out.parent))
        if out.exists():
            out.rename(aside / out.name)
        out.mkdir()
    except OSError as error:
        raise UserError(f"cannot make {out}: {error.strerror}") from None
    try:
        yield
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        if (aside / out.name).exists():
            (aside / out.name).rename(out)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _walk(out: Path, steps: int, seed: int, device: str) -> dict[str, Any]:
    out = out.resolve()
    agent = find_agent("hac")
    train_settings = agent.train_settings(steps=steps, seed=seed, device=device)
    data, simulator, run_path = out / "data", out / "simulator", out / "run"

    with reporting("1/4 logs") as progress:
        dataset = prepare("synthetic", None, PrepareSettings(seed=seed), progress)
        datasets.save(dataset, data)
    with reporting("2/4 simulator") as progress:
        settings = FitSettings(seed=seed)
        model, report = fit(dataset, settings, device, progress)
        described = describe_run(settings, seed, dataset.fingerprint, device)
        world_folder.save(simulator, data, dataset, model, settings, report, described)
    console.print(
        f"simulator: held-out AUC {report.quality['model'].auc:.3f}, ECE {report.quality['model'].ece:.3f}"
    )

    with ray_session([train_settings.reservation]), reporting("3/4 training") as progress:
        run = train(agent, simulator, train_settings, run_path, progress)

    rules = train_settings.world
    comparison = Comparison(world_folder.load(simulator), Split.TEST, rules, _EPISODES, seed, device)
    policies: dict[str, dict[str, Any]] = {}
    with reporting("4/4 evaluating") as progress:
        for name in reference_names(rules):
            policies[name] = comparison.run_reference(name, progress)
        policy = run.policy(comparison.world, rules)
        policies["hac"] = comparison.run(lambda _: policy)
    references = {str(name): policies[name]["return_mean"] for name in reference_names(rules)}
    picture = draw_learning_curve(run, references, out / "learning_curve.png")
    result = {
        "policies": policies,
        "learning_curve": str(picture),
        "out": str(out),
        "seed": seed,
        "steps": steps,
    }
    write_json(out / "result.json", json_value(result))
    return result


def render(result: Mapping[str, Any]) -> Group:
    """The table of all policies, and where the pictures are."""
    title = f"Test users, {_EPISODES} episodes, {result['steps']:,} user-steps of training"
    table = Table(title=title, box=None, padding=(0, 1), header_style="bold")
    for column in ("policy", "return", "95% interval", "normalised", "click rate", "depth", "items shown"):
        table.add_column(column, justify="left" if column == "policy" else "right", no_wrap=True)
    for name, figures in result["policies"].items():
        low, high = figures["return_ci95"]
        table.add_row(
            name.upper() if name == "hac" else name,
            f"{figures['return_mean']:.2f}",
            f"{low:.2f}–{high:.2f}",
            f"{figures['normalised']:.2f}",
            f"{figures['click_rate']:.2f}",
            f"{figures['depth_mean']:.1f}",
            f"{figures['distinct_items']}",
        )
    return Group(table, f"learning curve: {result['learning_curve']}", f"everything: {result['out']}")
