"""`rl-rec scale`: how training's throughput grows with env runners and learners."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cluster.options import address_option
from envs.counted import counted
from envs.errors import Terminated, UserError
from envs.storage.location import Location
from rl_rec.cli.checked import CheckedCommand
from rl_rec.cli.options import FOLDER, json_option, local_folders, overwrite_option, set_option
from rl_rec.cli.output import console, emit
from rl_rec.cli.progress import reporting
from rl_rec.cli.termination import terminated_plainly

if TYPE_CHECKING:
    from rl_rec.train_settings import TrainSettings
    from tuning.scaling import Point


class _Counts(click.ParamType):
    name = "N,N,..."

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        try:
            return tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is no list of whole numbers such as 1,2,4", param, ctx)


def _check_scale(
    agent: str,
    runners: tuple[int, ...],
    learners: tuple[int, ...],
    modes: str,
    predict: tuple[int, ...],
    bandwidth: str,
    assignments: Sequence[str],
    **_: object,
) -> None:
    chosen = modes.split(",")
    if not set(chosen) <= {"sync", "async"} or len(set(chosen)) < len(chosen):
        raise UserError(f"--modes {modes}: use sync, async or sync,async")
    if min(predict) < 1 or min(learners) < 0:
        raise UserError("--predict needs counts from 1 on, --learners from 0 on")

    from tuning import scaling, scaling_report

    try:
        scaling_report.parse_bandwidth(bandwidth)
    except ValueError:
        raise UserError(f"--bandwidth {bandwidth}: give it like 10Gbit, 100Mbit or 500MB") from None
    scaling.check_counts(runners)
    _runs(agent, runners, learners, modes, assignments)


def _runs(
    agent: str, runners: tuple[int, ...], learners: tuple[int, ...], modes: str, assignments: Sequence[str]
) -> "tuple[TrainSettings[Any], dict[Point, TrainSettings[Any]]]":
    """The settings that all points share, and each one's own."""
    from rl_rec.agents import find_agent
    from tuning import scaling

    base = find_agent(agent).train_settings().with_overrides(["rollout.runners=1", *assignments])
    points = scaling.points(runners, modes.split(","), learners)
    return base, {point: point.settings(base) for point in points}


@click.command(
    cls=CheckedCommand,
    check=_check_scale,
    epilog="Example: rl-rec scale hac --simulator worlds/ml-100k --runners 1,2,4 --set replay.ratio=0.1 "
    "--out runs/scale",
)
@click.argument("agent")
@click.option(
    "--simulator",
    type=FOLDER,
    required=True,
    help="A folder that rl-rec simulator fit wrote.",
)
@click.option("--runners", type=_Counts(), default="1,2", show_default=True, help="Env runners; 1 among them.")
@click.option("--learners", type=_Counts(), default="0", show_default=True, help="Remote learners.")
@click.option("--modes", default="sync,async", show_default=True, help="Of rollout.mode.")
@click.option("--seconds", type=click.FloatRange(min=0.1), default=10.0, show_default=True, help="Per block.")
@click.option(
    "--repeats", type=click.IntRange(1), default=3, show_default=True, help="Blocks of each point, in turns."
)
@click.option(
    "--predict",
    type=_Counts(),
    default="1,2,4,8,16,32,64,128,256",
    show_default=True,
    help="Env runners to predict.",
)
@click.option(
    "--bandwidth", default="10Gbit", show_default=True, help="Of the driver's network in the prediction."
)
@click.option("--skip-unfit", is_flag=True, help="Leave out points that the cluster has no place for.")
@address_option
@click.option("--out", type=FOLDER, required=True, help="The folder to write.")
@overwrite_option
@set_option
@json_option
@local_folders(writes=("out",))
def scale(
    agent: str,
    simulator: Location,
    runners: tuple[int, ...],
    learners: tuple[int, ...],
    modes: str,
    seconds: float,
    repeats: int,
    predict: tuple[int, ...],
    bandwidth: str,
    skip_unfit: bool,
    address: str | None,
    out: Path,
    overwrite: bool,
    assignments: Sequence[str],
    as_json: bool,
) -> None:
    """Measure AGENT's training with more and more env runners and learners, and model it.

    Every point is built, warmed up and measured in turns with the others: user-steps a second beside one
    runner and beside none, where the driver's time goes, latencies, staleness. A model with the parts'
    measured costs is checked against the points, and drawn for clusters of up to --predict runners:
    docs/scaling.md. Told to stop (Ctrl-C, SIGTERM), or when a point fails, it writes what it has measured.
    """
    from cluster.ray_session import check_room, ray_session
    from envs import world_folder
    from envs.files import new_directory
    from rl_rec.agents import find_agent
    from rl_rec.cli.options import refuse_existing
    from tuning import scaling, scaling_report, scaling_tables
    from tuning.training import check_settings

    bytes_per_s = scaling_report.parse_bandwidth(bandwidth)
    refuse_existing(out, overwrite)
    found = find_agent(agent)
    base, runs = _runs(agent, runners, learners, modes, assignments)
    fitted = world_folder.load(simulator.resolve())
    for settings in runs.values():
        check_settings(found, simulator.resolve(), fitted, settings)
    with ray_session(
        [settings.reservation for settings in runs.values()], address, all_must_fit=not skip_unfit
    ):
        skipped = []
        for point in list(runs) if skip_unfit else []:
            try:
                check_room([runs[point].reservation])
            except UserError as problem:
                skipped.append({"point": str(point), "why": str(problem)})
                del runs[point]
        if not any(point.runners == 1 for point in runs):
            raise UserError(f"not even one runner has a place: {skipped[0]['why']}")
        hardware = scaling.hardware()
        turns = f"{counted(len(runs), 'point')} × {counted(repeats, 'block')} of {seconds:g} s"
        console.print(f"[dim]{turns}, and starting each[/dim]")
        blocks: dict[Point, list[dict[str, Any]]] = {point: [] for point in runs}
        stopped = None
        try:
            with terminated_plainly(), reporting("blocks") as progress:
                measuring = scaling.measure_all(found, simulator.resolve(), runs, seconds, repeats, progress)
                for point, block in measuring:
                    blocks[point].append(block)
        except (KeyboardInterrupt, Terminated, Exception) as stop:
            blocks = {point: measured for point, measured in blocks.items() if measured}
            told = f"stopped: {sum(map(len, blocks.values()))} of {len(runs) * repeats} blocks were measured"
            if not any(point.runners == 1 for point in blocks):
                console.print(
                    f"{told}, none with one env runner to compare with: nothing is written", soft_wrap=True
                )
                raise
            stopped = stop
            console.print(f"{told}, and are written")
            runs = {point: runs[point] for point in blocks}
        # Before Ray is stopped, which may take its time where a signal for all processes has ended it.
        result = {
            "agent": found.name,
            "simulator": str(simulator),
            "settings": base.model_dump(mode="json"),
            "hardware": hardware,
            **scaling_report.summarise(blocks, runs, scaling.cores(), predict, bytes_per_s),
            "skipped": skipped,
        }
        with new_directory(out, overwrite=overwrite) as folder:
            scaling_report.write(folder, {**result, "blocks": {str(p): found for p, found in blocks.items()}})
    emit({**result, "out": str(out)}, as_json, scaling_tables.render)
    if stopped is not None:
        raise stopped
