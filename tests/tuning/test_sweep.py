"""Sweeps: what they compare, the files they are read from, and what is refused."""

from pathlib import Path

import pytest

from envs.data.dataset import Split
from envs.errors import UserError
from rl_rec.agents import AGENTS
from rl_rec.comparison import REFERENCES
from tuning.study_plan import StudyPlan
from tuning.sweep import Case, Sweep
from tuning.sweep_files import find_sweep
from tuning.sweeps import SWEEPS

GRID = Sweep(
    name="noise",
    question="How much?",
    grid={"agent.exploration.sigma": (0.0, 0.1, 1e-05), "agent.exploration.effect": ("categorical", "topk")},
    compare_to="sigma0.1-topk",
)


def test_a_grid_is_every_combination():
    assert list(GRID.places()) == [
        "sigma0-categorical",
        "sigma0-topk",
        "sigma0.1-categorical",
        "sigma0.1-topk",
        "sigma1e-05-categorical",
        "sigma1e-05-topk",
    ]
    plan = GRID.plan(Path("sim"), seeds=2, steps=3000)
    assert next(iter(plan.variants)) == "sigma0.1-topk"  # what the others are compared to
    exploration = plan.variants["sigma1e-05-topk"].settings.agent.exploration
    assert (exploration.sigma, exploration.effect) == (1e-5, "topk")
    assert (plan.seeds, plan.base.steps, plan.episodes, len(plan.cells())) == (2, 3000, 2048, 12)
    assert plan.places["sigma0-topk"] == {"agent.exploration.sigma": 0.0, "agent.exploration.effect": "topk"}
    assert (plan.name, plan.question, plan.split) == ("noise", "How much?", Split.TEST)


def test_a_value_keeps_all_its_digits():
    sweep = Sweep(name="x", question="?", grid={"agent.gamma": (0.123456789, 0.5)})
    assert sweep.plan(Path("sim")).variants["gamma0.123457"].settings.agent.gamma == 0.123456789


def test_cases_meet_every_value_of_the_grid():
    sweep = Sweep(
        name="both",
        question="?",
        cases={"a": Case(), "b": Case(algorithm="ddpg", set=("agent.policy_weight=2",))},
        grid={"agent.gamma": (0.5, 0.9)},
        set=("agent.tau=0.5",),
    )
    plan = sweep.plan(Path("sim"), Split.VALIDATION, ["world.repeats=allow"])
    assert list(plan.variants) == ["a-gamma0.5", "a-gamma0.9", "b-gamma0.5", "b-gamma0.9"]
    settings = plan.variants["b-gamma0.5"].settings
    assert (settings.agent.gamma, settings.agent.policy_weight, settings.agent.tau) == (0.5, 2.0, 0.5)
    assert [v.agent.name for v in plan.variants.values()] == ["hac", "hac", "ddpg", "ddpg"]
    assert plan.base.world.repeats == "allow" and plan.split is Split.VALIDATION


@pytest.mark.parametrize("name", SWEEPS)
def test_every_sweep_that_comes_along_has_valid_settings(name, simulator):
    from envs import world_folder

    sweep = SWEEPS[name]
    assert sweep.name == name and sweep.question.endswith("?")
    plan = sweep.plan(simulator, assignments=["world.history_length=4"], seeds=1)
    if isinstance(plan, StudyPlan):
        assert not set(plan.variants) & set(REFERENCES)
    plan.check(world_folder.load(simulator))


def test_all_agents_are_compared_in_baselines():
    assert set(SWEEPS["baselines"].cases) == set(AGENTS)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, "a sweep needs cases or a grid"),
        ({"grid": {"agent.gamma": []}}, r"agent\.gamma takes no values"),
        ({"grid": {"agent.gamma": [0.5, 0.5]}}, r"agent\.gamma takes a value twice"),
        ({"grid": {"world.max_steps": [5, 9]}}, "compare worlds with rl-rec study --world"),
        ({"cases": {"a b": {}}}, "made of letters, digits"),
        ({"cases": {"a": {}}, "compare_to": "b"}, "compare_to='b' is no variant"),
        ({"cases": {"a": {"sets": []}}}, r"did you mean 'cases\.a\.set'"),
        ({"cases": {"a": {}}, "seed": 3}, "did you mean 'seeds'"),
        ({"cases": {"a": {}}, "question": ""}, "question"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused(fields, problem):
    with pytest.raises(UserError, match=problem):
        Sweep.from_mapping({"name": "x", "question": "?", **fields})


def test_unknown_settings_are_refused_with_the_nearest():
    sweep = Sweep(name="x", question="?", grid={"agent.exploration.sgima": (0.1, 0.2)})
    with pytest.raises(UserError, match=r"did you mean 'agent\.exploration\.sigma'"):
        sweep.plan(Path("sim"))


YAML = """
name: mine
question: Does it help?
algorithm: ddpg
cases:
  plain: {}
  topk: {set: [agent.exploration.effect=topk]}
grid:
  agent.gamma: [0.5, 0.9]
steps: 2000
"""


def test_a_yaml_file_is_a_sweep(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(YAML)
    sweep = find_sweep(str(path))
    assert list(sweep.places()) == ["plain-gamma0.5", "plain-gamma0.9", "topk-gamma0.5", "topk-gamma0.9"]
    plan = sweep.plan(Path("sim"))
    assert plan.variants["topk-gamma0.5"].settings.agent.exploration.effect == "topk"
    assert plan.base.steps == 2000


def test_a_python_file_is_a_sweep(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from tuning.sweep import Case, Sweep\n"
        "made = {f'g{g}': Case(set=(f'agent.gamma=0.{g}',)) for g in (1, 2)}\n"
        "SWEEP = Sweep(name='mine', question='?', cases=made)\n"
    )
    assert list(find_sweep(str(path)).places()) == ["g1", "g2"]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("basline", None, r"no .yaml or .py file .*'basline'; did you mean 'baselines'\? \(valid: baselines, "),
        ("no.yaml", None, "cannot read .*no.yaml: No such file"),
        ("no.py", None, "cannot read .*no.py: no such file"),
        ("a.yaml", b"name: [", "is not YAML"),
        ("a.yaml", b"- 1", "holds no sweep"),
        ("a.yaml", b"\xff\xfe", "is not UTF-8 text"),
        ("a.yaml", b"name: x\nquestion: y\ngrid: {agent.gamma: 3}", "a.yaml: grid"),
        ("a.yaml", b"name: x\ngrid: {a: [1]}\ngrid: {b: [2]}", "'grid' stands there twice"),
        ("a.yaml", b"name: x\nspace: {agent.gamma: {low: 1}}\nquestion: y", "a.yaml: space: agent.gamma.high"),
        (
            "a.py",
            b"from tuning.sweep import Sweep\nSWEEP = Sweep(name='x', question='')",
            "a.py: Sweep.question",
        ),
        ("a.py", b"1 / 0", "cannot be run: ZeroDivisionError"),
        ("a.py", b"SWEEP = 3", "does not define SWEEP"),
    ],
)
def test_what_is_no_sweep_is_refused_in_one_line(tmp_path, monkeypatch, name, content, problem):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path(name).write_bytes(content)
    with pytest.raises(UserError, match=problem) as raised:
        find_sweep(name)
    assert "\n" not in str(raised.value)
