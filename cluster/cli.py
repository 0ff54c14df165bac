"""`rl-rec train` and `rl-rec quickstart`: the verbs that place work on Ray."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import click

from cluster.options import address_option, track_option
from envs.errors import Terminated, UserError
from envs.storage.location import Location, shown
from rl_rec.cli.checked import CheckedCommand
from rl_rec.cli.options import (
    FOLDER,
    device_option,
    json_option,
    local_folders,
    overwrite_option,
    set_option,
)
from rl_rec.cli.output import console, emit
from rl_rec.cli.progress import reporting

if TYPE_CHECKING:
    from rl_rec.agents import Agent
    from rl_rec.train_settings import TrainSettings


def _check_train(
    algorithm: str | None,
    simulator: Location | None,
    steps: int | None,
    seed: int | None,
    out: Location | None,
    resume_path: Location | None,
    assignments: Sequence[str],
    device: str | None,
    track: Sequence[str],
    **_: object,
) -> None:
    new = {"ALGORITHM": algorithm, "--simulator": simulator, "--out": out}
    if resume_path is not None:
        extra = {
            **new,
            "--steps": steps,
            "--seed": seed,
            "--device": device,
            "--set": assignments or None,
            "--track": track or None,
        }
        given = [name for name, value in extra.items() if value is not None]
        if given:
            raise UserError(f"--resume goes on with the run's own settings: leave out {', '.join(given)}")
    elif missing := [name for name, value in new.items() if value is None]:
        raise UserError(f"missing {', '.join(missing)} (or --resume RUN)")
    else:
        from rl_rec.agents import find_agent

        assert algorithm is not None
        _settings(find_agent(algorithm), steps, seed, device, assignments)


def _settings(
    agent: "Agent", steps: int | None, seed: int | None, device: str | None, assignments: Sequence[str]
) -> "TrainSettings[Any]":
    fields = {"steps": steps, "seed": seed, "device": device}
    pairs = [f"{name}={value}" for name, value in fields.items() if value is not None]
    return agent.train_settings().with_overrides([*assignments, *pairs])


@click.command(
    cls=CheckedCommand,
    check=_check_train,
    epilog="Example: rl-rec train hac --simulator worlds/ml-100k --steps 100000 --seed 1 --out runs/hac "
    "--set agent.exploration.sigma=0.2",
)
@click.argument("algorithm", required=False)
@click.option("--simulator", type=FOLDER, help="A folder that rl-rec simulator fit wrote.")
@click.option("--steps", type=click.IntRange(min=1), help="User-steps to collect.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of all randomness.")
@click.option("--out", type=FOLDER, help="The run folder to write.")
@click.option("--resume", "resume_path", type=FOLDER, help="Go on with this run instead.")
@address_option
@set_option
@click.option("--device", help="Where to compute: cpu or cuda.")
@track_option
@json_option
@local_folders(writes=("resume_path",), creates=("out",))
def train(
    algorithm: str | None,
    simulator: Location | None,
    steps: int | None,
    seed: int | None,
    out: Path | None,
    resume_path: Path | None,
    address: str | None,
    assignments: Sequence[str],
    device: str | None,
    track: Sequence[str],
    as_json: bool,
) -> None:
    """Train ALGORITHM inside a simulator, or go on with an interrupted run.

    ALGORITHM is hac, hsrl, or one that they are compared with: ddpg, ddpg-ra, td3, wolpertinger, slateq, a2c,
    item-a2c, supervised, supervised-offline. Each has a page in rl_rec/.

    The run folder holds configuration, versions, commit, data fingerprint and seed (run.json), results,
    TensorBoard events, checkpoints and a picture of the learning curve. Folders may be URLs (docs/storage.md).
    """
    from rl_rec.agents import find_agent
    from rl_rec.run_folder import RunFolder

    if resume_path is not None:
        run = RunFolder(resume_path)
        settings = run.settings
        if run.finished:
            console.print(
                f"{shown(resume_path)} is finished already: {settings.steps:,} user-steps", soft_wrap=True
            )
            emit(summarise(run), as_json)
            return
    else:
        assert algorithm is not None and simulator is not None and out is not None
        agent = find_agent(algorithm)
        settings = _settings(agent, steps, seed, device, assignments)

    from cluster.ray_session import ray_session
    from tuning import resuming, training
    from tuning.curves import draw_learning_curve
    from tuning.trackers import make_trackers

    trackers = make_trackers(track, "train" if out is None else out.name)
    path = resume_path or out
    assert path is not None
    if resume_path is None:  # before Ray starts, which takes seconds
        assert simulator is not None
        training.check(agent, simulator, settings, path)
    else:
        resuming.check_resume(run)
        if not any(run.whole_checkpoints()):
            console.print("[dim]no whole checkpoint yet: starting over[/dim]")
    if settings.idle:
        console.print(f"[yellow]{settings.idle}[/yellow]", soft_wrap=True)
    go_on = f"go on with: rl-rec train --resume {shlex.quote(shown(path))}"
    try:
        with ray_session([settings.reservation], address, go_on=go_on):
            console.print("[dim]training; interrupt with Ctrl-C and go on later with --resume[/dim]")
            with reporting("user-steps") as progress:
                if resume_path is not None:
                    run = resuming.resume(path, progress)
                else:
                    assert simulator is not None
                    run = training.train(agent, simulator, settings, path, progress, trackers)
    except (KeyboardInterrupt, Terminated):
        if path.exists():
            console.print(go_on, markup=False, soft_wrap=True)
        raise
    picture = draw_learning_curve(run)
    emit(summarise(run) | {"learning_curve": str(picture)}, as_json)


def summarise(run: Any) -> dict[str, Any]:
    """What a finished run reached, plain data."""
    results = run.results()
    last = results[-1] if results else {}
    speeds = [result["user_steps_per_s"] for result in results if "user_steps_per_s" in result]
    evaluations = [result["evaluation"]["return_mean"] for result in results if "evaluation" in result]
    return {
        "run": str(run.path),
        "algorithm": run.agent.name,
        "seed": run.settings.seed,
        "user_steps": int(last.get("num_env_steps_sampled_lifetime", 0)),
        "updates": int(last.get("num_updates_lifetime", 0)),
        "replay_ratio": last.get("replay_ratio"),
        "validation_return": evaluations[-1] if evaluations else None,
        "user_steps_per_s": median(speeds) if speeds else None,
        "time_s": last.get("time_total_s"),
    }


@click.command(epilog="Example: rl-rec quickstart --out runs/quickstart --overwrite")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("runs/quickstart"),
    show_default=True,
    help="Folder for everything it makes.",
)
@click.option("--steps", type=click.IntRange(min=1), default=40_000, show_default=True, help="User-steps.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of everything.")
@overwrite_option
@device_option
@json_option
def quickstart(out: Path, steps: int, seed: int, overwrite: bool, device: str, as_json: bool) -> None:
    """Walk the whole way on the embedded synthetic world: logs, simulator, HAC, and a table of all policies."""
    from cluster.quickstart import render, walk

    result = walk(out, steps, seed, device, overwrite)
    emit(result, as_json, render)
