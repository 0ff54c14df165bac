"""One table of a device: how many user-steps per second, where the time goes, how far from what it can do.

Rollout and training of HAC and HSRL at several numbers of users; on a GPU as the program runs (eager) and
recorded as CUDA graphs (captured), beside the targets of one H100.
"""

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from rich.box import MARKDOWN
from rich.console import Group
from rich.table import Table

from envs.errors import UserError
from envs.progress import Progress
from envs.settings import Settings
from envs.world import World
from envs.world_settings import WorldSettings
from rl_rec.bench.capture import WARM_UP_CALLS, CapturedLoop, CUDAGraphs, Recorder, difference
from rl_rec.bench.ceilings import Ceilings, measure_ceilings
from rl_rec.bench.flops import UserStep, user_step
from rl_rec.bench.measure import Split, synchronize
from rl_rec.bench.settings import AGENTS, BenchSettings, bench_settings
from rl_rec.bench.traffic import Traffic
from rl_rec.bench.train import FastLoop
from rl_rec.bench.world import WorldSizes, random_world
from rl_rec.hac.config import HACSettings
from rl_rec.hsrl.config import HSRLSettings

TARGETS = {"rollout": 1_000_000, "training": 200_000}
"""User-steps per second that one H100 is to reach."""
_MIN_ROUNDS = 3
_EQUALITY_USERS = 64


class DeviceSettings(Settings):
    """What is measured."""

    users: tuple[Annotated[int, Field(ge=1)], ...] = Field((1_024, 4_096, 16_384, 65_536), min_length=1)
    """Users B served at once; a row each."""
    agents: tuple[Literal["hac", "hsrl"], ...] = Field(("hac", "hsrl"), min_length=1)
    """Algorithms; rows of each."""
    fragment: int = Field(4, ge=1)
    """Steps of every user between two rounds of updates."""
    batch_size: int = Field(4_096, ge=1)
    """Transitions per update, the same in every row. Small ones are many launches for little work."""
    replay_ratio: float = Field(2.0, gt=0.0)
    """Transitions trained on per transition collected, the same in every row."""
    capacity: int = Field(1 << 20, ge=1)
    """Rows of the replay; a fragment of all users must fit."""
    matmul: Literal["float32", "tf32"] = "float32"
    """Precision of matrix products, the peak's too; ``tf32`` is faster on a GPU and keeps three digits."""
    graphs: bool = True
    """Measure CUDA graphs beside; elsewhere there are none."""
    seconds: float = Field(3.0, gt=0.0)
    """Time for each figure."""
    budget_s: float = Field(400.0, gt=0.0)
    """Rows that would begin later are left out."""
    threads: int = Field(1, ge=1)
    """Threads of torch on the host."""
    device: str = "cpu"
    """Where everything lives."""
    seed: int = Field(0, ge=0)
    """Seed of the world, the weights and all draws."""
    world: WorldSizes = WorldSizes()
    """Sizes of the random world."""
    rules: WorldSettings = WorldSettings()
    """Rules of the world, but for ``history_length``, which ``world.history`` sets."""
    hac: HACSettings = AGENTS["hac"]  # type: ignore[assignment]
    """HAC, as it is measured."""
    hsrl: HSRLSettings = AGENTS["hsrl"]  # type: ignore[assignment]
    """HSRL, as it is measured."""

    def row(self, agent: str, users: int) -> BenchSettings[Any]:
        """The settings of one row."""
        shared = ("fragment", "batch_size", "replay_ratio", "threads", "device", "seed", "world", "rules")
        # A smaller replay may hold fewer fragments, never less than one.
        capacity = max(self.capacity, users * self.fragment)
        values = {name: getattr(self, name) for name in shared}
        made = bench_settings(agent, users=users, capacity=capacity, **values)
        return made.model_copy(update={"agent": getattr(self, agent)})


@dataclass
class _Bench:
    """What all rows share."""

    settings: DeviceSettings
    world: World
    ceilings: Ceilings
    recorder: Recorder | None


