"""`rl-rec bench`: throughput of each part on this machine, on worlds of random tensors."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console

from envs.errors import UserError
from rl_rec.cli.checked import CheckedCommand
from rl_rec.cli.options import (
    Choice,
    check_device,
    device_option,
    json_option,
    overridden,
    seed_option,
    set_option,
)
from rl_rec.cli.output import TEXT_WIDTH, emit
from rl_rec.cli.progress import reporting
from rl_rec.cli.verbs import registered

if TYPE_CHECKING:
    from rl_rec.bench.decode import DecodeSettings
    from rl_rec.bench.device import DeviceSettings
    from rl_rec.bench.settings import BenchSettings
    from rl_rec.bench.sids import SidBenchSettings

_ENTRY_POINTS = "rl_rec.bench"
CommandT = TypeVar("CommandT", bound=Callable[..., Any])


def _need_ray(_context: click.Context, _parameter: click.Parameter, value: bool) -> bool:
    if value and not _has_ray():
        raise UserError("--with-ray needs Ray, which is not installed: leave it out, or install ray[rllib]")
    return value


def _has_ray() -> bool:
    try:
        return find_spec("ray") is not None
    except ValueError:  # imported in an odd way, or kept from being imported
        return False


with_ray_option = click.option(
    "--with-ray",
    is_flag=True,
    callback=_need_ray,
    help="Measure RLlib's side in the same rounds; needs Ray.",
)


def _measured(users: int, steps: int) -> Callable[[CommandT], CommandT]:
    """The options that all benchmarks share, with this one's default B and steps."""

    def decorate(command: CommandT) -> CommandT:
        options = [
            click.option("--users", type=click.IntRange(1), default=users, show_default=True, help="Users B."),
            click.option(
                "--steps", type=click.IntRange(1), default=steps, show_default=True, help="Steps a round."
            ),
            click.option(
                "--repeats",
                type=click.IntRange(1),
                default=7,
                show_default=True,
                help="Rounds in which what is compared takes turns; medians are reported.",
            ),
            click.option(
                "--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads of torch."
            ),
            set_option,
            seed_option,
            device_option,
            json_option,
        ]
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


agent_option = click.option(
    "--agent",
    type=Choice(["hac", "hsrl"]),
    default="hac",
    show_default=True,
    help="The algorithm; --set agent... changes its settings.",
)


