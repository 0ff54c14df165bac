"""What the measurement of scaling makes of a run's results."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from matplotlib.figure import Figure

from envs.errors import Terminated
from envs.notice import NOTICE
from tuning import scaling
from tuning.scaling import Point, _mean, _reported, measure_all, measure_point
from tuning.scaling_report import _draw_curve, _draw_measured


def test_iterations_without_an_update_have_no_update_time():
    results = [{"time/update_s": 1.0}, {"time/update_s": math.nan}, {}]
    assert _reported(results, "time/update_s") == [1.0]
    assert _mean(results, "time/update_s") == 1.0
    assert _mean(results, "time/sync_s") is None


def test_points_are_named_by_their_learners():
    points = [Point(0, "sync", 1), Point(2, "sync", 2), Point(2, "async", 0)]
    assert list(map(str, points)) == ["local, 1 learner", "2 sync, 2 learners", "2 async"]


def row(runners: int, learners: int, speed: float) -> dict:
    what = {"runners": runners, "mode": "sync", "learners": learners}
    return what | dict.fromkeys(("user_steps_per_s", "slowest", "fastest", "predicted"), speed)


def test_every_kind_has_a_line_of_its_own_in_the_picture():
    rows = [row(0, 0, 1.0), row(1, 0, 2.0), row(0, 1, 3.0), row(1, 1, 4.0)]
    knees = [{**row(1, learners, 2.0), "bottleneck": "learner"} for learners in (0, 1)]
    measured, curve = Figure().subplots(1, 2)
    _draw_measured(measured, {"points": rows, "cores": 2})
    _draw_curve(curve, {"curve": [row(1, 0, 2.0), row(1, 1, 2.0)], "knees": knees})
    labels = [text.get_text() for text in measured.get_legend().get_texts()]
    assert {"no remote runner", "no remote runner, 1 learner", "sync, 1 learner, measured"} <= set(labels)
    across = [line for line in measured.get_lines() if line.get_color() == "grey"]
    assert [line.get_ydata()[0] for line in across] == [1.0, 3.0]
    assert list(measured.get_xticks()) == [1] and measured.get_ylim() == (0, 4.4)
    under, over = curve.get_lines()[:2]
    assert under.get_linewidth() > over.get_linewidth() and under.get_linestyle() != over.get_linestyle()
    assert [text.get_text() for text in curve.texts] == ["sync: learner", "sync, 1 learner: learner"]


@pytest.mark.parametrize("notice", [True, False])
def test_after_a_notice_nobody_waits_for_actors_that_ray_may_no_longer_reach(notice):
    stopped = []

    def train() -> None:
        if notice:
            NOTICE.give()
        raise Terminated

    algorithm = SimpleNamespace(updates=0, train=train, stop=lambda: stopped.append(True))
    config = SimpleNamespace(build_algo=lambda: algorithm, recommender=lambda *_: config)
    agent: Any = SimpleNamespace(rllib_config=lambda: config)
    settings: Any = None
    simulator: Any = "sim"
    try:
        with pytest.raises(Terminated):
            measure_point(agent, simulator, settings, 1.0)
    finally:
        NOTICE.withdraw()
    assert bool(stopped) != notice


def test_progress_names_what_is_being_measured(monkeypatch):
    monkeypatch.setattr(scaling, "measure_point", lambda *_: {})
    told: list[tuple[int, int, str]] = []
    runs: Any = dict.fromkeys((Point(0, "sync", 0), Point(1, "async", 0)))
    agent: Any = None

    def progress(done: int, total: int, message: str = "") -> None:
        told.append((done, total, message))

    list(measure_all(agent, Path(), runs, 1.0, 1, progress))
    assert told == [(0, 2, "now local"), (1, 2, "now 1 async"), (2, 2, "")]
