"""SIGTERM for a command: what is being done is unwound, and in any case the process ends in time."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

import click

from envs import notice
from envs.errors import Terminated
from envs.notice import NOTICE

_SPEAKS_S = 1.0
"""For the last words of a process that does not end by itself."""


@contextmanager
def termination_raised() -> Iterator[None]:
    """Let SIGTERM unwind the block, as Ctrl-C does: drafts are removed, and Ray is stopped.

    Outside the main thread, which gets all signals, the block is left alone.
    """

    def end(*_: object) -> None:
        if not NOTICE.given:  # a second signal would cut short what the first one began
            NOTICE.give()
            raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    NOTICE.withdraw()
    before = signal.signal(signal.SIGTERM, end)
    try:
        with terminated_plainly():
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def terminated_plainly() -> Iterator[None]:
    """Let ``Terminated`` leave the block as itself: compiled code that it interrupts makes it a SystemError."""
    try:
        yield
    except SystemError as error:
        if isinstance(error.__cause__, Terminated):
            raise error.__cause__ from None
        raise


@contextmanager
def ended_in_time() -> Iterator[None]:
    """End a process that is still inside the block ``notice.ENDS_S`` after SIGTERM, whatever it waits for."""
    # Handlers wait until the main thread leaves the library that it is in, Arrow say, however long that takes.
    # Python writes to the socket at once.
    heard, told = socket.socketpair()
    told.setblocking(False)
    os.register_at_fork(after_in_child=lambda: _leave(told))
    before = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_end_in_time, args=(heard,), name="end in time", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        told.close()


def _leave(told: socket.socket) -> None:
    """In a forked child, whose signals are no business of its parent's."""
    if told.fileno() != -1:
        signal.set_wakeup_fd(-1)


def _end_in_time(signals: socket.socket) -> None:
    """Wait for SIGTERM among ``signals``, which end when the block does, and count down."""
    with signals:
        while (number := signals.recv(1)) != bytes([signal.SIGTERM]):
            if not number:
                return
        end_s = time.monotonic() + notice.ENDS_S
        while (left_s := end_s - time.monotonic()) > 0:
            signals.settimeout(left_s)
            with suppress(TimeoutError):
                if not signals.recv(1):
                    return
    speaking = threading.Thread(target=_say_last_words, daemon=True)
    speaking.start()
    speaking.join(_SPEAKS_S)  # who should read it may be gone
    os._exit(Terminated.CODE)


def _say_last_words() -> None:
    NOTICE.say_last_words()
    click.echo(f"error: terminated: it had not ended by itself after {notice.ENDS_S:g} s", err=True)
    _flush()


def end_process(code: int) -> NoReturn:
    """End at once: the interpreter's end waits for threads, and for those that Arrow has."""
    _flush()
    os._exit(code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            if stream is not None:  # closed by whoever started the process
                stream.flush()