def bench_device(
    settings: DeviceSettings, progress: Progress, recorder: Recorder | None = None
) -> dict[str, Any]:
    """Rows for every number of users and agent; one that runs out of memory says so, and the rest go on.

    Args:
        settings: what is measured.
        progress: told after every row.
        recorder: of graphs; by default CUDA's on a CUDA device, elsewhere none.
    """
    gpu = settings.device.startswith("cuda")
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest" if settings.matmul == "float32" else "high")
    try:
        with torch.cuda.device(settings.device) if gpu else nullcontext():
            return _measure(settings, progress, recorder)
    finally:
        torch.set_float32_matmul_precision(precision)


def _measure(settings: DeviceSettings, progress: Progress, recorder: Recorder | None) -> dict[str, Any]:
    began = time.monotonic()
    device, gpu = settings.device, settings.device.startswith("cuda")
    if recorder is None and gpu and settings.graphs:
        recorder = CUDAGraphs(torch.device(device))
    world = random_world(settings.world, settings.seed, device)
    bench = _Bench(settings, world, measure_ceilings(device), recorder)
    wanted = [(users, agent) for users in sorted(set(settings.users)) for agent in settings.agents]
    rows = []
    for done, (users, agent) in enumerate(wanted):
        progress(done, len(wanted), f"{agent}, {users:,} users")
        row: dict[str, Any] = {"agent": agent, "users": users}
        if time.monotonic() - began > settings.budget_s:
            row["problem"] = f"left out: budget_s={settings.budget_s:g} were over"
        else:
            row |= _row(bench, settings.row(agent, users))
        rows.append(row)
    progress(len(wanted), len(wanted))
    return {
        "benchmark": "device",
        "device": device,
        "device_name": torch.cuda.get_device_name(device) if gpu else "cpu",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "targets": TARGETS,
        **settings.model_dump(
            mode="json", include={"fragment", "batch_size", "replay_ratio", "matmul", "world"}
        ),
        "peak_tflops": bench.ceilings.flops / 1e12,
        "bandwidth_gb_per_s": bench.ceilings.bytes / 1e9,
        "launch_us": bench.ceilings.launch_s * 1e6,
        "captured_equals_eager": {agent: _equality(bench, agent) for agent in settings.agents},
        "rows": rows,
        "seconds": time.monotonic() - began,
    }


def _row(bench: _Bench, settings: BenchSettings[Any]) -> dict[str, Any]:
    """One row: what ran, and what did not fit."""
    row: dict[str, Any] = {}
    gpu = settings.device.startswith("cuda")
    if gpu:
        torch.cuda.reset_peak_memory_stats(settings.device)

    for name, part in (("eager", _eager), *([("captured", _captured)] if bench.recorder else [])):
        problem = _failure(part, bench, settings, row)
        if problem is not None:
            row["problem"] = "; ".join(filter(None, [row.get("problem"), f"{name}: {problem}"]))
        gc.collect()
        if gpu:
            torch.cuda.empty_cache()
    if gpu:
        row["peak_gpu_mb"] = torch.cuda.max_memory_allocated(settings.device) / 2**20
    return row


def _failure(part: Callable[..., None], *arguments: Any) -> str | None:
    """Why a part of a row could not be measured, if so: the rest of the table is worth having."""
    try:
        part(*arguments)
    except UserError:
        raise
    except Exception as error:
        return _problem(error)
    return None


# Each figure is put into the row when it is known: what follows may not fit.


def _eager(bench: _Bench, settings: BenchSettings[Any], row: dict[str, Any]) -> None:
    """Figures of the loop as it runs."""
    loop = FastLoop(settings, bench.world)
    work = user_step(settings, getattr(loop.agent, "trie", None))
    row["flops_per_user_step"] = {**work._asdict(), "rollout": work.rollout, "training": work.training}
    row["eager"] = {}
    _rates(bench.settings.seconds, loop, row["eager"])
    row["time_split"] = _time_split(loop)
    row["roofline"] = _roofline(bench.ceilings, loop, work, row["eager"])


def _captured(bench: _Bench, settings: BenchSettings[Any], row: dict[str, Any]) -> None:
    """Figures of the same loop, recorded."""
    assert bench.recorder is not None
    row["captured"] = {}
    _rates(bench.settings.seconds, CapturedLoop(settings, bench.world, bench.recorder), row["captured"])


