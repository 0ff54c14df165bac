"""A study on a real S3 API (moto's server), and what it costs in requests."""

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from envs.errors import UserError
from envs.storage.location import Url
from envs.storage.snapshots import fetch
from envs.storage.working_copy import working_copy

pytestmark = [pytest.mark.extras, pytest.mark.ray]

BUCKET = "bucket"


class Requests:
    """Counts what the server is asked, by method."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def counts(self) -> Counter[str]:
        def kind(method: str, query: str) -> str:
            return "LIST" if method == "GET" and "list-type" in query else method

        return Counter(kind(method, query) for method, query in self.seen)


@pytest.fixture(scope="module")
def s3() -> Iterator[Requests]:
    """An S3 server with an empty bucket, to which the environment leads."""
    boto3 = pytest.importorskip("boto3")
    server_module = pytest.importorskip("moto.server")
    requests = Requests()

    class Counting(server_module.DomainDispatcherApplication):  # type: ignore[misc, name-defined]
        def __call__(self, environ, start_response):  # type: ignore[no-untyped-def]
            requests.seen.append((environ["REQUEST_METHOD"], environ.get("QUERY_STRING", "")))
            return super().__call__(environ, start_response)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("moto.moto_server.threaded_moto_server.DomainDispatcherApplication", Counting)
        server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        environment = {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        for name, value in environment.items():
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield requests
        server.stop()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RL_REC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("envs.storage.filesystem.PAUSES_S", (0, 0))


def rl_rec(*arguments: str) -> tuple[dict[str, Any], str]:
    """A command in a process of its own, with its own Ray: its JSON, and what it told a person."""
    # Workers take their credentials from the environment, which a Ray that runs already has without them.
    command = [sys.executable, "-m", "rl_rec.cli.main", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def keys() -> set[str]:
    import boto3

    pages = boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    found = {entry["Key"] for page in pages for entry in page.get("Contents", [])}
    return {key for key in found if not key.endswith("/")}  # Arrow marks folders


def test_a_folder_there_and_back(s3, capsys):
    url = Url(f"s3://{BUCKET}/there/folder")
    with working_copy(url) as copy:
        (copy / "part").mkdir(parents=True)
        (copy / "part" / "large.bin").write_bytes(bytes(range(256)) * 2**16)  # 16 MiB: in several parts
        for number in range(20):
            (copy / f"{number}.txt").write_text(str(number))
    before = len(s3.seen)
    fetched = fetch(url)
    assert (fetched / "part" / "large.bin").read_bytes() == bytes(range(256)) * 2**16
    assert (fetched / "19.txt").read_text() == "19"
    transferred = len(s3.seen) - before
    assert fetch(url) == fetched
    cached = len(s3.seen) - before - transferred
    with capsys.disabled():
        print(f"\n21 files: fetched with {transferred} requests, found in the cache with {cached}")
    assert cached == 1
    with working_copy(url) as copy:
        shutil.rmtree(copy / "part")
    assert not any("part" in key for key in keys())


def test_a_bucket_that_is_not_there_is_one_line(s3):
    for use in (lambda url: working_copy(url).__enter__(), fetch):
        with pytest.raises(
            UserError, match=r"s3://nowhere/folder: (there is no such bucket|nothing lies there)"
        ):
            use(Url("s3://nowhere/folder"))


def test_a_server_that_is_not_there_is_one_line(s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("envs.storage.filesystem.PAUSES_S", ())
    with pytest.raises(UserError, match="it cannot be reached: check the network, and AWS_ENDPOINT_URL"):
        fetch(Url(f"s3://{BUCKET}/folder"))


def test_a_study_lives_in_a_bucket(s3, simulator, small_run, tmp_path, capsys):
    with working_copy(Url(f"s3://{BUCKET}/sim")) as copy:
        shutil.copytree(simulator, copy)
    run = [text for setting in small_run for text in ("--set", setting)]
    asked = ["study", "hac", "--seeds", "2", "--steps", "300", "--episodes", "8", "--parallel", "2", *run]
    place = f"s3://{BUCKET}/results/study"
    before = len(s3.seen)
    result, _ = rl_rec(*asked, "--simulator", f"s3://{BUCKET}/sim", "--out", place)
    study = s3.seen[before:]
    assert not result["failed"]
    found = {key.removeprefix("results/study/") for key in keys() if key.startswith("results/study/")}
    assert {"study.json", "results.csv", "run.json", "hac-world0-seed0/result.json"} <= found
    assert ".lock" not in found
    assert len([key for key in found if re.search(r"checkpoint_\d+/manifest.json", key)]) == 2

    shutil.rmtree(tmp_path / "cache")
    before = len(s3.seen)
    repeated, said = rl_rec("study", "--resume", place)
    again = s3.seen[before:]
    assert "is finished already" in said and repeated["tables"] == result["tables"]
    with capsys.disabled():
        for label, seen in (("study of 2 trials, 3 reports each", study), ("the same command again", again)):
            counting = Requests()
            counting.seen = seen
            print(f"\n{label}: {len(seen)} requests {dict(counting.counts())}")


def test_a_run_goes_on_from_a_bucket(s3, command, tmp_path):
    place = f"s3://{BUCKET}/results/run"
    arguments = [place if text.endswith("unused") else text for text in command(tmp_path / "unused", 400)]
    rl_rec(*arguments)
    import boto3

    client = boto3.client("s3")
    client.delete_object(Bucket=BUCKET, Key="results/run/finished.json")
    newest = max(key for key in keys() if key.endswith("manifest.json") and key.startswith("results/run"))
    client.delete_object(Bucket=BUCKET, Key=newest)  # an upload that was cut off
    shutil.rmtree(tmp_path / "cache")
    result, _ = rl_rec("train", "--resume", place)
    assert (result["run"], result["user_steps"]) == (place, 400)
    assert "results/run/finished.json" in keys()
