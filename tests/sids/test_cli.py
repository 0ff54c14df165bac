"""`rl-rec sids` and its benchmark on small catalogues: what they write, print and refuse."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from rl_rec.bench.sids import SidBenchSettings, _in_a_process, _measure, bench_sids, random_vectors
from rl_rec.cli.main import main
from rl_rec.sids import folder

QUICK = ["--set", "codebook_size=4"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "data"
    small = ["--set", "synthetic.users=40", "--set", "synthetic.items=30", "--set", "slate_size=4"]
    assert main(["data", "prepare", "synthetic", "--out", str(out), *small]) == 0
    return out


@pytest.fixture
def data(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "data"))


def build(data: Path, out: Path, *more: str) -> int:
    return main(["sids", "build", "--data", str(data), "--out", str(out), *QUICK, *more])


def test_the_json_describes_the_folder(data, tmp_path, capsys):
    assert build(data, tmp_path / "sids", "--seed", "3", "--set", "levels=2", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    sids = folder.load(tmp_path / "sids")
    run = json.loads((tmp_path / "sids" / "run.json").read_text())
    report = json.loads((tmp_path / "sids" / "report.json").read_text())

    assert result["fingerprint"] == sids.fingerprint == run["data_fingerprint"]
    assert (sids.settings.seed, sids.settings.levels, run["seed"]) == (3, 2, 3)
    assert run["config"] == sids.settings.model_dump()
    assert result["sizes"] == [4, 4] == list(sids.table.sizes)
    assert result.items() >= report.items()
    assert Path(result["plot"]).read_bytes().startswith(b"\x89PNG")


def test_a_person_reads_a_table(data, tmp_path, capsys):
    assert build(data, tmp_path / "sids", "--set", "balanced=true", "--set", "unique=true") == 0
    out = capsys.readouterr().out
    for word in ("perplexity", "of variance", "distinct ids", "0 (0.0%)", "error to unbalanced", "sids.png"):
        assert word in out
    assert "Item " in out


def test_a_simulator_is_read_like_its_dataset(simulator, tmp_path, capsys):
    assert build(simulator, tmp_path / "sids", "--json") == 0
    one = json.loads(capsys.readouterr().out)
    assert build(simulator / "dataset", tmp_path / "other", "--json") == 0
    assert one["fingerprint"] == json.loads(capsys.readouterr().out)["fingerprint"]


def test_encode_prints_or_writes_the_tokens(data, tmp_path, capsys):
    assert build(data, tmp_path / "sids") == 0
    capsys.readouterr()
    encode = ["sids", "encode", "--sids", str(tmp_path / "sids"), "--data", str(data)]
    assert main([*encode, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    table = folder.load(tmp_path / "sids").table
    assert result["tokens"] == table.tokens[1:].tolist()
    assert (result["known"], result["new"], result["moved"]) == (30, 0, 0)

    out = tmp_path / "tokens.parquet"
    assert main([*encode, "--out", str(out)]) == 0
    assert pq.read_table(out)["tokens"].to_pylist() == table.tokens[1:].tolist()
    assert main([*encode, "--out", str(out)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*encode, "--out", str(out), "--overwrite"]) == 0


def test_an_existing_output_is_refused_before_the_work_and_replaced_on_request(
    data, tmp_path, capsys, monkeypatch
):
    assert build(data, tmp_path / "sids", "--seed", "1") == 0
    with monkeypatch.context() as patch:
        patch.setattr("rl_rec.sids.vectors.load_dataset", lambda *_: pytest.fail("the work started"))
        assert build(data, tmp_path / "sids", "--seed", "2") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert build(data, tmp_path / "sids", "--seed", "2", "--overwrite") == 0
    assert folder.load(tmp_path / "sids").settings.seed == 2


@pytest.mark.parametrize("out", [".", "data"])
def test_the_dataset_is_never_overwritten(data, tmp_path, capsys, out):
    assert build(data, tmp_path / out, "--overwrite") == 2
    assert "holds the dataset" in capsys.readouterr().err
    assert (data / "dataset.json").exists()


@pytest.mark.parametrize(
    ("damage", "more", "expected"),
    [
        (shutil.rmtree, [], "data is not a dataset (make one with: rl-rec data prepare)"),
        (lambda data: (data / "items.parquet").unlink(), [], "items.parquet is missing"),
        (None, ["--set", "level=3"], "did you mean 'levels'"),
        (None, ["--set", "levels=0"], "levels: "),
        (None, ["--set", "vectors=titles"], "vectors: "),
        (None, ["--set", "vectors=factors", "--set", "factors=1000"], "set factors lower"),
        (None, ["--set", "balanced=true", "--set", "beam=2"], "balanced assignment knows only 1"),
        (None, ["--seed", "1", "--set", "seed=2"], "give the seed once"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(data, tmp_path, capsys, damage, more, expected):
    if damage:
        damage(data)
    assert build(data, tmp_path / "sids", *more) == 2
    captured = capsys.readouterr()
    assert expected in captured.err and captured.err.count("\n") == 1
    assert captured.out == ""
    assert [path.name for path in tmp_path.iterdir() if path.name != "data"] == []


@pytest.mark.parametrize("arguments", [["sids", "-h"], ["sids", "build", "-h"], ["sids", "encode", "-h"]])
def test_every_help_ends_with_an_example(arguments, capsys):
    assert main(arguments) == 0
    last_paragraph = capsys.readouterr().out.strip().split("\n\n")[-1]
    assert last_paragraph.strip().startswith("Example: rl-rec sids ")


def test_the_benchmark_says_when_faiss_is_missing(monkeypatch):
    monkeypatch.setattr("rl_rec.bench.sids.find_spec", lambda _: None)
    measured = {"wall_s": 1.0}
    monkeypatch.setattr("rl_rec.bench.sids._in_a_process", lambda *_: measured)
    result = bench_sids(SidBenchSettings(items=10), lambda *_: None)
    assert result["variants"] == {"ours": measured, "ours_beam_5": measured}
    assert "not installed" in result["faiss"]


def test_the_benchmark_measures_time_memory_and_error():
    settings = SidBenchSettings.from_mapping({"items": 3000, "dimensions": 8, "sids": {"codebook_size": 16}})
    plain, beam = (_measure(name, settings) for name in ("ours", "ours_beam_5"))
    assert plain["wall_s"] > 0 and plain["peak_rss_mb"] > 20
    assert 0 < beam["error_share"] < plain["error_share"] < 1
    if find_spec("faiss"):
        assert _measure("faiss_default", settings)["error"] == pytest.approx(beam["error"], rel=0.1)


@pytest.mark.slow
def test_the_benchmark_measures_in_a_process_of_its_own():
    settings = SidBenchSettings(items=3000, dimensions=8)
    assert _in_a_process("ours", settings)["error"] == pytest.approx(_measure("ours", settings)["error"])


def test_the_vectors_of_the_benchmark_are_standardised_and_seeded():
    one, same, other = (random_vectors(20_000, 5, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    np.testing.assert_allclose(one.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(one.std(axis=0), 1, atol=1e-3)
