"""Noticing that the cluster under a running command is gone, which Ray would tell in its native log's words."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import click
import ray

from envs.notice import NOTICE
from envs.storage.working_copy import close_all

LOST_AFTER_S = 30.0
"""Without the head for so long, a command ends. Ray gives up after 60 s; with Redis a head may come back."""
_EVERY_S = 2.0


@contextmanager
def watched(go_on: str) -> Iterator[None]:
    """Inside the block, end the process with one line when the head has not answered for ``LOST_AFTER_S``.

    Nothing is unwound but working copies of URLs: whatever asks Ray would wait, and what was saved is saved.
    Workers notice later, and one that is saving may go on doing so: until then their locks keep others out.

    Args:
        go_on: what the user does once there is a cluster again.
    """
    if ray.util.client.ray.is_connected():  # ray://, whose proxy notices by itself
        yield
        return
    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    ended = threading.Event()
    watch = threading.Thread(target=_watch, args=(host, int(port), go_on, ended), daemon=True)
    watch.start()
    try:
        yield
    finally:
        ended.set()


def _watch(host: str, port: int, go_on: str, ended: threading.Event) -> None:
    answered_s = time.monotonic()
    while not ended.wait(_EVERY_S):
        with suppress(OSError), socket.create_connection((host, port), timeout=5):
            answered_s = time.monotonic()
        if time.monotonic() - answered_s > LOST_AFTER_S and not ended.is_set():
            click.echo(f"error: the Ray cluster is gone, nobody answers at {host}:{port}: {go_on}", err=True)
            NOTICE.give()  # nobody waits long for storage that may be gone as well
            try:
                close_all()
            finally:
                os._exit(1)
