"""The table of a device, on the CPU: operations by formula, rows that fail alone, graphs by a stand-in."""

import json

import pytest
import torch
from click.testing import CliRunner
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from envs.errors import UserError
from rl_rec.bench import device as module
from rl_rec.bench import flops
from rl_rec.bench.ceilings import Ceilings
from rl_rec.bench.device import DeviceSettings, bench_device, device_table
from rl_rec.bench.settings import bench_settings
from rl_rec.bench.traffic import Traffic
from rl_rec.bench.train import FastLoop
from rl_rec.bench.world import WorldSizes, random_world
from rl_rec.cli.main import cli
from tests.pretend_device import pretended
from tests.rl_rec.test_capture import Recorder

SIZES = {"population": 20, "items": 60, "profile_features": 7, "item_features": 6, "history": 12, "slate": 5}
SMALL = {"users": 8, "fragment": 2, "batch_size": 16, "capacity": 64, "device": "meta"}


@pytest.mark.parametrize(
    "agent, changes",
    [
        ("hac", ()),
        ("hac", ("agent.encoder.layers=3", "agent.item_hidden=0", "world.response_heads=4", "world.items=90")),
        ("hac", ("agent.policy_action=soft_effect", "agent.critic_hidden=16", "agent.encoder.heads=2")),
        ("hsrl", ()),
        ("hsrl", ("agent.encoder.layers=1", "agent.sid_codebook=4", "agent.item_hidden=0")),
        ("hsrl", ("world.items=400", "world.history=3", "agent.sid_codebook=40", "agent.sid_levels=2")),
        ("hsrl", ("agent.consistency_weight=0", "agent.exclusions=off", "agent.multi_level_critic=false")),
        ("hsrl", ("rules.repeats=allow", "agent.sid_levels=1")),
    ],
)
def test_operations_are_those_that_torch_counts(agent, changes, monkeypatch):
    settings = bench_settings(agent, world=WorldSizes(**SIZES), **SMALL).with_overrides(changes)
    with pretended(monkeypatch):  # a CPU goes another way through the attention
        loop = FastLoop(settings, random_world(settings.world, 0, "meta"))
        expected = flops.user_step(settings, getattr(loop.agent, "trie", None))
        simulator, policy = loop.rollout.simulator, loop.actor

        def counted(work):
            with FlopCounterMode(display=False) as counter:
                work()
            return counter.get_total_flops()

        policy.weights_changed()
        with_tables = counted(lambda: policy.act(simulator.observation))
        acting = counted(lambda: policy.act(simulator.observation))
        slate = policy.act(simulator.observation).slate
        stepping = counted(lambda: simulator.step(slate))
        batch = loop.sample()
        learning = counted(lambda: loop.backward(batch))
    units = settings.users * settings.fragment
    assert expected.policy == acting / settings.users
    assert expected.tables == (with_tables - acting) / units
    assert expected.simulator == stepping / settings.users
    assert expected.update == pytest.approx(learning * settings.replay_ratio / settings.batch_size)
    assert expected.training == sum(expected)


@pytest.mark.parametrize("change", ["agent.residual=0.5", "agent.scorer=hyper_network", "rules.candidates=20"])
def test_operations_of_other_variants_are_not_guessed(change):
    settings = bench_settings("hac", world=WorldSizes(**SIZES), **SMALL)
    with pytest.raises(UserError, match=f"operations are counted for {change.partition('=')[0]}="):
        flops.user_step(settings.with_overrides([change]), None)


TINY = [
    *(part for name, value in SIZES.items() for part in ("--set", f"world.{name}={value}")),
    *("--set", "batch_size=8", "--set", "capacity=64", "--set", "seconds=0.01", "--set", "fragment=2"),
]


def tiny(**changes):
    sizes = {"users": (4, 8), "batch_size": 8, "capacity": 64, "seconds": 0.01, "fragment": 2}
    return DeviceSettings(world=WorldSizes(**SIZES), **{**sizes, **changes})


