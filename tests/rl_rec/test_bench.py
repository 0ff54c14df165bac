"""The benchmarks: what they report, that fast equals plain, and that they need neither Ray nor gymnasium."""

import json
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner

from envs.errors import UserError
from rl_rec.bench.decode import Decoder, DecodeSettings, crossing
from rl_rec.bench.settings import bench_settings
from rl_rec.bench.train import FastLoop, PlainLoop, gradient_difference
from rl_rec.bench.world import WorldSizes, random_world
from rl_rec.cli.main import cli, main
from rl_rec.hac.losses import predict
from rl_rec.scoring.losses import WorldView

SIZES = {"population": 12, "items": 24, "profile_features": 3, "item_features": 4, "history": 6, "slate": 3}
TINY = [
    *("--users", "4", "--steps", "2", "--repeats", "2"),
    *(part for name, value in SIZES.items() for part in ("--set", f"world.{name}={value}")),
    *("--set", "fragment=2", "--set", "batch_size=8", "--set", "capacity=64"),
]
PARTS = {
    "simulator": {"response_model", "history_update", "arrivals", "may_show", "rest"},
    "rollout": {"policy", "simulator", "statistics"},
    "replay": {"add", "sample"},
    "train": {"collect", "replay", "gradients", "optimizers", "targets"},
}
NEEDED = {
    *("torch", "torchgen", "tqdm", "sympy", "mpmath"),  # torch and what it imports
    *("pydantic", "pydantic_core", "annotated_types", "typing_inspection", "typing_extensions"),
    *("click", "rich", "numpy"),
}
BARE = """
import importlib.metadata
import sys

class Bare:  # finds nothing but what is needed
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        known = top in sys.stdlib_module_names or top.startswith("_sysconfigdata") or top in ("envs", "rl_rec")
        return self.finder.find_spec(name, path, target) if known or top in NEEDED else None

NEEDED = set(sys.argv.pop(1).split(","))
sys.meta_path[:] = map(Bare, sys.meta_path)
importlib.metadata.entry_points = lambda **_: importlib.metadata.EntryPoints()
from rl_rec.cli.main import main
for words in (["simulator"], *(["rollout", "--agent", a] for a in ("hac", "hsrl")), ["replay"],
              *(["train", "--agent", a] for a in ("hac", "hsrl"))):
    if main(["bench", *words, *sys.argv[1:]]):
        sys.exit(f"bench {words} failed")
if main(["bench", "device", "--users", "4", "--set", "seconds=0.01", *sys.argv[sys.argv.index("--set"):]]):
    sys.exit("bench device failed")
"""


# Among so few items a sharp policy has next to nothing left beside the history, where float32 gives up.
FLAT = {"hac": [], "hsrl": ["agent.temperature=3"]}


def tiny(agent="hac"):
    sizes = {"users": 4, "steps": 2, "repeats": 2, "fragment": 2, "batch_size": 8, "capacity": 64}
    return bench_settings(agent, world=WorldSizes(**SIZES), **sizes).with_overrides(FLAT[agent])


@pytest.mark.parametrize("name", PARTS)
def test_the_document_says_how_fast_where_and_on_what(name):
    done = CliRunner().invoke(cli, ["bench", name, *TINY, "--json"], catch_exceptions=False)
    result = json.loads(done.stdout)
    assert result["user_steps_per_s"] > 0
    assert (result["device"], result["threads"], result["users"]) == ("cpu", 1, 4)
    assert result["peak_rss_mb"] > 50
    assert result["sizes"].items() >= SIZES.items()
    assert set(result["time_split"]) == PARTS[name]
    assert sum(result["time_split"].values()) == pytest.approx(1.0)


@pytest.mark.parametrize("agent", ["hac", "hsrl"])
def test_training_is_reported_beside_the_plain_loop(agent):
    chosen = ["--agent", agent, *(part for change in FLAT[agent] for part in ("--set", change))]
    done = CliRunner().invoke(cli, ["bench", "train", *TINY, *chosen, "--json"], catch_exceptions=False)
    result = json.loads(done.stdout)
    assert result["agent"] == agent
    assert result["gradients_equal"] is True
    assert result["fast_to_plain"] > 0
    assert result["plain"]["user_steps_per_s"] > 0
    assert ("hsrl_to_hac" in result) == (agent == "hsrl")


