"""Failures in a row, and why a trial failed although its folder is full. No Ray."""

import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest

from tuning.retries import Failures


def test_a_trial_that_saved_again_may_fail_again():
    trial = SimpleNamespace(run_metadata=SimpleNamespace(num_failures=1))
    Failures().on_checkpoint(0, [trial], trial)
    assert trial.run_metadata.num_failures == 0


@pytest.mark.parametrize("pickled", [True, False])
def test_the_reason_is_read_beside_tunes_own_notes(tmp_path: Path, pickled: bool):
    (tmp_path / "error.pkl").write_bytes(pickle.dumps(OSError(28, "full")) if pickled else b"torn")
    (tmp_path / "error.txt").write_text("Failure # 1\nOSError: full")
    files = {"pickled_error_file": str(tmp_path / "error.pkl"), "error_file": str(tmp_path / "error.txt")}
    trial = SimpleNamespace(path="/gone/trial-000", **files)
    with Failures.noted() as failures:
        Failures().on_trial_error(0, [trial], trial)
    assert list(failures) == ["trial-000"] and "full" in str(failures["trial-000"])
    with Failures.noted() as failures:
        assert failures == {}
