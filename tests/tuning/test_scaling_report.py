"""What is made of measured blocks."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
from rich.console import Console

from rl_rec.agents import find_agent
from tests.tuning.test_scaling_model import COSTS
from tuning.scaling import Point
from tuning.scaling_report import summarise
from tuning.scaling_tables import doubt, few_blocks, render, telling

ONE, TWO = Point(1, "sync", 0), Point(2, "sync", 0)


def block(speed: float | None) -> dict[str, Any]:
    seconds = dict.fromkeys(("sample_latency_s", "sample_s", "weights_latency_s"), 0.9876)
    parts = ("rollout_s", "replay_s", "update_s", "sync_s", "rest", "learner_idle")
    return {
        **seconds,
        **dict.fromkeys(parts, 1.0),
        **{"updates_per_s": 1234.5, "replay_ratio": 0.00937, "staleness_updates": 123.4},
        "user_steps_per_s": speed,
        "per_busiest_cpu_s": speed,
        "ratio_held": speed is not None,
        "costs": vars(COSTS),
        "costs_cpu": vars(COSTS),
    }


def found(speeds: dict[Point, list[float | None]], counts: Sequence[int] = (1, 2)) -> dict[str, Any]:
    settings = find_agent("hac").train_settings()
    blocks = {point: [block(speed) for speed in of_point] for point, of_point in speeds.items()}
    runs = {point: point.settings(settings) for point in blocks}
    return summarise(blocks, runs, cores=2, counts=counts, bandwidth=math.inf)


def rows(ones: list[float | None], twos: list[float | None]) -> list[dict[str, Any]]:
    return found({ONE: ones, TWO: twos})["points"]


def test_a_machine_that_slows_down_does_so_for_both_sides_of_a_speed_up():
    """Ratios of the turns 1.5, 1.9 and 1.8; the medians' is 150 / 100."""
    one, two = rows([100.0, 100.0, 50.0], [150.0, 190.0, 90.0])
    assert (two["speedup"], two["speedup_least"], two["speedup_most"]) == pytest.approx((1.8, 1.5, 1.9))
    assert two["efficiency"] == pytest.approx(0.9)
    assert one["speedup"] == one["speedup_least"] == one["efficiency"] == 1.0


def test_the_last_turn_may_be_cut_short():
    assert rows([100.0, 100.0], [160.0])[1]["speedup"] == pytest.approx(1.6)


def test_no_speed_up_where_the_ratio_was_off():
    assert rows([100.0, None], [160.0, 170.0])[1]["speedup"] is None


def test_a_model_that_misses_what_was_measured_says_so():
    assert doubt([{"error_percent": None}, {"error_percent": -29.0}]) is None
    told = doubt([{"error_percent": 5.0}, {"error_percent": -117.4}])
    assert told == "the model is up to 117% off what was measured: do not count on what it predicts"


@pytest.mark.parametrize("learners", [0, 2])
def test_tables_are_whole_at_80_columns(learners):
    """Twice as wide, every value is the same: none is cut, only names of points are on two lines."""
    speeds: list[float | None] = [99_999.0, 100_000.0, 150_000.0]
    points = [Point(0, "sync", learners), Point(1, "async", learners), Point(16, "async", learners)]
    shown = render(found(dict.fromkeys(points, speeds), [1, 256]))
    texts = {}
    for width in (80, 160):
        console = Console(width=width)
        with console.capture() as capture:
            console.print(shown)
        texts[width] = capture.get()
    assert "…" not in texts[80]
    assert sorted(texts[80].split()) == sorted(texts[160].split())
    assert "99,999–150,000" in texts[80] and "16 async" in texts[80]


def test_a_curve_does_not_repeat_itself():
    """Speed-ups as shown: 1.0, 2.0, then three of 2.5, of which the middle one says nothing more."""
    speedups = [1.0, 2.0, 2.51, 2.52, 2.53]
    curve = [
        {"runners": 2**index, "mode": mode, "learners": 0, "speedup": speedup, "bottleneck": "learner"}
        for mode in ("sync", "async")
        for index, speedup in enumerate(speedups)
    ]
    assert [(row["mode"], row["runners"]) for row in telling(curve)] == [
        (mode, runners) for mode in ("sync", "async") for runners in (1, 2, 4, 16)
    ]


def test_a_knee_at_the_first_runner_is_told_in_the_singular():
    result = found({ONE: [100.0, 100.0, 100.0]})
    result["knees"][0] |= {"runners": 1, "bottleneck": "learner"}
    console = Console(width=160)
    with console.capture() as capture:
        console.print(render(result))
    assert "sync: from 1 runner on the bottleneck is the learner" in capture.get()


def test_few_blocks_are_told_once():
    assert few_blocks([{"repeats": 4}, {"repeats": 3}]) is None
    told = few_blocks([{"repeats": 2}, {"repeats": 1}])
    assert told == "some points have only 1 block: so few tell little (--repeats)"
