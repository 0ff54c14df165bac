"""Searches: what they draw, what is refused, schedulers by hand, and small ones on Tune."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from ray.tune.schedulers import TrialScheduler

from envs import world_folder
from envs.data.dataset import Split
from envs.errors import UserError
from rl_rec.cli.main import main
from rl_rec.run_folder import RunFolder, read_results
from tuning.report import write_report
from tuning.schedulers import make_scheduler, perturbation
from tuning.search import Range, Search
from tuning.search_run import _best, _optuna, read_search, search
from tuning.sweep_files import find_sweep
from tuning.trial import SCORE, user_steps

LR, CRITIC_LR = "agent.actor_lr", "agent.critic_lr"
RATES = Search(
    name="rates",
    question="Which step size?",
    space={LR: Range(low=1e-4, high=1e-1, log=True), "agent.gamma": (0.0, 0.5, 0.9)},
    trials=200,
    seeds=2,
)


def test_draws_stay_inside_and_fill_the_range():
    drawn = RATES.candidates()
    rates = np.array([values[LR] for values in drawn])
    assert len(drawn) == 200 and 1e-4 <= rates.min() < 2e-4 and 5e-2 < rates.max() <= 1e-1
    assert 0.4 < np.mean(rates < math.sqrt(1e-4 * 1e-1)) < 0.6  # half of the orders of magnitude
    assert {values["agent.gamma"] for values in drawn} == {0.0, 0.5, 0.9}
    assert drawn == RATES.candidates() != RATES.model_copy(update={"seed": 1001}).candidates()


def test_a_range_of_whole_numbers():
    levels = Range(low=2, high=4, integer=True)
    generator = np.random.default_rng(0)
    assert {levels.draw(generator) for _ in range(50)} == {2, 3, 4}
    assert all(isinstance(levels.draw(generator), int) for _ in range(5))
    assert (levels.clip(9.0), levels.clip(2.6)) == (4, 3)
    drawn = [levels.draw(generator) for _ in range(300)]
    assert all(70 < drawn.count(level) < 130 for level in (2, 3, 4))  # the ends as often as the middle


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"space": {}}, "space"),
        ({"space": {LR: {"low": 1, "high": 1}}}, "low=1 is not below high=1"),
        ({"space": {LR: {"low": 0, "high": 1, "log": True}}}, "log needs low above 0"),
        ({"space": {LR: {"low": 0.5, "high": 2, "integer": True}}}, "whole ends"),
        ({"space": {LR: [0.1]}}, "fewer than two values"),
        ({"space": {"world.max_steps": [5, 10]}}, r"world\.max_steps cannot be searched"),
        ({"space": {"steps": [5, 10]}}, "steps cannot be searched"),
        ({"space": {"rollout.runners": [0, 1]}}, "runners cannot be searched"),
        ({"trials": 3}, "trials=3, but the space has 2 points: sweep them as a grid"),
        ({"rung": 50_000}, "rung=50000 lies behind the end, steps=40000: lower it"),
        ({"space": {LR: [0.1, 0.1, 0.2]}}, "agent.actor_lr takes a value twice"),
        ({"space": {LR: {"low": 1, "high": 2, "hihg": 3}}}, "did you mean 'agent.actor_lr.high'"),
        ({"space": {LR: 0.5}}, r"takes a range, \{low: ..., high: ...\}, or a list of values, got 0.5"),
        ({"space": LR}, "a space names settings"),
        ({"finalists": 3}, "finalists=3 of trials=2"),
        ({"seed": 3}, "one of the second stage's"),
        ({"scheduler": "pbt", "searcher": "optuna"}, "searcher must be random"),
        ({"scheduler": "ashs"}, "asha"),
        ({"trial": 3}, "did you mean 'trials'"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(fields, problem):
    whole = {"name": "x", "question": "?", "space": {LR: [0.1, 0.2]}, "trials": 2}
    with pytest.raises(UserError, match=problem):
        Search.from_mapping({**whole, **fields})


@pytest.mark.parametrize(
    ("space", "fields", "problem"),
    [
        ({"agent.actor_rl": (0.1, 0.2)}, {}, r"did you mean 'agent\.actor_lr'"),
        ({LR: Range(low=-1, high=1)}, {}, "actor_lr"),
        ({"agent.encoder.dim": (8, 16)}, {"scheduler": "pbt"}, r"pbt cannot vary agent\.encoder\.dim"),
        ({"rollout.users": (10, 10_000)}, {}, "transitions at once"),
        ({"replay.ratio": (1.0, 2.0)}, {"scheduler": "pbt"}, r"pbt cannot vary replay\.ratio"),
        ({LR: Range(low=0.1, high=0.10000000000000002)}, {"trials": 5}, "hardly has 5 points"),
        ({LR: (0.1, 0.2)}, {"rung": 50}, "judged after 50 user-steps, before learning begins"),
        (  # neither end clashes
            {"agent.critic_action": ("effect", "hyper"), "agent.policy_action": ("soft_effect", "hyper")},
            {"trials": 4},
            r"a candidate with agent\.critic_action=hyper, agent\.policy_action=soft_effect cannot train",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_training(simulator, small_run, space, fields, problem):
    fields = {"trials": 2, "steps": 200, "rung": 100, **fields}
    made = Search(name="x", question="?", space=space, set=tuple(small_run), **fields)
    with pytest.raises(UserError, match=problem):
        made.plan(simulator).check(world_folder.load(simulator))


def test_what_varies_cannot_be_set_for_all():
    with pytest.raises(UserError, match="is what the sweep rates varies"):
        RATES.plan(Path("sim"), assignments=[f"{LR}=0.1"])
    with pytest.raises(UserError, match="steps belongs to the search rates itself"):
        RATES.plan(Path("sim"), assignments=["steps=300"])


def test_candidates_are_judged_on_validation_users_and_the_best_on_others():
    plan = RATES.plan(Path("sim"), assignments=["evaluation.every=0", "agent.tau=0.5"], steps=20_000)
    base = plan.base
    assert (base.steps, base.seed, base.evaluation.every, base.report_every) == (20_000, 1000, 2500, 2500)
    assert base.evaluation.episodes == plan.search.validation_episodes == 512
    finals = plan.finals([{LR: 0.01, "agent.gamma": 0.5}])
    assert list(finals.variants) == ["default", "found-1"] and finals.split is Split.TEST
    found, default = (finals.variants[name].settings for name in ("found-1", "default"))
    assert (found.agent.actor_lr, found.agent.gamma, found.agent.tau) == (0.01, 0.5, 0.5)
    assert default.agent.actor_lr != 0.01 and found.evaluation.every == 0
    assert finals.seeds == 2 and plan.search.seed not in range(finals.seeds)


def test_the_best_trained_to_the_end():
    made = RATES.model_copy(update={"finalists": 2}).plan(Path("sim"))

    def trial(state: str, score: float | None, rate: float, problem: str | None = None) -> dict[str, Any]:
        looks = [] if score is None else [[100, score]]
        return {"state": state, "score": score, "problem": problem, "values": {LR: rate}, "looks": looks}

    tried = {
        "a": trial("finished", 1.0, 0.1),
        "b": trial("stopped", 9.0, 0.2),  # early, on a lucky look
        "c": trial("finished", 3.0, 0.3),
        "d": trial("finished", 2.0, 0.4),
    }
    assert _best(made, tried) == ["c", "d"]
    default = made.base.agent.actor_lr
    same = {"e": trial("finished", 5.0, default), "f": trial("finished", 2.5, 0.3)}
    assert _best(made, tried | same) == ["c", "d"]  # one is in the second stage anyway, one is c again
    with pytest.raises(UserError, match="every candidate failed: NaN"):
        _best(made, {"a": trial("failed", None, 0.1, "NaN")})


def look(scheduler: Any, name: str, steps: int, score: float) -> str:
    trial = SimpleNamespace(trial_id=f"id {name}")
    return scheduler.on_trial_result(None, trial, {NUM_ENV_STEPS_SAMPLED_LIFETIME: steps, SCORE: score})


class Trial(SimpleNamespace):
    def __str__(self) -> str:
        return self.name


def begin(scheduler: Any, name: str) -> None:
    scheduler.on_trial_add(None, Trial(name=name, trial_id=f"id {name}"))


def test_asha_stops_whoever_is_not_among_the_best_of_a_rung():
    made = Search(name="x", question="?", space={LR: Range(low=0, high=1)}, steps=90, rung=10, reduction=3)
    scheduler = make_scheduler(made, {})
    for name in "abcd":
        begin(scheduler, name)
    assert look(scheduler, "a", 10, 5.0) == TrialScheduler.CONTINUE  # nobody to compare with
    assert look(scheduler, "b", 10, 4.0) == TrialScheduler.STOP
    assert look(scheduler, "c", 10, 6.0) == TrialScheduler.CONTINUE
    assert look(scheduler, "c", 20, 0.0) == TrialScheduler.CONTINUE  # between two rungs
    assert look(scheduler, "c", 30, 6.0) == TrialScheduler.CONTINUE
    assert look(scheduler, "a", 30, 5.0) == TrialScheduler.STOP
    assert look(scheduler, "c", 90, 9.0) == TrialScheduler.STOP  # the end


def test_a_population_is_compared_by_its_highest_scores_at_every_interval():
    made = RATES.model_copy(update={"scheduler": "pbt", "rung": 700})
    scheduler = make_scheduler(made, {})
    assert (scheduler._perturbation_interval, scheduler._metric_op, scheduler._metric) == (700, 1.0, SCORE)
    config = {"candidate": {"values": {LR: 0.01, "agent.gamma": 0.5}}}
    first, other = (perturbation(made.model_copy(update={"seed": seed})) for seed in (1000, 1001))
    assert [first(config) for _ in range(9)] != [other(config) for _ in range(9)]


def test_asha_remembers_what_came_before_a_restart():
    made = Search(name="x", question="?", space={LR: Range(low=0, high=1)}, steps=90, rung=10, reduction=3)
    past = {"a": [(10, 5.0), (30, 7.0)], "b": [(10, 4.0)], "c": [(10, 6.0)]}
    scheduler = make_scheduler(made, past)
    for name in "cd":
        begin(scheduler, name)
    # c goes on: its look at the first rung is behind it and counted once, a's at the second is a mark.
    recorded = [dict(rung) for _, rung in scheduler._brackets[0]._rungs]
    assert sorted(recorded[-1].values()) == [4.0, 5.0, 6.0] and "id c" in recorded[-1]
    assert look(scheduler, "c", 30, 6.5) == TrialScheduler.STOP
    assert look(scheduler, "d", 10, 4.5) == TrialScheduler.STOP
    fresh = make_scheduler(made, {})
    begin(fresh, "d")
    assert look(fresh, "d", 10, 4.5) == TrialScheduler.CONTINUE


def test_a_perturbation_stays_in_the_space():
    explore = perturbation(RATES.model_copy(update={"scheduler": "pbt"}))
    config = {"trial": {"kept": 1}, "candidate": {"name": "n", "values": {LR: 0.099, "agent.gamma": 0.9}}}
    drawn = [explore(config) for _ in range(300)]
    assert config["candidate"]["values"] == {LR: 0.099, "agent.gamma": 0.9}  # the donor keeps its own
    assert all(d["trial"] == {"kept": 1} and d["candidate"]["name"] == "n" for d in drawn)
    rates = [d["candidate"]["values"][LR] for d in drawn]
    assert all(1e-4 <= rate <= 1e-1 for rate in rates)
    assert sum(rate == 0.1 for rate in rates) > 60  # 0.099 · 1.25 is cut off
    assert sum(rate == pytest.approx(0.0792) for rate in rates) > 60  # 0.099 · 0.8
    gammas = [d["candidate"]["values"]["agent.gamma"] for d in drawn]
    assert set(gammas) == {0.0, 0.5, 0.9} and gammas.count(0.0) < 60  # two steps away: only drawn anew


def test_optuna_learns_from_what_it_is_told():
    made = Search(name="x", question="?", space={LR: Range(low=0.0, high=1.0)}, trials=60)
    told = [({LR: value}, -abs(value - 0.2)) for value in np.linspace(0, 1, 31)]
    searcher = _optuna(made, 31, told)
    drawn = [searcher.suggest(f"id {index}")["candidate"] for index in range(20)]
    assert [d["name"] for d in drawn[:2]] == ["trial-031", "trial-032"]
    assert np.median([abs(d["values"][LR] - 0.2) for d in drawn]) < 0.15  # drawn evenly it would be 0.3


def test_files_and_the_one_that_comes_along(tmp_path, simulator):
    path = tmp_path / "mine.yaml"
    path.write_text("name: m\nquestion: q\nspace: {agent.gamma: [0.1, 0.2], agent.tau: {low: 0.1, high: 0.2}}")
    made = find_sweep(str(path))
    assert isinstance(made, Search) and made.space["agent.tau"] == Range(low=0.1, high=0.2)
    assert made.interval == 5_000 and made.model_copy(update={"steps": 800}).interval == 100
    rates = find_sweep("learning-rates")
    assert isinstance(rates, Search) and rates.scheduler == "asha"
    rates.plan(simulator, assignments=["world.history_length=4"]).check(world_folder.load(simulator))


@pytest.fixture
def small(small_run: list[str]) -> dict[str, Any]:
    """Fields of a search that takes a moment."""
    return {
        "name": "small",
        "question": "Which step size?",
        "space": {LR: {"low": 1e-5, "high": 1e-1, "log": True}, CRITIC_LR: [1e-3, 1e-2]},
        "set": [*small_run, "evaluation.every=0"],
        "trials": 4,
        "rung": 100,
        "reduction": 2,
        "steps": 400,
        "seeds": 2,
        "seed": 50,
        "episodes": 24,
        "validation_episodes": 16,
    }


def write(folder: Path, fields: dict[str, Any]) -> Path:
    path = folder / "small.yaml"
    path.write_text(json.dumps(fields))  # JSON is YAML
    return path


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("searcher", ["random", "optuna"])
def test_a_search_finds_confirms_and_reports(ray_session, small, simulator, tmp_path, capsys, searcher):
    path, out = write(tmp_path, {**small, "searcher": searcher}), tmp_path / "out"
    command = ["sweep", str(path), "--simulator", str(simulator), "--out", str(out), "--json"]
    assert main(command) == 0
    said = json.loads(capsys.readouterr().out)
    trials = said["search"]["trials"]
    assert list(trials) == [f"trial-00{index}" for index in range(4)]
    if searcher == "random":
        drawn = find_sweep(str(path)).candidates()
        assert [trial["values"] for trial in trials.values()] == drawn
    assert {trial["state"] for trial in trials.values()} <= {"finished", "stopped"}
    finished = [name for name, trial in trials.items() if trial["state"] == "finished"]
    ranked = sorted(finished, key=lambda name: -trials[name]["score"])
    assert said["search"]["finalists"] == ranked[:2]
    for name, trial in trials.items():
        # Each trial's folder says what it was, and serves its policy.
        run = RunFolder(out / "candidates" / name)
        assert run.settings.agent.actor_lr == trial["values"][LR] and run.settings.seed == 50
        assert run.fingerprint and len(run.results()) == -(-trial["user_steps"] // 100)
        last = run.results()[-1]
        assert last[SCORE] == trial["score"] == last["evaluation"]["return_mean"]
        assert any((out / "candidates" / name).glob("events.out.tfevents.*"))  # TensorBoard
    found = RunFolder(out / "finals" / "found-1-world0-seed1").settings
    assert found.agent.actor_lr == trials[ranked[0]]["values"][LR] and found.seed == 1
    assert list(said["tables"][0]["rows"])[4:6] == ["default", "found-1"]
    page = (out / "report" / "index.html").read_text()
    assert "The search" in page and f"{ranked[0]} → found-1" in page
    assert (out / "report" / "search-actor_lr.csv").read_text().count("\n") == 5
    assert main(["evaluate", "--run", str(out / "candidates" / ranked[0]), "--episodes", "8", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["episodes"] == 8
    assert main(["train", "--resume", str(out / "candidates" / ranked[0])]) == 2
    assert "is a trial of a study" in capsys.readouterr().err
    assert main(["evaluate", "--run", str(out)]) == 2
    assert f"holds many trials: name one, as in {out / 'candidates' / 'trial-000'}" in capsys.readouterr().err

    # Done is done; another search in its place is refused, a foreign folder left alone.
    before = (out / "search.json").stat().st_mtime_ns
    assert main([*command, "--if-exists", "resume"]) == 0
    assert (out / "search.json").stat().st_mtime_ns == before
    capsys.readouterr()
    assert main([*command, "--if-exists", "resume", "--steps", "500"]) == 2
    assert "holds another sweep" in capsys.readouterr().err


@pytest.mark.ray
@pytest.mark.slow
def test_a_population_copies_and_perturbs(ray_session, small, simulator, tmp_path):
    # The end is no multiple of the interval: it is looked at all the same.
    fields = {**small, "scheduler": "pbt", "steps": 1050, "space": {LR: small["space"][LR]}, "finalists": 1}
    out = tmp_path / "out"
    result = search(Search.from_mapping(fields).plan(simulator), out)
    drawn = {values[LR] for values in Search.from_mapping(fields).candidates()}
    trials = result["search"]["trials"]
    assert {trial["state"] for trial in trials.values()} == {"finished"}
    used = {name: [r["values"][LR] for r in read_results(out / "candidates" / name)] for name in trials}
    perturbed = {rate for rates in used.values() for rate in rates} - drawn
    assert perturbed and all(1e-5 <= rate <= 1e-1 for rate in perturbed)
    for name, trial in trials.items():
        last = read_results(out / "candidates" / name)[-1]
        assert last[NUM_ENV_STEPS_SAMPLED_LIFETIME] == 1050 and trial["values"][LR] == last["values"][LR]
        assert trial["score"] == last["evaluation"]["return_mean"] and trial["looks"][-1][0] == 1050
    write_report(out, tmp_path / "report")


@pytest.mark.ray
@pytest.mark.slow
def test_killed_it_keeps_what_is_done(ray_session, small, simulator, tmp_path, capsys):
    fields = {**small, "scheduler": "fifo", "steps": 1500}
    path, straight, out = write(tmp_path, fields), tmp_path / "straight", tmp_path / "out"
    command = ["sweep", str(path), "--simulator", str(simulator), "--parallel", "1", "--json", "--out"]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    started = [sys.executable, "-m", "rl_rec.cli.main", *command, str(out)]
    process = subprocess.Popen(started, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    second, end = out / "candidates" / "trial-001", time.monotonic() + 240
    while not (read_results(second) and user_steps(second)):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=30) == -signal.SIGKILL
    worker = read_results(second)[-1]["pid"]
    while Path(f"/proc/{worker}").exists():
        assert time.monotonic() < end
        time.sleep(0.1)
    assert 0 < user_steps(second) < 1500
    kept = (out / "candidates" / "trial-000" / "result.json").stat().st_mtime_ns

    assert main([*command, str(out), "--if-exists", "resume"]) == 0
    assert (out / "candidates" / "trial-000" / "result.json").stat().st_mtime_ns == kept
    assert main([*command, str(straight)]) == 0
    assert (out / "search.json").read_bytes() == (straight / "search.json").read_bytes()
    assert (out / "finals" / "results.csv").read_bytes() == (straight / "finals" / "results.csv").read_bytes()
    assert 0 < read_results(second)[-1]["iterations_since_restore"] < 15  # it did go on
    assert read_search(out)[0].describe() == read_search(straight)[0].describe()


@pytest.mark.ray
@pytest.mark.slow
def test_what_optuna_proposes_may_clash(ray_session, small, simulator, tmp_path):
    space = {"agent.critic_action": ("effect", "hyper"), "agent.policy_action": ("soft_effect", "hyper")}
    fields = {**small, "space": space, "searcher": "optuna", "trials": 4, "steps": 100, "finalists": 1}
    trials = search(Search.from_mapping(fields).plan(simulator), tmp_path / "out")["search"]["trials"]
    clash = {"agent.critic_action": "hyper", "agent.policy_action": "soft_effect"}
    assert len(trials) == 4
    for trial in trials.values():
        assert (trial["state"] == "failed") == (trial["values"] == clash)


@pytest.mark.ray
@pytest.mark.slow
def test_candidates_that_fail_leave_the_others_alone(ray_session, small, simulator, tmp_path):
    fields = {**small, "space": {CRITIC_LR: [1e-3, 2e-3, 1e30]}, "trials": 3, "steps": 200}
    out = tmp_path / "out"
    made = Search.from_mapping(fields)
    result = search(made.plan(simulator), out)
    for trial in result["search"]["trials"].values():
        failed = trial["values"][CRITIC_LR] == 1e30
        assert (trial["state"] == "failed") == failed
        assert ("NaN or infinite" in (trial["problem"] or "")) == failed
    write_report(out, tmp_path / "report")
    assert "failed: " in (tmp_path / "report" / "report.md").read_text()