def test_the_document_has_a_row_for_every_size_and_agent():
    done = CliRunner().invoke(
        cli, ["bench", "device", "--users", "4,6", *TINY, "--json"], catch_exceptions=False
    )
    result = json.loads(done.stdout)
    assert "| agent" in done.stderr and "| hsrl" in done.stderr  # for who runs it
    assert [(row["users"], row["agent"]) for row in result["rows"]] == [
        *((4, "hac"), (4, "hsrl"), (6, "hac"), (6, "hsrl")),
    ]
    assert result["targets"] == {"rollout": 1_000_000, "training": 200_000}
    assert result["peak_tflops"] > 0 and result["bandwidth_gb_per_s"] > 0 and result["launch_us"] > 0
    assert result["captured_equals_eager"] == {"hac": None, "hsrl": None}
    for row in result["rows"]:
        assert "problem" not in row and "captured" not in row
        assert row["eager"]["rollout"] > row["eager"]["training"] > 0
        split = row["time_split"]
        assert set(split) == {"policy", "simulator", "replay", "forward", "backward", "optimizer"}
        assert sum(split.values()) == pytest.approx(1.0)
        for name in ("rollout", "training"):
            near, work = row["roofline"][name], row["flops_per_user_step"][name]
            assert near["gflops_per_s"] == pytest.approx(work * row["eager"][name] / 1e9)
            assert near["bound"] in ("arithmetic", "memory", "launches")
            assert near["roofline_share"] >= near["peak_share"] > 0


def test_the_table_comes_as_markdown_with_the_targets():
    done = CliRunner().invoke(
        cli, ["bench", "device", "--users", "4", "--agents", "hac", *TINY], catch_exceptions=False
    )
    lines = done.stdout.splitlines()
    assert any(line.startswith("| agent") and "of 1M" in line and "of 200k" in line for line in lines)
    assert any(line.startswith("| hac") for line in lines)


def test_graphs_are_measured_beside_and_compared(monkeypatch):
    monkeypatch.setattr(module, "_EQUALITY_USERS", 8)
    result = bench_device(tiny(users=(4,), agents=("hac",)), lambda *_: None, Recorder())
    for row in result["rows"]:
        assert row["captured"]["training"] > 0 and row["captured"]["rollout"] > 0
    for found in result["captured_equals_eager"].values():
        assert found["equal"] is True
        assert found["captured"] == found["eager_again"] == {"collected": 0.0, "learned": 0.0}
    device_table(result)


def test_what_does_not_fit_is_said_in_its_row_and_the_rest_goes_on(monkeypatch):
    class Full(FastLoop):
        def backward(self, batch):
            if self.settings.users == 4:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB\nand so on")
            super().backward(batch)

    monkeypatch.setattr(module, "FastLoop", Full)
    result = bench_device(tiny(agents=("hac",)), lambda *_: None)
    first, second = result["rows"]
    assert first["problem"] == "eager: out of memory"
    assert first["eager"].keys() == {"rollout"}  # which did fit
    assert "problem" not in second and second["eager"]["training"] > 0
    text = Console(width=200)
    with text.capture() as shown:
        text.print(device_table(result))
    assert "eager: out of memory" in shown.get()


def test_a_failed_recording_leaves_the_eager_figures(monkeypatch):
    class Broken(Recorder):
        def record(self, work, generators):
            raise RuntimeError("operation not permitted when stream is capturing\nand so on")

    result = bench_device(tiny(users=(4,), agents=("hac",)), lambda *_: None, Broken())
    (row,) = result["rows"]
    says = "RuntimeError: operation not permitted when stream is capturing"
    assert row["problem"] == f"captured: {says}" and row["eager"]["training"] > 0
    assert result["captured_equals_eager"]["hac"] == {"problem": says}
    device_table(result)


def test_rows_that_would_begin_too_late_are_left_out():
    rows = bench_device(tiny(budget_s=1e-9), lambda *_: None)["rows"]
    assert len(rows) == 4 and all(row["problem"].startswith("left out: budget_s=") for row in rows)


def test_a_user_mistake_is_no_row():
    with pytest.raises(UserError, match="operations are counted"):
        bench_device(tiny().with_overrides(["hac.residual=0.5"]), lambda *_: None)


def test_the_roofline_is_the_slower_of_arithmetic_and_memory():
    ceilings = Ceilings(flops=100.0, bytes=10.0, launch_s=1e-6)
    assert ceilings.least_s(200.0, 5.0) == 2.0
    assert ceilings.least_s(20.0, 5.0) == 0.5


def test_traffic_counts_each_operand_once_and_no_views():
    table, index = torch.zeros(100, 4), torch.zeros(3, dtype=torch.int64)
    with Traffic() as traffic:
        rows = torch.nn.functional.embedding(index, table)  # reads and writes 3 rows, reads the indices
    assert (traffic.operations, traffic.bytes) == (1, 2 * 3 * 16 + 3 * 8)
    with Traffic() as traffic:
        made = rows.view(12)[None].expand(5, 12) + 1.0
    assert (traffic.operations, traffic.bytes) == (1, 48 + made.nbytes)
