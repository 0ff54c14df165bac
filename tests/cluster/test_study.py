"""`rl-rec study`: how its options are read."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.study_cli import render
from rl_rec.agents import AGENTS
from rl_rec.cli.main import main
from rl_rec.cli.output import emit
from tuning import study as studies
from tuning.study_plan import StudyPlan


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[StudyPlan]:
    """The plans that the command would carry out, with a second algorithm registered."""
    plans: list[StudyPlan] = []

    class Enough(Exception):
        pass

    def stop(plan: StudyPlan, out: Path) -> None:
        plans.append(plan)
        raise Enough

    monkeypatch.setitem(AGENTS, "twin", replace(AGENTS["hac"], name="twin"))
    monkeypatch.setattr(studies, "check", stop)
    return plans


def command(simulator: Path, *more: str) -> list[str]:
    return ["study", "hac", "--simulator", str(simulator), "--out", "nowhere", *more]


def test_variants_of_several_algorithms(simulator, planned):
    variants = ["hac", "other@twin", "wide@twin:agent.critic_hidden=[8,4],agent.tau=0.5"]
    arguments = [argument for variant in variants for argument in ("--variant", variant)]
    main(command(simulator, *arguments, "--steps", "3000"))
    (plan,) = planned
    assert {name: variant.agent.name for name, variant in plan.variants.items()} == {
        "hac": "hac",
        "other": "twin",
        "wide": "twin",
    }
    wide = plan.variants["wide"].settings
    assert (wide.agent.critic_hidden, wide.agent.tau, wide.steps) == ((8, 4), 0.5, 3000)


def test_worlds_conditions_and_users(simulator, planned):
    worlds = ["--world", "world.repeats=allow", "--world", "tight:world.repeats=forbid,world.max_steps=5"]
    serves = ["--serve", "same:", "--serve", "short:world.max_steps=3"]
    main(command(simulator, *worlds, *serves, "--split", "validation", "--seeds", "3", "--episodes", "64"))
    (plan,) = planned
    assert list(plan.worlds) == ["world.repeats=allow", "tight"]
    assert plan.rules("tight").max_steps == plan.rules("tight", "same").max_steps == 5
    assert plan.rules("tight", "short").max_steps == 3
    assert plan.rules("world.repeats=allow", "short").repeats == "allow"
    assert (plan.split.name, plan.seeds, plan.episodes) == ("VALIDATION", 3, 64)


def test_alone_it_is_the_algorithm_in_its_world_on_test_users(simulator, planned):
    main(command(simulator))
    (plan,) = planned
    assert list(plan.variants) == ["hac"] and plan.rules("base", "as trained") == plan.base.world
    assert (plan.split.name, plan.seeds, plan.episodes) == ("TEST", 5, 2048)


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (["--variant", "a b"], "--variant takes NAME[@ALGORITHM][:PATH=VALUE,...], got 'a b'"),
        (["--variant", "a@hca"], "unknown algorithm 'hca'; did you mean 'hac'?"),
        (["--variant", "a@"], "--variant takes"),
        (["--variant", "a:agent.critic_hidden=8,4"], "'4' is not PATH=VALUE"),
        (["--variant", "a:agent.gama=1"], "unknown setting 'agent.gama'"),
        (["--variant", "a", "--variant", "a@twin"], "two --variant have the same name, 'a'"),
        (["--serve", "world.max_steps=3"], "--serve takes NAME:[PATH=VALUE,...], got 'world.max_steps=3'"),
        (["--serve", "a:world.max_steps"], "'world.max_steps' is not PATH=VALUE"),
        (["--serve", "a:", "--serve", "a:world.max_steps=3"], "two --serve have the same name, 'a'"),
        (["--world", ""], "--world takes [NAME:]PATH=VALUE,..., got ''"),
        (["--split", "train"], "'train' is not one of 'test', 'validation'"),
        (["--resume", "nowhere"], "leave out ALGORITHM, --simulator, --out"),
    ],
)
def test_a_wrong_option_is_told_in_one_line(simulator, planned, capsys, more, problem):
    assert main(command(simulator, *more)) == 2
    err = capsys.readouterr().err
    assert problem in err and err.startswith("error: ") and err.count("\n") == 1
    assert not planned


def test_what_is_missing_is_named(capsys):
    assert main(["study", "hac"]) == 2
    assert capsys.readouterr().err == "error: missing --simulator, --out (or --resume STUDY)\n"


def figures(mean: float, **more: object) -> dict[str, object]:
    known = {"return_mean": mean, "return_ci95": [mean, mean], "normalised": 0.5, "distinct_items": 7.0}
    return {"algorithm": "hac", **known, "seeds": [{}, {}], **more}


def test_a_table_shows_what_differs_and_what_failed(capsys):
    rows = {
        "random": figures(1.0, algorithm=None),
        "a": figures(2.0, difference_to_first=0.0, difference_ci95=[0.0, 0.0], new_item_share=0.25),
        "b": figures(
            3.0, algorithm="twin", difference_to_first=1.0, difference_ci95=[None, None], return_ci95=[None] * 2
        ),
        "c": {"algorithm": "twin", "failed": 1, "seeds": [{}, {}]},
    }
    result = {
        "steps": 4000,
        "seeds": 2,
        "split": "validation",
        "variants": {"a": {"algorithm": "hac"}, "b": {"algorithm": "twin"}},
        "tables": [{"world_name": "tight", "serve_name": "short", "rows": json.loads(json.dumps(rows))}],
    }
    emit(result, False, render)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    title = "world tight, served short: 4,000 user-steps, 2 seeds, validation users"
    assert " ".join(lines[0]) == title
    assert lines[-4:] == [
        ["random", "1.00", "1.00–1.00", "0.500", "7", "-"],
        ["a", "hac", "2.00", "2.00–2.00", "0.500", "7", "25.0%"],
        ["b", "twin", "3.00", "-", "0.500", "7", "-", "+1.00", "(-)"],
        ["c", "twin", "failed", "1", "of", "2", "seeds"],
    ]