def _rates(seconds: float, loop: FastLoop, rates: dict[str, float]) -> None:
    """User-steps per second of collecting, and of collecting and learning."""
    units, device = loop.settings.users * loop.settings.fragment, loop.settings.device
    rates["rollout"] = _per_s(loop.collect, units, seconds, device)
    rates["training"] = _per_s(lambda: loop.run(1), units, seconds, device)


def _per_s(work: Callable[[], object], units: int, seconds: float, device: str) -> float:
    """Median over rounds for about ``seconds``, after the warm-up."""
    for _ in range(WARM_UP_CALLS + 1):
        work()
    rates: list[float] = []
    ends = time.monotonic() + seconds
    while len(rates) < _MIN_ROUNDS or time.monotonic() < ends:
        synchronize(device)
        began = time.perf_counter()
        work()
        synchronize(device)
        rates.append(units / (time.perf_counter() - began))
    return statistics.median(rates)


def _time_split(loop: FastLoop) -> dict[str, float]:
    """Shares of one fragment and its updates, the device waited for at both ends of every part."""
    settings, rollout, clock = loop.settings, loop.rollout, Split(loop.settings.device)
    loop.weights_changed()
    for _ in range(settings.fragment):
        with clock("policy"):
            decision = rollout.policy.act(rollout.simulator.observation)
        with clock("simulator"):
            done = rollout.simulator.step(decision.slate)
            rollout.statistics.update(decision.slate, done.click, done.reward, done.terminated | done.truncated)
    rows = rollout.collect(settings.fragment)
    with clock("replay"):
        loop.replay.add(rows)
    units = settings.users * settings.fragment
    for _ in range(max(round(units * settings.replay_ratio / settings.batch_size), 1)):
        with clock("replay"):
            batch = loop.sample()
        with clock("forward"):
            for optimizer in loop.optimizers:
                optimizer.zero_grad(set_to_none=True)
            loss = loop.agent.loss(batch)
        with clock("backward"):
            loss.backward()
        with clock("optimizer"):
            for optimizer in loop.optimizers:
                optimizer.step()
            with torch.no_grad():
                loop.move_targets()
    return clock.shares()


def _roofline(
    ceilings: Ceilings, loop: FastLoop, work: UserStep, measured: Mapping[str, float]
) -> dict[str, dict[str, Any]]:
    """How near to the device's ceilings, and which one is near, for rollout and training."""
    settings = loop.settings
    with Traffic() as collecting:
        loop.replay.add(loop.collect())
    with Traffic() as updating:
        loop.backward(loop.sample())
        for optimizer in loop.optimizers:
            optimizer.step()
        with torch.no_grad():
            loop.move_targets()
    units = settings.users * settings.fragment
    updates = settings.replay_ratio / settings.batch_size
    parts = {
        "rollout": (work.rollout, collecting.bytes / units, collecting.operations / units),
        "training": (
            work.training,
            collecting.bytes / units + updates * updating.bytes,
            collecting.operations / units + updates * updating.operations,
        ),
    }
    return {
        name: {
            "gflops_per_s": flops * measured[name] / 1e9,
            "peak_share": flops * measured[name] / ceilings.flops,
            "bytes_per_user_step": moved,
            "launches_per_user_step": launches,
            "roofline_share": ceilings.least_s(flops, moved) * measured[name],
            "launch_share": launches * ceilings.launch_s * measured[name],
            "bound": max(
                ("arithmetic", flops / ceilings.flops),
                ("memory", moved / ceilings.bytes),
                ("launches", launches * ceilings.launch_s),
                key=lambda pair: pair[1],
            )[0],
        }
        for name, (flops, moved, launches) in parts.items()
    }


def _equality(bench: _Bench, agent: str) -> dict[str, Any] | None:
    """Whether recorded training is what eager training is, and whether eager training repeats itself.

    A GPU's atomic additions come in any order: what ``eager_again`` differs by is no fault of recording.
    """
    if bench.recorder is None:
        return None
    users = _EQUALITY_USERS
    changes = {"fragment": 2, "capacity": 16 * users, "batch_size": 2 * users, "replay_ratio": 2.0}
    settings = bench.settings.row(agent, users).model_copy(update=changes)
    found: dict[str, Any] = {}
    problem = _failure(_compare, bench, settings, found)
    return found if problem is None else {"problem": problem}


