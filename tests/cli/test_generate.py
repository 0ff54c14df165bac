"""`rl-rec data generate`: what it writes, prints and refuses."""

import json

import pytest

from envs.data.generators import FORMATS, true_probability
from rl_rec.cli.main import main

SMALL = ["--set", "users=20", "--set", "items=40", "--set", "sessions_per_user=2"]


def generate(out, *more: str) -> int:
    return main(["data", "generate", "own", "--out", str(out), *SMALL, *more])


def test_the_json_is_the_truth_on_disk(tmp_path, capsys):
    assert generate(tmp_path / "own", "--seed", "3", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    on_disk = json.loads((tmp_path / "own/truth.json").read_text())
    assert {**on_disk, "path": result["path"], "seconds": result["seconds"]} == result
    assert (result["format"], result["seed"], result["counts"]["users"]) == ("own", 3, 20)
    assert true_probability(tmp_path / "own", ["u1"], [_first_item(tmp_path / "own")]).shape == (1, 2)


def _first_item(folder) -> str:
    return (folder / "items.csv").read_text().splitlines()[1].partition(",")[0]


def test_a_person_reads_a_table(tmp_path, capsys):
    assert generate(tmp_path / "own") == 0
    out = capsys.readouterr().out
    for word in ("users", "items", "sessions", "rows", "click", "all.auc", "random.log loss", "seconds"):
        assert word in out


@pytest.mark.parametrize("more", [(), ("--overwrite",)])
def test_files_of_another_origin_are_never_replaced(tmp_path, capsys, more):
    (tmp_path / "own").mkdir()
    (tmp_path / "own/interactions.csv").write_text("mine")
    assert generate(tmp_path / "own", *more) == 2
    assert "name another folder" in capsys.readouterr().err
    assert (tmp_path / "own/interactions.csv").read_text() == "mine"


def test_overwrite_replaces_what_was_generated(tmp_path):
    for seed in ("1", "2"):
        assert generate(tmp_path / "own", "--seed", seed, "--overwrite") == 0
    assert json.loads((tmp_path / "own/truth.json").read_text())["seed"] == 2


@pytest.mark.parametrize("name", ["notes.txt", "data/mine.csv"])
def test_overwrite_keeps_a_folder_with_files_of_others(tmp_path, capsys, name):
    assert generate(tmp_path / "own") == 0
    foreign = tmp_path / "own" / name
    foreign.parent.mkdir(exist_ok=True)
    foreign.write_text("mine")
    before = (tmp_path / "own/interactions.csv").read_bytes()
    assert generate(tmp_path / "own", "--seed", "1", "--overwrite") == 2
    error = capsys.readouterr().err
    assert f"holds {name}, which was not generated" in error and error.count("\n") == 1
    assert foreign.read_text() == "mine"
    assert (tmp_path / "own/interactions.csv").read_bytes() == before
    foreign.unlink()
    assert generate(tmp_path / "own", "--seed", "1", "--overwrite") == 0


@pytest.mark.parametrize("content", ["{}", "[]", '{"files": 3}'])
def test_another_truth_json_does_not_make_a_generated_folder(tmp_path, capsys, content):
    (tmp_path / "own").mkdir()
    (tmp_path / "own/truth.json").write_text(content)
    assert generate(tmp_path / "own", "--overwrite") == 2
    assert "name another folder" in capsys.readouterr().err
    assert (tmp_path / "own/truth.json").read_text() == content


def test_a_file_is_not_overwritten_by_a_folder(tmp_path, capsys):
    (tmp_path / "own").write_text("mine")
    assert generate(tmp_path / "own", "--overwrite") == 2
    assert "is a file" in capsys.readouterr().err
    assert (tmp_path / "own").read_text() == "mine"


def test_a_mistyped_setting_is_named(tmp_path, capsys):
    assert generate(tmp_path / "own", "--set", "page_sise=5") == 2
    assert "did you mean 'page_size'" in capsys.readouterr().err
    assert not (tmp_path / "own").exists()


def test_the_help_names_every_format_and_ends_with_an_example(capsys):
    assert main(["data", "generate", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in " ".join(out.split()) for name in FORMATS)
    assert "Example: rl-rec data generate" in out
