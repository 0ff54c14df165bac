"""What the measurement of scaling makes of a run's results."""

import math

from tuning.scaling import _mean, _reported


def test_iterations_without_an_update_have_no_update_time():
    results = [{"time/update_s": 1.0}, {"time/update_s": math.nan}, {}]
    assert _reported(results, "time/update_s") == [1.0]
    assert _mean(results, "time/update_s") == 1.0
    assert _mean(results, "time/sync_s") is None
