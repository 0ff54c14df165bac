"""Where Ray runs: a local instance sized for the job, or a cluster that is there already."""

import math
import os
import signal
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urlsplit

import click
import grpc
import ray
from ray._private.grpc_utils import init_grpc_channel
from ray._private.services import canonicalize_bootstrap_address
from ray.core.generated.gcs_service_pb2 import GetClusterIdRequest
from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub
from ray.exceptions import RayError

from cluster.addresses import node_address
from cluster.tokens import MISSING, refused, use_token
from cluster.watch import watched
from envs.errors import UserError
from envs.notice import NOTICE
from rl_rec.cli.options import check_device
from rl_rec.resources import Node, Reservation, arithmetic, left_over, total

_OBJECT_STORE_BYTES = 200 * 2**20
_CONNECT_S = 5.0
_NO_PROXY = (("grpc.enable_http_proxy", 0),)
_UNBOUNDED_GROUP = 1000
"""Nodes that are counted of a group without a limit."""

# Before any process imports torch: spinning OMP threads slow a busy machine by up to 100 times.
WORKER_ENVIRONMENT: Mapping[str, str] = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


@contextmanager
def ray_session(
    reservations: Iterable[Reservation],
    address: str | None = None,
    at_once: int = 1,
    all_must_fit: bool = True,
    go_on: str = "start the command again",
) -> Iterator[None]:
    """Have Ray running inside the block; what was started here is stopped at its end.

    Args:
        reservations: what the trials reserve, each one's.
        address: of the cluster that this machine is part of (``auto``, ``HOST:6379``); ``None`` takes
            ``RAY_ADDRESS``, which Ray sets for its jobs, and without it starts a local instance.
        at_once: trials that a local instance makes room for; on a cluster they wait for each other.
        all_must_fit: otherwise the caller asks ``check_room`` for each.
        go_on: what a user does after the cluster was lost, which ends the process.

    Raises:
        UserError: the cluster cannot be reached, or does not have what the job asks for.
    """
    reservations = list(reservations)
    if ray.is_initialized():
        if all_must_fit:
            check_room(reservations)
        yield
        return
    address = node_address(address)
    cpus = max(total(reservation)[0] for reservation in reservations)
    environment = {name: os.environ.get(name, value) for name, value in WORKER_ENVIRONMENT.items()}
    os.environ.update(environment)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray runs workers at low priority by default; here they are the work itself.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # Ray starts a process for every CPU ahead of need, without a runtime environment: none would fit ours.
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    # In a Ray job these may be variables of the job's own: the same values, which Ray takes for a conflict.
    os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")
    runtime = {"env_vars": environment}
    if address is None and any(total(reservation)[1] for reservation in reservations):
        check_device("cuda")
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        if address is None:
            # Trials wait for CPUs they cannot get; a laptop with fewer shares them instead.
            ray.init(
                address="local",  # never a cluster that somebody else started on this machine
                num_cpus=max(math.ceil(cpus * at_once), os.cpu_count() or 1),
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level="ERROR",
                runtime_env=runtime,
            )
        else:
            _check_answers(canonicalize_bootstrap_address("auto") if address == "auto" else address)
            ray.init(address=address, log_to_driver=False, logging_level="ERROR", runtime_env=runtime)
    except UserError:
        raise
    except (OSError, ValueError, RuntimeError, RayError) as error:
        problem = " ".join(str(error).split())
        if address is None:
            raise UserError(f"Ray cannot start: {problem}") from None
        raise UserError(
            f"Ray cannot reach {address}: {problem} (is it up, and does it ask for a token? Then set "
            "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH)"
        ) from None
    if callable(on_sigterm) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray's own prints its native stack
    with NOTICE.last_words(lambda: click.echo(go_on, err=True)):
        try:
            if all_must_fit:
                check_room(reservations)
            with watched(go_on):
                yield
        finally:
            ray.shutdown()


def _check_answers(address: str | None) -> None:
    """Ray itself tries for minutes, and writes to the terminal what it tries."""
    given = use_token()
    parts = urlsplit(f"//{address or ''}")
    try:
        where = (parts.hostname or "", parts.port)
    except ValueError:
        return  # a name that Ray resolves
    if where[1] is None:  # likewise, or no cluster here
        return
    try:
        socket.create_connection(where, timeout=_CONNECT_S).close()
    except OSError as error:
        raise UserError(
            f"no Ray cluster answers at {address} ({error.strerror or error}): give its head's address as "
            "HOST:6379, or auto on a machine of the cluster"
        ) from None
    with init_grpc_channel(f"{where[0]}:{where[1]}", options=_NO_PROXY) as channel:
        try:
            NodeInfoGcsServiceStub(channel).GetClusterId(GetClusterIdRequest(), timeout=_CONNECT_S)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAUTHENTICATED:  # anything else is Ray's to tell
                raise UserError(refused() if given else MISSING) from None


def check_room(reservations: Iterable[Reservation]) -> None:
    """Check that the cluster has, or may get, what each of ``reservations`` asks for.

    Raises:
        UserError: one does not fit; the message has the arithmetic.
    """
    there = _nodes()
    for reservation in reservations:
        missing = left_over(reservation, there)
        if missing is None:
            continue
        cpus, gpus = (sum(node[part] for node in there) for part in (0, 1))
        nodes = "1 node" if len(there) == 1 else f"{len(there)} nodes"
        raise UserError(
            f"a run asks for {arithmetic(reservation)}; the cluster has {cpus:g} CPU and {gpus:g} GPU on "
            f"{nodes} and no place for {missing}: lower rollout.runners or resources.*, or use a larger cluster"
        )


def _nodes() -> list[Node]:
    """CPUs and GPUs of each node: those that are there, and those that an autoscaler may add."""
    live = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    config = ray._private.state.state.get_cluster_config()
    groups = config.node_group_configs if config is not None else []
    added = [
        group.resources
        for group in groups
        for _ in range(group.max_count if group.max_count >= 0 else _UNBOUNDED_GROUP)
    ]
    return [(each.get("CPU", 0.0), each.get("GPU", 0.0)) for each in [*live, *(dict(more) for more in added)]]
