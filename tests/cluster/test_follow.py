"""A job's log over connections that break, fall silent and come back: nothing twice, nothing left out."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from ray.job_submission import JobDetails

from cluster.jobs import client as job_client
from cluster.jobs.client import LostConnection, _Follower

LOG = "one\ntwo\nthree\nfour\n"
SILENT = "silent"


class Cluster:
    """Plays its connections one after the other: pieces of the log, an error, or silence without an end."""

    def __init__(self, *connections: list[Any], ends_after: int, answers: bool = True) -> None:
        self.connections, self.ends_after, self.answers = list(connections), ends_after, answers
        self.opened = self.asked = 0

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        self.opened += 1
        if not self.connections:
            raise aiohttp.ClientConnectionError("refused")
        for piece in self.connections.pop(0):
            if piece == SILENT:
                await asyncio.sleep(60)
            elif isinstance(piece, Exception):
                raise piece
            else:
                yield piece

    def get_job_info(self, job: str) -> JobDetails:
        if not self.answers:
            raise ConnectionError("refused")
        self.asked += 1
        ended = self.asked >= self.ends_after
        return JobDetails(type="SUBMISSION", status="SUCCEEDED" if ended else "RUNNING", entrypoint="x")

    def get_job_logs(self, job: str) -> str:
        return LOG


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    monkeypatch.setattr(job_client, "_PAUSE_S", 0.0)
    monkeypatch.setattr(job_client, "_QUIET_S", 0.05)


def follow(cluster: Any, patience_s: float = 60) -> tuple[str, list[str]]:
    written: list[str] = []
    notices: list[str] = []
    job = asyncio.run(_Follower(cluster, "a", written.append, notices.append, patience_s).run())
    assert job.status.is_terminal()
    return "".join(written), notices


def test_a_log_that_arrives_is_passed_on():
    assert follow(Cluster(["one\ntwo\n", "three\nfour\n"], ends_after=1)) == (LOG, [])


def test_after_a_break_the_log_goes_on_where_it_was():
    broken = aiohttp.ClientConnectionError("reset")
    # The second connection cuts the log into other pieces.
    text, notices = follow(Cluster(["one\nt", broken], ["one\ntwo\nth", "ree\n"], [LOG], ends_after=2))
    assert text == LOG
    assert notices[0].startswith("lost the connection (reset)") and notices[1] == "connected again"


def test_what_a_stream_left_out_is_fetched_at_the_end():
    assert follow(Cluster(["one\n"], ends_after=1))[0] == LOG


def test_silence_is_not_taken_for_life():
    text, _ = follow(Cluster(["one\n", SILENT], ends_after=3))
    assert text == LOG


def test_a_quiet_job_keeps_its_connection():
    cluster = Cluster([SILENT], ends_after=5)
    follow(cluster)
    assert cluster.opened == 1


def test_patience_ends():
    with pytest.raises(LostConnection, match="refused"):
        follow(Cluster(["one\n"], ends_after=1, answers=False), patience_s=0.05)