def test_rollouts_of_either_agent_are_measured():
    done = CliRunner().invoke(cli, ["bench", "rollout", *TINY, "--agent", "hsrl", "--json"])
    assert json.loads(done.stdout)["agent"] == "hsrl"


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--agent", "sarsa"], "'hac', 'hsrl'"),
        (["--agent", "hsrl", "--set", "agent.context=expected"], "agent.context=sampled"),
        (["--agent", "hac", "--set", "agent.sid_levels=2"], "unknown setting 'agent.sid_levels'"),
        (["--agent", "hsrl", "--set", "agent.sids=here"], "leave agent.sids out"),
        (["--set", "device=gpu"], "unknown device 'gpu'"),
    ],
)
def test_what_cannot_be_trained_is_one_line(arguments, says, capsys):
    assert main(["bench", "train", *TINY, *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and says in error


def test_replay_counts_the_bytes_of_a_row():
    done = CliRunner().invoke(cli, ["bench", "replay", *TINY, "--json"], catch_exceptions=False)
    history, slate = 2 * 6 * 4, 3 * 4  # int32: two histories and a slate
    assert json.loads(done.stdout)["row_bytes"] == 4 + history + slate + 3 + 4 + 1


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("start_history", ["logged", "empty"])
@pytest.mark.parametrize("agent", ["hac", "hsrl"])
def test_fast_and_plain_have_the_same_gradients(agent, layers, start_history):
    settings = tiny(agent).with_overrides(
        [f"agent.encoder.layers={layers}", f"rules.start_history={start_history}"]
    )
    world = random_world(settings.world, seed=0)
    assert gradient_difference(FastLoop(settings, world), PlainLoop(settings, world)) <= 1e-5


@pytest.mark.parametrize("unit, gamma", [("slot", 0.0), ("slate", 0.0), ("slate", 0.9)])
def test_fast_and_plain_agree_on_the_credit(unit, gamma):
    settings = tiny("hsrl").with_overrides([f"agent.credit_unit={unit}", f"agent.gamma={gamma}"])
    world = random_world(settings.world, seed=0)
    assert gradient_difference(FastLoop(settings, world), PlainLoop(settings, world)) <= 1e-5
    other = settings.with_overrides(
        [f"agent.credit_unit={'slot' if unit == 'slate' else 'slate'}", "agent.gamma=0"]
    )
    assert gradient_difference(FastLoop(settings, world), PlainLoop(other, world)) > 1e-4


def test_a_difference_of_the_gradients_is_seen():
    settings = tiny()
    world = random_world(settings.world, seed=0)
    fast, plain = FastLoop(settings, world), PlainLoop(settings, world)
    with torch.no_grad():
        plain.networks.encoder.profile.weight *= 1.01
    assert gradient_difference(fast, plain) > 1e-4


def test_fast_and_plain_serve_the_same_slates_and_learn_the_same_weights():
    settings = tiny()
    world = random_world(settings.world, seed=0)
    fast, plain = FastLoop(settings, world), PlainLoop(settings, world)
    for loop in (fast, plain):
        loop.run(5)
    for name in ("slate", "click", "next_history"):
        assert torch.equal(fast.replay.columns[name], plain.replay.columns[name])
    # Not weight by weight: the keys' bias has no effect, and Adam scales its rounding errors up.
    batch = fast.sample()
    states = [plain.plain.state(loop.networks, batch.user, batch.history) for loop in (fast, plain)]
    torch.testing.assert_close(*states, atol=1e-4, rtol=1e-3)


def test_fast_and_plain_have_the_same_targets():
    settings = tiny()
    world = random_world(settings.world, seed=0)
    fast, plain = FastLoop(settings, world), PlainLoop(settings, world)
    batch = fast.sample()
    view = WorldView(world.profiles, world.item_features, forbid_repeats=True)
    y = predict(fast.networks, fast.targets, batch, view, settings.agent).target
    torch.testing.assert_close(y, plain.plain.target(plain.targets, batch))


def test_decoding_is_reported_for_every_size():
    few = [*("--items", "60,2000", "--repeats", "2", "--set", "users=3"), *("--set", "codebook_size=8")]
    small = ["--set", "slate=4", "--set", "beam_width=6", "--set", "levels=2", "--set", "paddings=fixed"]
    done = CliRunner().invoke(cli, ["bench", "decode", *few, *small, "--json"], catch_exceptions=False)
    result = json.loads(done.stdout)
    assert result["items"] == [60, 2000]
    by_size = result["padding"]["fixed"]
    assert set(by_size) == {"60", "2000"}
    for variant in ("beam_k", "beam_wide", "sampled", "hac"):
        assert by_size["2000"][variant].keys() == {"ms_per_slate", "ratio_to_smallest", "peak_bytes"}
    assert by_size["2000"]["table_bytes"] > by_size["60"]["table_bytes"]
    assert set(result["cheaper_than_hac_from"]["fixed"]) == {"beam_k", "beam_wide", "sampled"}


def test_memory_for_decoding_does_not_grow_with_the_catalogue():
    settings = DecodeSettings(users=4, slate=3, levels=3, codebook_size=16, beam_width=5)
    small, large = (Decoder(items, "fixed", settings) for items in (2_000, 50_000))
    # Buckets alone are wider where there are more items: a few numbers for each of 16 x 3 or 16 x 5 prefixes.
    buckets = 4 * 16 * 5 * large.trie.widths[-1] * 64
    for variant in ("beam_k", "beam_wide", "sampled"):
        assert large.peak_bytes(variant) <= small.peak_bytes(variant) + buckets
        assert large.peak_bytes(variant) < 4 * 50_000 * 4  # one number for each user and item
    assert large.peak_bytes("hac") >= 4 * 50_000 * 4


def test_where_a_ratio_falls_to_one_is_interpolated():
    assert crossing({100: 10.0, 10_000: 0.1}) == pytest.approx(1_000)
    assert crossing({100: 0.5, 1_000: 0.1}) == 100
    assert crossing({100: 4.0, 1_000: 2.0}) is None


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--items", "1000,many"], "a whole number"),
        (["--items", "1"], "items"),
        (["--set", "paddings=loose"], "paddings"),
        (["--set", "beams=3"], "unknown setting 'beams'"),
    ],
)
def test_what_cannot_be_decoded_is_one_line(arguments, says, capsys):
    assert main(["bench", "decode", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and says in error


@pytest.mark.parametrize("agent", ["hac", "hsrl"])
@pytest.mark.parametrize("variant", ["residual=0.5", "value_scale=2"])
def test_what_the_plain_loop_does_not_spell_out_is_refused(agent, variant):
    settings = tiny(agent).with_overrides([f"agent.{variant}"])
    with pytest.raises(UserError, match=f"the plain loop knows .*agent.{variant.partition('=')[0]}="):
        PlainLoop(settings, random_world(settings.world, seed=0))


def test_training_is_compared_in_whole_catalogues_only():
    settings = tiny().with_overrides(["rules.catalogue.withheld=0.2"])
    with pytest.raises(UserError, match=r"leave rules\.catalogue as it is"):
        FastLoop(settings, random_world(settings.world, seed=0))


def test_the_random_world_is_the_same_for_the_same_seed_only():
    sizes = WorldSizes(**SIZES)
    one, same, other = (random_world(sizes, seed) for seed in (0, 0, 1))
    assert torch.equal(one.response.qkv, same.response.qkv)
    assert torch.equal(one.population.likes, same.population.likes)
    assert not torch.equal(one.profiles, other.profiles)


@pytest.mark.slow
def test_torch_numpy_and_what_reads_settings_are_all_that_is_needed():
    # As from a checkout on a machine with torch, where nothing else is installed and neither are we.
    command = [sys.executable, "-c", BARE, ",".join(NEEDED), *TINY]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_ray_that_is_asked_for_and_missing_is_one_line():
    program = (
        "import sys; sys.modules['ray'] = None\nfrom rl_rec.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "bench", "train", *TINY, "--with-ray"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "--with-ray needs Ray" in done.stderr


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("name, ratio", [("rollout", "env_runner_to_bare"), ("train", "rllib_to_fast")])
def test_rllib_is_measured_beside_the_bare_loop(ray_session, name, ratio):
    arguments = ["bench", name, *TINY, "--with-ray", "--json"]
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert json.loads(done.stdout)[ratio] > 0
