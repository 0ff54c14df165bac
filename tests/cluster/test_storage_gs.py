"""A run on Google Cloud Storage, as an emulator has it; by hand: `pip install gcp-storage-emulator`."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.fs as arrow
import pytest

from cluster.drills.sandbox import free_port
from envs.errors import UserError
from envs.storage.filesystem import open_url
from envs.storage.location import Url
from envs.storage.snapshots import fetch
from envs.storage.working_copy import working_copy
from rl_rec.cli.main import main

pytestmark = [pytest.mark.extras, pytest.mark.ray]


@pytest.fixture(scope="module")
def bucket() -> Iterator[Url]:
    """A folder of an emulated bucket."""
    emulator = pytest.importorskip("gcp_storage_emulator.server", reason="pip install gcp-storage-emulator")
    port = free_port()
    server = emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket")
    server.start()
    yield Url(f"gs://anonymous@bucket/folder?scheme=http&endpoint_override=127.0.0.1:{port}")
    server.stop()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RL_REC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("envs.storage.filesystem.PAUSES_S", (0, 0))


def rl_rec(*arguments: str) -> None:
    """A command in a process of its own: an emulator in this one answers while it runs."""
    command = [sys.executable, "-m", "rl_rec.cli.main", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def names(filesystem: arrow.FileSystem, root: str) -> set[str]:
    found = filesystem.get_file_info(arrow.FileSelector(root, recursive=True, allow_not_found=True))
    return {info.path.removeprefix(f"{root}/") for info in found if info.type == arrow.FileType.File}


def test_a_folder_there_and_back(bucket):
    url = bucket / "there"
    with working_copy(url) as copy:
        (copy / "part").mkdir(parents=True)
        (copy / "part" / "large.bin").write_bytes(bytes(range(256)) * 2**16)  # 16 MiB: in several parts
        for number in range(20):
            (copy / f"{number}.txt").write_text(str(number) * number)  # the first is empty
    fetched = fetch(url)
    assert (fetched / "part" / "large.bin").read_bytes() == bytes(range(256)) * 2**16
    assert [(fetched / f"{number}.txt").read_text() for number in (0, 3)] == ["", "333"]
    assert fetch(url) == fetched
    with working_copy(url) as copy:
        shutil.rmtree(copy / "part")
    filesystem, root = open_url(url)
    assert names(filesystem, root) == {f"{number}.txt" for number in range(20)}


def test_a_bucket_that_is_not_there_is_one_line(bucket):
    nowhere = Url(str(bucket).replace("bucket/", "nowhere/"))
    with pytest.raises(UserError, match="nothing lies there"):
        fetch(nowhere)
    with pytest.raises(UserError, match="NOT_FOUND") as raised, working_copy(nowhere):
        pass
    assert "\n" not in str(raised.value)


def test_a_run_goes_on_from_a_bucket(bucket, simulator, command, tmp_path, capsys):
    with working_copy(bucket / "sim") as copy:
        shutil.copytree(simulator, copy)
    run = bucket / "run"
    there = {str(simulator): str(bucket / "sim"), str(tmp_path / "run"): str(run)}
    rl_rec(*(there.get(text, text) for text in command(tmp_path / "run", 400)))
    filesystem, root = open_url(run)
    whole = sorted(name for name in names(filesystem, root) if name.endswith("manifest.json"))
    assert len(whole) == 2  # older ones are gone
    notes = {name for name in names(filesystem, root) if name.startswith(("experiment_state", "tuner.pkl"))}
    for name in ("finished.json", *notes):  # without Tune's notes, what we upload is where it begins
        filesystem.delete_file(f"{root}/{name}")
    filesystem.delete_file(f"{root}/{whole[-1]}")  # an upload that was cut off
    shutil.rmtree(tmp_path / "cache")
    rl_rec("train", "--resume", str(run))
    assert "finished.json" in names(filesystem, root)
    assert ".lock" not in names(filesystem, root)
    assert main(["evaluate", "--run", str(run), "--episodes", "8", "--json"]) == 0
    assert f'"run": "{run}"' in capsys.readouterr().out