class _Extended(click.Group):
    """Its own commands, and those that packages above add as entry points."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *registered(_ENTRY_POINTS)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        added = registered(_ENTRY_POINTS).get(cmd_name)
        return super().get_command(ctx, cmd_name) if added is None else added.load()


@click.group(cls=_Extended, epilog="Example: rl-rec bench train --users 32 --repeats 9")
def bench() -> None:
    """Measure throughput and latency on this machine.

    Worlds are random tensors of the size that --set world.items=..., world.history=... ask for; nine in ten
    users arrive with a full history. But for tune, nothing is read from disk, and Ray is not needed.
    """


def _settings(
    assignments: Sequence[str],
    seed: int | None,
    with_ray: bool = False,
    as_json: bool = False,
    **options: Any,
) -> "BenchSettings[Any]":
    from rl_rec.bench.settings import bench_settings

    return overridden(bench_settings(**options), assignments, seed)


@bench.command(
    cls=CheckedCommand,
    check=_settings,
    epilog="Example: rl-rec bench simulator --users 1024 --set world.items=10000",
)
@_measured(users=1024, steps=20)
def simulator(**options: Any) -> None:
    """Step the simulator on slates chosen beforehand."""
    from rl_rec.bench.simulator import bench_simulator

    _run(bench_simulator, options)


@bench.command(
    cls=CheckedCommand, check=_settings, epilog="Example: rl-rec bench rollout --users 256 --with-ray"
)
@_measured(users=32, steps=40)
@agent_option
@with_ray_option
def rollout(with_ray: bool, **options: Any) -> None:
    """Serve users with an exploring policy.

    The bare loop, and RLlib's env runner beside it.
    """
    from rl_rec.bench.rollout import bench_rollout

    _run(lambda settings, progress: bench_rollout(settings, with_ray, progress), options)


@bench.command(
    cls=CheckedCommand, check=_settings, epilog="Example: rl-rec bench replay --users 32 --set capacity=100000"
)
@_measured(users=32, steps=200)
def replay(**options: Any) -> None:
    """Add rows to a full replay and draw batches from it."""
    from rl_rec.bench.replay import bench_replay

    _run(bench_replay, options)


@bench.command(
    cls=CheckedCommand,
    check=_settings,
    epilog="Example: rl-rec bench train --with-ray --set agent.encoder.dim=64",
)
@_measured(users=32, steps=20)
@agent_option
@with_ray_option
def train(with_ray: bool, **options: Any) -> None:
    """Train an agent, fast and plain.

    The fast loop beside a plain one with the same gradients, and RLlib's algorithm.

    The plain loop (every layer over all positions, a pass per loss, features gathered and projected, for HSRL
    the whole tree walked) is the check of exactness and the denominator of the ratio. HSRL is measured beside
    HAC's fast loop as well.
    """
    from rl_rec.bench.train import bench_train

    _run(lambda settings, progress: bench_train(settings, with_ray, progress), options)


def _device_settings(
    users: str | None,
    agents: str | None,
    assignments: Sequence[str],
    seed: int | None,
    device: str,
    **_: object,
) -> "DeviceSettings":
    from rl_rec.bench.device import DeviceSettings

    lists = {"users": users, "agents": agents}
    chosen = [*(f"{name}={value}" for name, value in lists.items() if value is not None), *assignments]
    return overridden(DeviceSettings(device=device), chosen, seed)


@bench.command(
    cls=CheckedCommand,
    check=_device_settings,
    epilog="Example: rl-rec bench device --device cuda --json > device.json",
)
@click.option("--users", default=None, metavar="B,B,...", help="Users B; 1024 to 65536 by default, by fours.")
@click.option("--agents", default=None, metavar="A,...", help="hac, hsrl or both, as by default.")
@set_option
@seed_option
@device_option
@json_option
def device(
    users: str | None,
    agents: str | None,
    assignments: tuple[str, ...],
    seed: int | None,
    device: str,
    as_json: bool,
) -> None:
    """Fill the table of one device.

    Rollout and training user-steps per second of HAC and HSRL, where the time goes, operations per user-step
    beside the measured peaks, memory. On a GPU CUDA graphs are measured too, and compared with what they
    record. It ends within eight minutes; on a CPU give it small numbers: --users 32 --set batch_size=64.
    """
    import torch

    from rl_rec.bench.device import bench_device, device_table

    settings = _device_settings(users, agents, assignments, seed, device)
    check_device(settings.device)
    torch.set_num_threads(settings.threads)
    with reporting("measuring") as progress:
        result = bench_device(settings, progress)
    emit(result, as_json, device_table)
    if as_json:  # minutes of a GPU: one run is to give both
        Console(stderr=True, highlight=False, width=TEXT_WIDTH).print(device_table(result))


def _sid_settings(
    assignments: Sequence[str], seed: int | None, as_json: bool = False, **sizes: Any
) -> "SidBenchSettings":
    from rl_rec.bench.sids import SidBenchSettings

    return overridden(SidBenchSettings(**sizes), assignments, seed)


@bench.command(
    cls=CheckedCommand,
    check=_sid_settings,
    epilog="Example: rl-rec bench sids --items 100000 --threads 2",
)
@click.option("--items", type=click.IntRange(1), default=1_000_000, show_default=True, help="Vectors N.")
@click.option("--dimensions", type=click.IntRange(1), default=64, show_default=True, help="Columns F.")
@click.option(
    "--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads of both libraries."
)
@set_option
@seed_option
@json_option
def sids(assignments: tuple[str, ...], seed: int | None, as_json: bool, **sizes: Any) -> None:
    """Fit and encode semantic IDs, beside faiss.

    3 x 256 tokens by default, beside faiss' residual quantizer. Each runs in a process of its own on the
    same vectors, faiss with its default beam and with a beam of 1. Needs faiss-cpu (pip install -e
    '.[bench]'); without it only ours is measured.
    """
    from rl_rec.bench.sids import bench_sids, sids_table

    settings = _sid_settings(assignments, seed, **sizes)
    with reporting("measuring") as progress:
        result = bench_sids(settings, progress)
    emit(result, as_json, sids_table)


def _decode_settings(
    items: str | None, assignments: Sequence[str], seed: int | None, as_json: bool = False, **sizes: Any
) -> "DecodeSettings":
    from rl_rec.bench.decode import DecodeSettings

    chosen = [*assignments, *([f"items={items}"] if items is not None else [])]
    return overridden(DecodeSettings(**sizes), chosen, seed)


@bench.command(
    cls=CheckedCommand,
    check=_decode_settings,
    epilog="Example: rl-rec bench decode --items 1000,100000,10000000 --set paddings=fixed",
)
@click.option(
    "--items", default=None, metavar="N,N,...", help="Catalogue sizes; 1,000 to 10 million by default."
)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads of torch.")
@click.option(
    "--repeats", type=click.IntRange(1), default=7, show_default=True, help="Rounds; medians are reported."
)
@set_option
@seed_option
@json_option
def decode(
    items: str | None, assignments: tuple[str, ...], seed: int | None, as_json: bool, **sizes: Any
) -> None:
    """Choose slates from catalogues of any size.

    For given states, by HSRL's tree, beside HAC's scores. Semantic IDs are random, 3 x 256 by default. Each
    catalogue has a process of its own; 10 million items need about 12 GB of memory.
    """
    from rl_rec.bench.decode import bench_decode, decode_table

    settings = _decode_settings(items, assignments, seed, **sizes)
    with reporting("measuring") as progress:
        result = bench_decode(settings, progress)
    emit(result, as_json, decode_table)


def _run(measure: Callable[..., dict[str, Any]], options: dict[str, Any]) -> None:
    import torch

    as_json = options.pop("as_json")
    settings = _settings(**options)
    check_device(settings.device)  # --set may have named another one
    torch.set_num_threads(settings.threads)
    with reporting("measuring") as progress:
        result = measure(settings, progress)
    emit(result, as_json)
