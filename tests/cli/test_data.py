"""`rl-rec data prepare` on the synthetic world: what it writes, prints and refuses."""

import json

import pytest

from envs.data.dataset import load
from envs.data.prepare import SOURCES
from rl_rec.cli.main import main

SMALL = ["--set", "synthetic.users=30", "--set", "synthetic.items=40", "--set", "slate_size=4"]


def prepare(out, *more: str) -> int:
    return main(["data", "prepare", "synthetic", "--out", str(out), *SMALL, *more])


def test_the_json_describes_the_dataset_on_disk(tmp_path, capsys):
    assert prepare(tmp_path / "data", "--seed", "3", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    dataset = load(tmp_path / "data")
    assert result["fingerprint"] == dataset.fingerprint
    assert (result["counts"]["users"], result["slate_size"], result["seed"]) == (30, 4, 3)
    exposed = dataset.session_items > 0
    assert result["positive_rate"] == pytest.approx(dataset.session_feedback[exposed].mean())


def test_the_seed_decides_the_dataset(tmp_path, capsys):
    fingerprints = []
    for index, seed in enumerate(("3", "3", "4")):
        assert prepare(tmp_path / str(index), "--seed", seed, "--json") == 0
        fingerprints.append(json.loads(capsys.readouterr().out)["fingerprint"])
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def test_a_person_reads_a_table(tmp_path, capsys):
    assert prepare(tmp_path / "data") == 0
    out = capsys.readouterr().out
    for word in ("users", "items", "sessions", "interactions", "positive rate", "fingerprint", "seconds"):
        assert word in out


def test_an_existing_output_is_refused_before_the_work(tmp_path, capsys, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "precious.txt").write_text("mine")
    monkeypatch.setattr("envs.data.prepare.prepare", lambda *_: pytest.fail("the work started"))
    assert prepare(tmp_path / "data") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "data" / "precious.txt").read_text() == "mine"


def test_overwrite_replaces_the_output(tmp_path):
    assert prepare(tmp_path / "data", "--seed", "1") == 0
    assert prepare(tmp_path / "data", "--seed", "2", "--overwrite") == 0
    assert load(tmp_path / "data").seed == 2


def test_overwrite_does_not_take_the_raw_files_along(tmp_path, capsys):
    (tmp_path / "ml" / "raw").mkdir(parents=True)
    precious = tmp_path / "ml" / "raw" / "u.data"
    precious.write_text("mine")
    for out in (tmp_path / "ml", tmp_path / "ml" / "raw"):
        arguments = ["--raw", str(precious.parent), "--out", str(out), "--overwrite"]
        assert main(["data", "prepare", "ml-100k", *arguments]) == 2
        assert "would be overwritten" in capsys.readouterr().err
    assert precious.read_text() == "mine"


@pytest.mark.parametrize(
    "more, expected",
    [
        (["--set", "slate_siez=3"], "did you mean 'slate_size'"),
        (["--set", "slate_size=0"], "slate_size"),
        (["--seed", "-1"], "--seed"),
        (["--seed", "4294967296"], "seed: expected less than 4294967296"),
        (["--seed", "1", "--set", "seed=2"], "give the seed once"),
        (["--raw", "nowhere"], "synthetic"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(tmp_path, capsys, more, expected):
    assert prepare(tmp_path / "data", *more) == 2
    captured = capsys.readouterr()
    assert expected in captured.err and captured.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_source_names_the_nearest(tmp_path, capsys):
    assert main(["data", "prepare", "synthetik", "--out", str(tmp_path / "data")]) == 2
    assert "'synthetic'" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["data", "-h"], ["data", "prepare", "-h"]])
def test_every_help_ends_with_an_example(arguments, capsys):
    assert main(arguments) == 0
    last_paragraph = capsys.readouterr().out.strip().split("\n\n")[-1]
    assert last_paragraph.strip().startswith("Example: rl-rec data prepare ")


def test_the_help_names_every_source(capsys):
    main(["data", "prepare", "-h"])
    out = capsys.readouterr().out
    assert all(name in out for name in SOURCES)
