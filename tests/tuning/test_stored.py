"""What of a trial is stored, and when: results, checkpoints, what it begins with. No Ray runs."""

import json
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from pyarrow.fs import LocalFileSystem

from envs.notice import NOTICE
from envs.storage.location import Url
from envs.storage.patience import patient
from envs.storage.working_copy import working_copy
from tuning import stored
from tuning.experiment import tune_storage
from tuning.stored import ResultsFirst, StartFrom, TellUnsaved


@pytest.mark.parametrize("behind_a_url", [False, True])
@pytest.mark.parametrize(
    ("report", "stored"),
    [
        ({"training_iteration": 5}, True),
        ({"training_iteration": 6}, False),
        ({"training_iteration": 6, "done": True}, True),
        ({"training_iteration": 6, "should_checkpoint": True}, True),
    ],
)
def test_results_are_stored_before_the_checkpoint_that_they_are_of(tmp_path, behind_a_url, report, stored):
    """Tune has the trial save when its callbacks have returned."""
    staging, folder = tmp_path / "staging", tmp_path / "trial"
    staging.mkdir()
    folder.mkdir()
    filesystem = patient(LocalFileSystem()) if behind_a_url else LocalFileSystem()
    storage = SimpleNamespace(
        trial_fs_path=str(folder), custom_fs_provided=behind_a_url, storage_filesystem=filesystem
    )
    trial = Mock(storage=storage, local_path=str(staging), checkpoint_freq=5, config={})
    results = ResultsFirst()
    results._restore_from_remote = Mock()  # type: ignore[method-assign]
    results.on_trial_result(0, [], trial, report)
    assert [json.loads(path.read_text()) for path in folder.iterdir()] == ([report] if stored else [])
    results.on_trial_complete(0, [], trial)
    shutil.rmtree(folder)  # or the disk is full: the checkpoint counts all the same
    results.on_checkpoint(0, [], trial)
    assert (
        behind_a_url or not folder.exists()
    )  # a disk that is away must not be written to where it was mounted


@pytest.fixture
def uploads(monkeypatch):
    """Those of results; what is in ``problem`` is raised."""
    found = SimpleNamespace(count=0, problem=None, thread=None)

    def upload(*_):
        found.count += 1
        found.thread = threading.current_thread()
        if found.problem is not None:
            raise found.problem

    monkeypatch.setattr(stored, "upload_newest", upload)
    return found


@pytest.fixture
def trial(tmp_path):
    """One behind a URL."""
    storage = SimpleNamespace(
        trial_fs_path="bucket/trial", custom_fs_provided=True, storage_filesystem=LocalFileSystem()
    )
    (tmp_path / "result.json").write_text("{}")
    return SimpleNamespace(storage=storage, local_path=str(tmp_path), trial_id="id")


def test_the_results_of_a_checkpoint_are_stored_once(trial, uploads):
    results = ResultsFirst()
    results.on_checkpoint(0, [], trial)
    results.on_checkpoint(0, [], trial)
    assert uploads.count == 1 and uploads.thread is not threading.main_thread()
    (Path(trial.local_path) / "result.json").write_text("{}{}")
    results.on_checkpoint(0, [], trial)
    assert uploads.count == 2


def test_what_a_package_of_fsspec_raises_does_not_end_the_experiment(trial, uploads, caplog):
    uploads.problem = ValueError("no such account")
    results = ResultsFirst()
    results.on_checkpoint(0, [], trial)
    assert "the next checkpoint brings its results along: no such account" in caplog.text
    uploads.problem = None
    results.on_checkpoint(0, [], trial)
    assert uploads.count == 2


def test_with_a_notice_to_end_nobody_waits_twice_for_storage_that_is_away(trial, uploads, monkeypatch):
    uploads.problem = OSError("timed out")
    results = ResultsFirst()
    monkeypatch.setattr(stored, "NOTICE", SimpleNamespace(given=True))
    results.on_checkpoint(0, [], trial)
    results.on_checkpoint(0, [], trial)
    assert uploads.count == 1


def test_with_a_notice_to_end_nothing_is_pulled(tmp_path, monkeypatch):
    monkeypatch.setenv("RL_REC_CACHE", str(tmp_path / "cache"))
    try:
        with working_copy(Url(f"file://{tmp_path}/bucket")) as copy:
            copy.mkdir()
            with tune_storage(copy):
                (tmp_path / "bucket" / "theirs").write_text("by a trial")
                NOTICE.give()
            assert not (copy / "theirs").exists()
    finally:
        NOTICE.withdraw()
    assert (tmp_path / "bucket" / "theirs").exists()


@pytest.mark.parametrize(("stored", "told"), [(5, False), (3, True), (None, True)])
def test_a_trial_that_was_stopped_early_says_that_its_last_checkpoint_is_missing(caplog, stored, told):
    """It reports nothing more that could."""
    metrics = {"training_iteration": stored, "num_env_steps_sampled_lifetime": 300}
    newest = None if stored is None else SimpleNamespace(metrics=metrics)
    last = {"training_iteration": 5, "num_env_steps_sampled_lifetime": 1500}
    trial = SimpleNamespace(last_result=last, latest_checkpoint_result=newest)
    TellUnsaved().on_trial_complete(0, [], trial)
    assert ("ended after 1,500 user-steps without having stored its last checkpoint" in caplog.text) == told


def test_a_run_begins_anew_from_its_storage_not_from_this_machine(tmp_path, monkeypatch):
    bucket = tmp_path / "bucket"
    (bucket / "trial" / "start").mkdir(parents=True)
    (bucket / "trial" / "start" / "weights").write_text("the only ones")
    monkeypatch.setenv("RL_REC_CACHE", str(tmp_path / "cache"))
    with working_copy(Url(f"file://{bucket}")) as copy:
        begins = StartFrom(copy / "trial" / "start")
    trial = SimpleNamespace(checkpoint=None)
    begins.on_trial_start(0, [], trial)
    with trial._restore_checkpoint_result.checkpoint.as_directory() as there:  # the working copy is gone
        assert (Path(there) / "weights").read_text() == "the only ones"
    known = SimpleNamespace(checkpoint="a newer one")
    begins.on_trial_start(0, [], known)
    assert vars(known) == {"checkpoint": "a newer one"}