def _compare(bench: _Bench, settings: BenchSettings[Any], found: dict[str, Any]) -> None:
    assert bench.recorder is not None
    first, again = FastLoop(settings, bench.world), FastLoop(settings, bench.world)
    captured = CapturedLoop(settings, bench.world, bench.recorder)
    for loop in (first, again, captured):
        loop.run(WARM_UP_CALLS + 3)
    recorded = difference(first, captured)
    found["equal"] = recorded == (0.0, 0.0)
    found["captured"] = recorded._asdict()
    found["eager_again"] = difference(first, again)._asdict()


def _problem(error: Exception) -> str:
    """One line."""
    if isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error):
        return "out of memory"
    return f"{type(error).__name__}: {error}".splitlines()[0]


def device_table(result: Mapping[str, Any]) -> Group:
    """What a person sees: Markdown, to be pasted."""
    headings = [
        "agent",
        "B",
        *("rollout /s", "captured", "of 1M"),
        *("training /s", "captured", "of 200k"),
        "MFLOP/step",
        "of peak",
        "of roofline",
        "bound by",
        "po/si/re/fo/ba/op %",
        "GPU MiB",
    ]
    if any("problem" in row for row in result["rows"]):
        headings.append("not measured")
    table = Table(box=MARKDOWN)
    for heading in headings:
        left = heading.startswith(("agent", "bound", "po/", "not"))
        table.add_column(heading, justify="left" if left else "right", no_wrap=heading != "not measured")
    for row in result["rows"]:
        table.add_row(*_cells(row))
    notes = [
        f"{result['device_name']} ({result['device']}), torch {result['torch']}: measured peaks "
        f"{result['peak_tflops']:.3g} TFLOP/s ({result['matmul']}), "
        f"{result['bandwidth_gb_per_s']:,.0f} GB/s, {result['launch_us']:.1f} us a launch",
        f"fragment {result['fragment']}, batch {result['batch_size']}, replay ratio "
        f"{result['replay_ratio']:g}, N {result['world']['items']}, H {result['world']['history']}, "
        f"K {result['world']['slate']}; time in policy, simulator, replay, forward, backward, optimizer; "
        "MFLOP, time, shares and bound are of eager training; targets: one H100",
    ]
    for agent, found in result["captured_equals_eager"].items():
        if found is None:
            notes.append(f"{agent}: no graphs, they need a CUDA device and graphs=true")
        elif "problem" in found:
            notes.append(f"{agent}: graphs failed, {found['problem']}")
        else:
            notes.append(
                f"{agent}: captured {'is' if found['equal'] else 'is NOT'} equal to eager training to the bit "
                f"(largest differences {_pair(found['captured'])}; of eager training to itself "
                f"{_pair(found['eager_again'])})"
            )
    return Group(table, "", *notes)


def _pair(difference: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in difference.items())


_PARTS = ("policy", "simulator", "replay", "forward", "backward", "optimizer")


def _cells(row: Mapping[str, Any]) -> list[str]:
    eager, captured = row.get("eager", {}), row.get("captured", {})
    cells = [row["agent"], f"{row['users']:,}"]
    for name, target in TARGETS.items():
        rates = [figures.get(name) for figures in (eager, captured)]
        best = max((rate for rate in rates if rate is not None), default=None)
        cells += ["-" if rate is None else f"{rate:,.0f}" for rate in rates]
        cells.append("-" if best is None else f"{best / target:.0%}")
    roofline = row.get("roofline", {}).get("training")
    if roofline is None:
        cells += ["-"] * 4
    else:
        cells += [
            f"{row['flops_per_user_step']['training'] / 1e6:.2f}",
            f"{roofline['peak_share']:.1%}",
            f"{roofline['roofline_share']:.1%}",
            roofline["bound"],
        ]
    split = row.get("time_split")
    cells.append("-" if split is None else "/".join(f"{100 * split[part]:.0f}" for part in _PARTS))
    cells.append(f"{row['peak_gpu_mb']:,.0f}" if "peak_gpu_mb" in row else "-")
    return [*cells, row["problem"]] if "problem" in row else cells
