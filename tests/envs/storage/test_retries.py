"""What is tried again, for how long, and what is not."""

import math
import pickle
import socket
import threading
import time
from contextlib import suppress

import pytest

from envs import notice
from envs.errors import UserError
from envs.notice import NOTICE
from envs.storage import filesystem as filesystems
from envs.storage.filesystem import again, open_url
from envs.storage.location import Url
from envs.storage.patience import once, patient
from envs.storage.snapshots import fetch


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (OSError("When reading: AWS Error ACCESS_DENIED during HeadObject: no\nresponse"), "access is denied"),
        (OSError("AWS Error NO_SUCH_BUCKET during PutObject operation"), "there is no such bucket"),
        (PermissionError(13, "Permission denied"), "Permission denied"),
    ],
)
def test_what_time_does_not_heal_fails_at_once(url, failing, error, problem):
    handler = failing(10**6, error)
    with pytest.raises(UserError, match=problem) as raised:
        fetch(url)
    assert handler.calls == 1 and "\n" not in str(raised.value)


def test_pauses_grow(monkeypatch):
    slept: list[float] = []
    monkeypatch.setattr(filesystems, "PAUSES_S", (1, 2, 4))
    monkeypatch.setattr(NOTICE, "pause", slept.append)

    def fails() -> None:
        raise OSError("away")

    with pytest.raises(OSError, match="away"):
        again(fails, "it")
    assert slept == [1, 2, 4]


@pytest.mark.parametrize("known", [True, False])
def test_who_was_told_to_end_does_not_try_for_minutes(monkeypatch, caplog, known):
    """Also who slept when the notice came."""
    monkeypatch.setattr(filesystems, "PAUSES_S", (60, 60, 60, 60, 60, 60, 60, 60))
    monkeypatch.setattr(filesystems, "_LAST_PAUSE_S", 0.1)
    monkeypatch.setattr(notice, "LASTS_S", 1.0)
    attempts: list[float] = []

    def fails() -> None:
        attempts.append(time.monotonic())
        raise OSError("away")

    if known:
        NOTICE.give()
    else:
        threading.Timer(0.3, NOTICE.give).start()
    began = time.monotonic()
    try:
        with pytest.raises(OSError, match="away"):
            again(fails, "it")
        assert "trying again in 60 s" not in caplog.text or not known
        time.sleep(max(NOTICE.left_s, 0.0))
        with pytest.raises(OSError, match="the lock was not tried: no time is left"):
            again(lambda: attempts.append(math.inf), "the lock")
    finally:
        NOTICE.withdraw()
    assert 0.5 < time.monotonic() - began < 5 and len(attempts) >= 3 and math.inf not in attempts


@pytest.mark.parametrize("sent", [False, True])
def test_an_attempt_at_s3_is_one_request(monkeypatch, sent):
    """Also on another node: who tries again is ``again``, which knows how much time is left."""
    server, asked = socket.create_server(("127.0.0.1", 0)), []

    def hang_up() -> None:
        with suppress(OSError):
            while True:
                client, _ = server.accept()
                asked.append(client.recv(100))
                client.close()

    threading.Thread(target=hang_up, daemon=True).start()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "key")
    address = f"127.0.0.1:{server.getsockname()[1]}"
    filesystem, root = open_url(Url(f"s3://b/folder?region=r&scheme=http&endpoint_override={address}"))
    if sent:
        filesystem = once(pickle.loads(pickle.dumps(patient(filesystem))))
    with server, pytest.raises(OSError, match="NETWORK_CONNECTION"):
        filesystems.files(filesystem, root)
    assert len(asked) == 1


@pytest.mark.slow
def test_an_s3_server_that_never_answers_is_one_line_in_seconds(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "key")
    monkeypatch.setattr(filesystems, "PAUSES_S", (0,))
    with socket.create_server(("127.0.0.1", 0)) as mute:
        query = f"region=r&scheme=http&endpoint_override=127.0.0.1:{mute.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(UserError, match="it cannot be reached: check the network"):
            fetch(Url(f"s3://b/folder?{query}"))
    assert time.monotonic() - began < 20
