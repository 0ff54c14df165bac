"""The model of throughput, against numbers worked out by hand."""

import math
from dataclasses import replace

import pytest

from tuning.scaling_model import LEVERS, Costs, Layout, curve, knee, per_busiest_cpu_s, predict, update_s
from tuning.scaling_report import parse_bandwidth

# A fragment of 100 transitions takes its runner 1 s; it owes two updates of 0.05 s.
COSTS = Costs(
    rows=100,
    runner_s=1.0,
    latency_s=0.1,
    handle_s=0.02,
    send_s=0.01,
    publish_s=0.03,
    update_s=0.05,
    update_fixed=0.4,
    report_s=0.0001,
    fragment_bytes=1e6,
    weights_bytes=2e6,
    gradient_bytes=3e6,
)
LAYOUT = Layout(runners=1, mode="async", in_flight=2, ratio=0.5, batch_size=25)


def test_without_remote_runners_everything_happens_in_turn():
    found = predict(COSTS, replace(LAYOUT, runners=0, mode="sync", in_flight=1))
    assert found.user_steps_per_s == pytest.approx(100 / (1.0 + 0.1 + 100 * 0.0001))
    assert found.bottleneck == "runners"


def test_in_step_a_round_lasts_as_long_as_its_parts():
    """Four runners sample for 1 s; the driver handles, updates and sends for each, and publishes once."""
    found = predict(COSTS, replace(LAYOUT, runners=4, mode="sync", in_flight=1))
    per_fragment = 0.02 + 2 * 0.01 + 2 * 0.05 + 100 * 0.0001
    assert found.user_steps_per_s == pytest.approx(400 / (1.0 + 0.1 + 4 * per_fragment + 0.03))
    assert found.bottleneck == "runners"


def test_in_step_two_cores_serve_four_runners_in_two_turns():
    wide, narrow = (
        predict(COSTS, replace(LAYOUT, runners=4, mode="sync", in_flight=1, cores=c)) for c in (math.inf, 2)
    )
    assert 400 / narrow.user_steps_per_s - 400 / wide.user_steps_per_s == pytest.approx(1.0)


def test_in_step_rounds_share_a_message_of_weights():
    """0.2 updates a fragment are 0.8 a round of four, and as many messages to each runner."""
    found = predict(COSTS, replace(LAYOUT, runners=4, mode="sync", in_flight=1, ratio=0.05))
    per_fragment = 0.02 + 0.01 * (1 + 0.8) + 0.2 * 0.05 + 100 * 0.0001
    assert found.user_steps_per_s == pytest.approx(400 / (1.0 + 0.1 + 4 * per_fragment + 0.8 * 0.03))


def test_out_of_step_the_slowest_part_decides():
    """The driver takes 2R fragments at once where they queue up: one publication, R messages.

    Of seven runners each costs it 0.02 + 1.5 · 0.01 + 0.03 / 14 + 0.01 of its own, and 0.1 of updates.
    """
    for runners, seconds, part in ((1, 1.0, "runners"), (6, 1 / 6, "runners"), (7, 0.147143, "learner")):
        found = predict(COSTS, replace(LAYOUT, runners=runners))
        assert found.user_steps_per_s == pytest.approx(100 / seconds, rel=1e-4)
        assert found.bottleneck == part
    assert knee(COSTS, LAYOUT) == 7


def test_the_busiest_process_decides_where_nobody_waits():
    """In CPU seconds: a runner's 1 s a fragment, shared by R; 0.1 of updates, and the driver's own."""
    for layout, seconds in (
        (LAYOUT, 1.0),
        (replace(LAYOUT, runners=100), 0.045 + 0.03 / 200 + 0.1),
        (replace(LAYOUT, runners=100, learners=1), 0.1),
        (replace(LAYOUT, runners=0, mode="sync"), 1.11),
    ):
        assert per_busiest_cpu_s(COSTS, layout) == pytest.approx(100 / seconds)


def test_rarer_updates_make_the_driver_the_bottleneck():
    few = replace(LAYOUT, runners=100, ratio=0.05)  # 0.2 updates a fragment, 40 for 200
    found = predict(COSTS, few)
    assert found.bottleneck == "driver"
    assert found.user_steps_per_s == pytest.approx(100 / (0.02 + 0.01 * 1.5 + 0.03 / 200 + 0.01 + 0.01))
    rarer = predict(COSTS, replace(few, sync_every=80))
    assert 100 / found.user_steps_per_s - 100 / rarer.user_steps_per_s == pytest.approx(
        0.25 * 0.01 + 0.03 / 400
    )


def test_one_request_in_flight_waits_for_its_way_and_the_driver():
    found = predict(COSTS, replace(LAYOUT, in_flight=1))
    assert found.bottleneck == "request"
    assert found.user_steps_per_s == pytest.approx(100 / (1.0 + 0.1 + 0.18))


def test_two_cores_hold_no_more_work_than_two_seconds_a_second():
    found = predict(COSTS, replace(LAYOUT, runners=2, cores=2))
    assert found.bottleneck == "cores"
    assert found.user_steps_per_s == pytest.approx(
        100 / ((1.0 + 0.02 + 1.5 * 0.01 + 0.03 / 4 + 0.01 + 0.1) / 2)
    )


def test_rounds_asked_ahead_overlap_with_learning():
    """Two runners in step: 1 s of sampling hides all that the driver does."""
    found = predict(COSTS, replace(LAYOUT, runners=2, mode="sync"))
    assert found.user_steps_per_s == pytest.approx(200)


def test_the_network_and_the_object_store_carry_fragments_and_weights():
    narrow = predict(COSTS, replace(LAYOUT, runners=2, bandwidth=2e6))  # 1 MB + 2 MB / 2 a fragment
    assert narrow.bottleneck == "network" and narrow.user_steps_per_s == pytest.approx(100)
    slow = predict(replace(COSTS, store_bytes_per_s=1e6), replace(LAYOUT, runners=2))
    assert slow.bottleneck == "object store" and slow.user_steps_per_s == pytest.approx(50)


def test_learners_share_what_is_not_fixed_and_average_gradients():
    assert update_s(COSTS, 0, math.inf) == update_s(COSTS, 1, 1.0) == 0.05
    assert update_s(COSTS, 2, math.inf) == pytest.approx(0.05 * (0.4 + 0.3))
    assert update_s(COSTS, 4, 1e9) == pytest.approx(0.05 * (0.4 + 0.15) + 1.5 * 3e6 / 1e9)


def test_a_curve_names_the_gain_and_what_moves_the_bottleneck():
    rows = curve(COSTS, [replace(LAYOUT, runners=count) for count in (0, 1, 4, 256)])
    assert [row["speedup"] for row in rows] == [
        None,
        1.0,
        pytest.approx(4.0),
        pytest.approx(1 / (0.145 + 0.03 / 512)),
    ]
    assert rows[-1]["lever"] == LEVERS["learner"]
    assert knee(replace(COSTS, runner_s=1e6), LAYOUT, most=50) is None


def test_bandwidths():
    assert parse_bandwidth("10Gbit") == 1.25e9
    assert parse_bandwidth("500MB") == 5e8
    assert parse_bandwidth("8bit") == 1
    for wrong in ("10", "fast", "-1Gbit", "Gbit", "infbit"):
        with pytest.raises(ValueError):
            parse_bandwidth(wrong)
