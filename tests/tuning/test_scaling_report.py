"""What is made of measured blocks."""

import math
from typing import Any

import pytest

from rl_rec.agents import find_agent
from tests.tuning.test_scaling_model import COSTS
from tuning.scaling import Point
from tuning.scaling_report import doubt, summarise

ONE, TWO = Point(1, "sync", 0), Point(2, "sync", 0)


def block(speed: float | None) -> dict[str, Any]:
    return {
        "user_steps_per_s": speed,
        "per_busiest_cpu_s": speed,
        "ratio_held": speed is not None,
        "costs": vars(COSTS),
        "costs_cpu": vars(COSTS),
    }


def rows(ones: list[float | None], twos: list[float | None]) -> list[dict[str, Any]]:
    settings = find_agent("hac").train_settings()
    blocks = {ONE: [block(speed) for speed in ones], TWO: [block(speed) for speed in twos]}
    runs = {point: point.settings(settings) for point in blocks}
    return summarise(blocks, runs, cores=2, counts=[1, 2], bandwidth=math.inf)["points"]


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
