"""`rl-rec bench tune`: what Ray Tune costs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rl_rec.cli.checked import CheckedCommand
from rl_rec.cli.options import json_option, set_option
from rl_rec.cli.output import emit
from rl_rec.cli.progress import reporting

if TYPE_CHECKING:
    from rl_rec.agents import Agent
    from rl_rec.train_settings import TrainSettings


def _settings(agent: "Agent", steps: int, assignments: Sequence[str]) -> "TrainSettings[Any]":
    return agent.train_settings().with_overrides(["evaluation.every=0", *assignments, f"steps={steps}"])


def _check_tune(agent: str, steps: int, assignments: Sequence[str], **_: object) -> None:
    from rl_rec.agents import find_agent

    _settings(find_agent(agent), steps, assignments)


@click.command(
    cls=CheckedCommand,
    check=_check_tune,
    epilog="Example: rl-rec bench tune --simulator work/sim --steps 60000 --repeats 3",
)
@click.option(
    "--simulator",
    type=click.Path(path_type=Path),
    required=True,
    help="A folder that rl-rec simulator fit wrote.",
)
@click.option("--agent", default="hac", show_default=True, help="The algorithm.")
@click.option(
    "--steps", type=click.IntRange(1), default=60_000, show_default=True, help="User-steps of each run."
)
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True, help="Rounds, in turns.")
@set_option
@json_option
def tune(
    simulator: Path, agent: str, steps: int, repeats: int, assignments: Sequence[str], as_json: bool
) -> None:
    """Train with a plain loop and as one trial of Ray Tune, in turns; both report and save alike."""
    from cluster.ray_session import ray_session
    from envs import world_folder
    from rl_rec.agents import find_agent
    from tuning.overhead import measure_overhead
    from tuning.training import check_settings

    chosen = find_agent(agent)
    settings = _settings(chosen, steps, assignments)
    check_settings(chosen, simulator.resolve(), world_folder.load(simulator.resolve()), settings)
    with (
        ray_session([settings.reservation]),
        reporting("measuring") as progress,
    ):
        result = measure_overhead(chosen, simulator.resolve(), settings, repeats, progress)
    emit(result, as_json)
