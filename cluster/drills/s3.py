"""An S3 server of a drill's own, and a gate in front of it that can be shut."""

import logging
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.request import Request, urlopen

import pyarrow.fs as arrow

from cluster.drills.sandbox import LeftOutError

BUCKET = "drill"
_CHUNK = 2**16


class Gate:
    """Passes TCP connections on to ``port``.

    Shut, it refuses new ones and drops those that are there; mute, it accepts everything and answers nothing.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._joined: set[socket.socket] = set()
        self._answers = True
        self._listening = self._listen(0)
        self.port = int(self._listening.getsockname()[1])

    def shut(self) -> None:
        """Be away."""
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listening.close()
        for end in list(self._joined):
            _close(end)

    def mute(self) -> None:
        """Be there and say nothing."""
        self._answers = False

    def open(self) -> None:
        """Be back, at the same port."""
        self.shut()  # whoever was not answered asks anew
        self._answers = True
        self._listening = self._listen(self.port)

    def _listen(self, port: int) -> socket.socket:
        listening = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, args=(listening,), daemon=True).start()
        return listening

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:  # shut
                return
            self._joined.add(client)
            if not self._answers:
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                self._joined.discard(client)
                client.close()
                continue
            self._joined.add(server)
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(_CHUNK):
                if self._answers:
                    sink.sendall(data)
        for end in (source, sink):
            _close(end)
            self._joined.discard(end)


def _close(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()


@dataclass(frozen=True)
class Storage:
    """A bucket behind a gate."""

    gate: Gate
    direct: arrow.FileSystem
    """Past the gate."""
    environment: Mapping[str, str]
    """Leads commands to the gate."""

    def files(self, folder: str) -> set[str]:
        """Relative paths below ``folder`` of the bucket."""
        root = f"{BUCKET}/{folder}"
        found = self.direct.get_file_info(arrow.FileSelector(root, allow_not_found=True, recursive=True))
        return {info.path.removeprefix(f"{root}/") for info in found if info.type == arrow.FileType.File}

    def download(self, folder: str, into: Path) -> Path:
        """A local copy of ``folder``, in ``into``."""
        for name in self.files(folder):
            target = into / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with self.direct.open_input_stream(f"{BUCKET}/{folder}/{name}") as stream:
                target.write_bytes(stream.read())
        return into


@contextmanager
def storage() -> Iterator[Storage]:
    """An empty bucket for the block.

    Raises:
        LeftOutError: moto is not installed.
    """
    try:
        from moto.server import ThreadedMotoServer
    except ImportError:
        raise LeftOutError("it needs an S3 server: pip install 'rl-rec[moto]'") from None
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it tells of every request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    # Servers of one process share what they hold.
    urlopen(Request(f"http://127.0.0.1:{port}/moto-api/reset", method="POST"), timeout=10).close()
    gate = Gate(port)
    key = "drill"
    try:
        direct = arrow.S3FileSystem(
            access_key=key,
            secret_key=key,
            region="us-east-1",
            endpoint_override=f"http://127.0.0.1:{port}",
            allow_bucket_creation=True,
        )
        direct.create_dir(BUCKET)
        environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{gate.port}",
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        yield Storage(gate, direct, environment)
    finally:
        gate.shut()
        server.stop()
