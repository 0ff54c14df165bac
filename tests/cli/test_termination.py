"""SIGTERM for a command: it ends in time, says so, and leaves nothing of the countdown behind."""

import threading

import pytest

from envs.notice import NOTICE
from rl_rec.cli.main import main
from rl_rec.cli.termination import termination_raised
from tests.cli.process import PROBE, run_python


def ending(body: str) -> str:
    """A process that is told to end, and is given a second for it."""
    told = f"""
    import signal, threading, time
    from envs import notice
    notice.ENDS_S = 1.0
{body}"""
    return PROBE.format(entry="run", options=[], after="", body=told)


# A library that waits, whatever signals come, for a server that accepts and never answers: no handler runs.
STUCK = ending(
    """
    import socket
    from envs.storage.filesystem import open_url
    from envs.storage.location import Url

    server = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{server.getsockname()[1]}"
    filesystem, _ = open_url(Url(f"s3://b/folder?region=r&scheme=http&endpoint_override={address}"))
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    with notice.NOTICE.last_words(lambda: click.echo("kept", err=True)):
        filesystem.get_file_info("b/folder")
"""
)


def test_sigterm_ends_a_command_in_time_whatever_it_waits_for():
    key = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "key")
    done = run_python(STUCK, **key)
    assert done.returncode == 143
    assert done.stderr == "kept\nerror: terminated: it had not ended by itself after 1 s\n"


@pytest.mark.parametrize("closed", ["sys.stdout = None", "sys.stderr = None", "sys.stdout = sys.stderr = None"])
def test_sigterm_has_its_exit_code_where_nobody_reads(closed):
    assert run_python(ending(f"    {closed}; os.kill(os.getpid(), signal.SIGTERM)")).returncode == 143


def test_sigterm_ends_a_command_in_time_that_cannot_say_so():
    full = """
    _, full = os.pipe()
    os.set_blocking(full, False)
    try:
        while os.write(full, b"-" * 4096):
            pass
    except BlockingIOError:
        pass
    os.set_blocking(full, True)
    os.dup2(full, 2)
    os.kill(os.getpid(), signal.SIGTERM)
"""
    assert run_python(ending(full)).returncode == 143


def test_sigterm_for_a_forked_child_is_none_of_the_commands_business():
    forking = """
    child = os.fork()
    if not child:
        time.sleep(30)
        os._exit(0)
    time.sleep(0.3)
    os.kill(child, signal.SIGTERM)
    os.waitpid(child, 0)
    time.sleep(1.5)
    print("went on")
"""
    done = run_python(ending(forking))
    assert (done.returncode, done.stdout) == (0, "went on\n")


def test_sigterm_inside_a_callback_of_asyncio_is_heard():
    waiting = """
    import asyncio

    async def wait():
        asyncio.get_running_loop().call_later(0.2, os.kill, os.getpid(), signal.SIGTERM)
        await asyncio.sleep(60)

    notice.ENDS_S = 30.0
    asyncio.run(wait())
"""
    done = run_python(ending(waiting))
    assert (done.returncode, done.stderr) == (143, "error: terminated\n")


def test_a_command_in_a_thread_leaves_the_notice_alone():
    NOTICE.give()
    try:
        thread = threading.Thread(target=main, args=(["--version"],))
        thread.start()
        thread.join()
        assert NOTICE.given
    finally:
        NOTICE.withdraw()


def test_a_new_command_starts_without_the_notice_of_the_one_before():
    NOTICE.give()
    with termination_raised():
        assert not NOTICE.given


@pytest.mark.parametrize("told", ["pass", "os.kill(os.getpid(), signal.SIGTERM)"])
def test_nothing_of_the_countdown_outlives_the_block(told):
    """Neither its thread, which would end the process, nor its place at Python's wake-up socket."""
    done = run_python(f"""
import os, signal, socket, threading, time
from envs import notice
from rl_rec.cli.termination import ended_in_time

notice.ENDS_S = 0.5
signal.signal(signal.SIGTERM, lambda *_: None)
ours, theirs = socket.socketpair()
theirs.setblocking(False)
signal.set_wakeup_fd(theirs.fileno())
with ended_in_time():
    (countdown,) = (thread for thread in threading.enumerate() if thread.name == "end in time")
    {told}
countdown.join(5)
time.sleep(1)
print(countdown.is_alive(), signal.set_wakeup_fd(-1) == theirs.fileno())
""")
    assert (done.returncode, done.stdout, done.stderr) == (0, "False True\n", "")
