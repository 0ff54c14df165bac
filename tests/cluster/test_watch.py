"""A cluster that is gone ends the command in one line, one that comes back does not. No Ray."""

import os
import socket
import threading

import pytest

from cluster import watch
from envs.notice import NOTICE


class EndedError(Exception):
    """Instead of the end of the process."""


@pytest.fixture
def head(monkeypatch):
    """A listening socket; the watch looks often and loses patience soon."""

    def end(code):
        raise EndedError(code)

    monkeypatch.setattr(watch, "LOST_AFTER_S", 0.6)
    monkeypatch.setattr(watch, "_EVERY_S", 0.05)
    monkeypatch.setattr(os, "_exit", end)
    listening = socket.create_server(("127.0.0.1", 0))
    yield listening
    listening.close()
    NOTICE.withdraw()


def test_a_head_that_is_gone_ends_the_command_in_one_line(head, capsys, monkeypatch):
    host, port = head.getsockname()
    threading.Timer(0.5, head.close).start()
    closed: list[bool] = []
    monkeypatch.setattr(watch, "close_all", lambda: closed.append(True))
    with pytest.raises(EndedError, match="1"):
        watch._watch(host, port, "go on with: --resume", threading.Event())
    expected = f"error: the Ray cluster is gone, nobody answers at {host}:{port}: go on with: --resume\n"
    assert capsys.readouterr().err == expected
    assert closed, "what is behind a URL is still held"


def test_what_fails_at_the_end_does_not_keep_the_process(head, monkeypatch):
    host, port = head.getsockname()
    head.close()

    def fail():
        raise RuntimeError

    monkeypatch.setattr(watch, "close_all", fail)
    with pytest.raises(EndedError, match="1"):
        watch._watch(host, port, "", threading.Event())


def test_a_head_that_comes_back_in_time_is_not_missed(head, capsys):
    host, port = head.getsockname()
    head.close()
    back, ended = [], threading.Event()
    threading.Timer(0.3, lambda: back.append(socket.create_server((host, port)))).start()
    threading.Timer(1.5, ended.set).start()
    watch._watch(host, port, "", ended)
    back[0].close()
    assert capsys.readouterr().err == ""
