"""What stops a run before it starts or goes on; no Ray."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from pyarrow.fs import LocalFileSystem

from envs.errors import UserError
from envs.storage.filesystem import patient
from envs.storage.location import Url
from envs.storage.working_copy import working_copy
from rl_rec.agents import find_agent
from rl_rec.checkpoint import seal
from rl_rec.provenance import write_run
from rl_rec.run_folder import RunFolder
from tuning import training
from tuning.training import check, check_resume, only_one


@pytest.fixture
def run(tmp_path: Path, simulator: Path, small_run: list[str]) -> RunFolder:
    """A run that was described and never started."""
    agent = find_agent("hac")
    path = tmp_path / "run"
    described = check(agent, simulator, agent.train_settings().with_overrides(small_run), path)
    path.mkdir()
    write_run(path, described)
    return RunFolder(path)


def test_a_run_goes_on_with_the_data_it_began_with(run: RunFolder):
    check_resume(run)


def test_other_data_at_the_same_place_is_refused(run: RunFolder):
    described = json.loads((run.path / "run.json").read_text())
    write_run(run.path, {**described, "data_fingerprint": "of other data"})
    with pytest.raises(UserError, match="was fitted on other data"):
        check_resume(RunFolder(run.path))


def test_a_second_process_is_kept_out_of_a_run(run: RunFolder):
    with only_one(run.path), pytest.raises(UserError, match="another process is training"), only_one(run.path):
        pass
    with only_one(run.path):  # and let in once the first has ended
        pass


def test_what_tune_had_put_off_is_forgotten(tmp_path):
    """Tune would stop the resumed run at its first save (rl-rec drill disk-full)."""
    notes = tmp_path / "experiment_state-2026.json"
    data = {"_cached_trial_decisions": {"a": "STOP"}, "_queued_trial_decisions": {"a": "STOP"}, "_iteration": 3}
    notes.write_text(json.dumps({"trial_data": [["{}", "{}"]], "runner_data": data}))
    training._forget_decisions(SimpleNamespace(path=tmp_path))
    kept = json.loads(notes.read_text())
    assert kept["trial_data"] == [["{}", "{}"]] and kept["runner_data"].pop("_iteration") == 3
    assert kept["runner_data"] == {"_cached_trial_decisions": {}, "_queued_trial_decisions": {}}
    assert list(tmp_path.iterdir()) == [notes]


def test_what_a_run_begins_anew_from_is_kept_until_it_has_saved_again(run: RunFolder):
    """Also where that attempt ended before its first checkpoint: it may be the only one."""
    saved = run.trial / "checkpoint_000004"
    saved.mkdir(parents=True)
    (saved / "weights").write_text("the only ones")
    seal(saved)
    start = training._set_aside(run)
    assert start is not None and not saved.exists()
    assert training._set_aside(run) == start and (start / "weights").read_text() == "the only ones"
    assert list(run.whole_checkpoints()) == [start]
    torn = run.trial / "checkpoint_000000"
    torn.mkdir()
    assert training._set_aside(run) == start and not torn.exists()


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
    results = training.ResultsFirst()
    results._restore_from_remote = Mock()  # type: ignore[method-assign]
    results.on_trial_result(0, [], trial, report)
    assert [json.loads(path.read_text()) for path in folder.iterdir()] == ([report] if stored else [])
    results.on_trial_complete(0, [], trial)
    shutil.rmtree(folder)  # or the disk is full: the checkpoint counts all the same
    results.on_checkpoint(0, [], trial)
    assert (
        behind_a_url or not folder.exists()
    )  # a disk that is away must not be written to where it was mounted


@pytest.mark.parametrize(("stored", "told"), [(5, False), (3, True), (None, True)])
def test_a_trial_that_was_stopped_early_says_that_its_last_checkpoint_is_missing(caplog, stored, told):
    """It reports nothing more that could."""
    metrics = {"training_iteration": stored, "num_env_steps_sampled_lifetime": 300}
    newest = None if stored is None else SimpleNamespace(metrics=metrics)
    last = {"training_iteration": 5, "num_env_steps_sampled_lifetime": 1500}
    trial = SimpleNamespace(last_result=last, latest_checkpoint_result=newest)
    training.TellUnsaved().on_trial_complete(0, [], trial)
    assert ("ended after 1,500 user-steps without having stored its last checkpoint" in caplog.text) == told


def test_a_run_begins_anew_from_its_storage_not_from_this_machine(tmp_path, monkeypatch):
    bucket = tmp_path / "bucket"
    (bucket / "trial" / "start").mkdir(parents=True)
    (bucket / "trial" / "start" / "weights").write_text("the only ones")
    monkeypatch.setenv("RL_REC_CACHE", str(tmp_path / "cache"))
    with working_copy(Url(f"file://{bucket}")) as copy:
        begins = training._StartFrom(copy / "trial" / "start")
    trial = SimpleNamespace(checkpoint=None)
    begins.on_trial_start(0, [], trial)
    with trial._restore_checkpoint_result.checkpoint.as_directory() as there:  # the working copy is gone
        assert (Path(there) / "weights").read_text() == "the only ones"
    known = SimpleNamespace(checkpoint="a newer one")
    begins.on_trial_start(0, [], known)
    assert vars(known) == {"checkpoint": "a newer one"}
