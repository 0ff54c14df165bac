"""What stops a run before it starts or goes on; no Ray."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from envs.errors import UserError
from envs.storage.location import Url
from envs.storage.working_copy import working_copy
from rl_rec.agents import find_agent
from rl_rec.checkpoint import seal
from rl_rec.provenance import write_run
from rl_rec.run_folder import FINISHED, RunFolder
from tuning import resuming
from tuning.resuming import check_resume
from tuning.training import _failed, check, only_one


@pytest.fixture
def run(tmp_path: Path, simulator: Path, small_run: list[str]) -> RunFolder:
    """A run that was described and never started."""
    agent = find_agent("hac")
    path = tmp_path / "run"
    described = check(agent, simulator, agent.train_settings().with_overrides(small_run), path)
    path.mkdir()
    write_run(path, described)
    return RunFolder(path)


def test_where_a_run_may_not_begin_the_way_out_is_one_that_works(tmp_path, simulator, small_run):
    agent = find_agent("hac")
    settings = agent.train_settings().with_overrides(small_run)
    file, finished, begun = tmp_path / "file", tmp_path / "finished", tmp_path / "begun"
    file.touch()
    finished.mkdir()
    (finished / FINISHED).touch()
    begun.mkdir()
    (begun / "run.json").touch()
    ways = {file: "is a file; name a folder", finished: "holds a finished run; name another", begun: "--resume"}
    ways[tmp_path / ("a" * 300)] = "File name too long; choose another --out"
    for out, way in ways.items():
        with pytest.raises(UserError, match=way):
            check(agent, simulator, settings, out)


def test_a_run_goes_on_with_the_data_it_began_with(run: RunFolder):
    check_resume(run)


def test_a_head_without_a_gpu_drives_training_elsewhere(tmp_path, simulator, small_run, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    agent = find_agent("hac")
    settings = agent.train_settings().with_overrides([*small_run, "device=cuda"])
    machine = check(agent, simulator, settings, tmp_path / "run")["machine"]
    assert (machine["device"], machine["device_name"]) == ("cuda", None)


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


@pytest.mark.parametrize("behind_a_url", [False, True])
def test_of_a_failed_run_only_what_is_known_is_told(tmp_path, monkeypatch, behind_a_url):
    """A working copy is pulled when Tune is done, and not at all under a notice to end."""
    monkeypatch.setenv("RL_REC_CACHE", str(tmp_path / "cache"))
    place = Url(f"file://{tmp_path}/bucket/run") if behind_a_url else tmp_path
    with working_copy(place) as path:
        path.mkdir(exist_ok=True)
        unsaved = SimpleNamespace(path=path, whole_checkpoints=lambda: iter(()))
        told = str(_failed(unsaved, OSError("away")))
    assert ("what it has saved is kept" if behind_a_url else "it had saved no checkpoint yet") in told


def test_what_tune_had_put_off_is_forgotten(tmp_path):
    """Tune would stop the resumed run at its first save (rl-rec drill disk-full)."""
    notes = tmp_path / "experiment_state-2026.json"
    data = {"_cached_trial_decisions": {"a": "STOP"}, "_queued_trial_decisions": {"a": "STOP"}, "_iteration": 3}
    notes.write_text(json.dumps({"trial_data": [["{}", "{}"]], "runner_data": data}))
    resuming._forget_decisions(SimpleNamespace(path=tmp_path))
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
    start = resuming._set_aside(run)
    assert start is not None and not saved.exists()
    assert resuming._set_aside(run) == start and (start / "weights").read_text() == "the only ones"
    assert list(run.whole_checkpoints()) == [start]
    torn = run.trial / "checkpoint_000000"
    torn.mkdir()
    assert resuming._set_aside(run) == start and not torn.exists()
