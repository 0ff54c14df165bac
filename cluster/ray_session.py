"""Where Ray runs: a local instance sized for the job, or a cluster that is there already."""

import math
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import ray

from envs.errors import UserError

_OBJECT_STORE_BYTES = 200 * 2**20

# Before any process imports torch: spinning OMP threads slow a busy machine by up to 100 times.
WORKER_ENVIRONMENT: Mapping[str, str] = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


@contextmanager
def ray_session(cpus: float, gpus: float = 0, address: str | None = None, at_once: int = 1) -> Iterator[None]:
    """Have Ray running inside the block; what was started here is stopped at its end.

    Args:
        cpus: CPUs that one trial reserves.
        gpus: GPUs that it reserves; a fraction is a share of one.
        address: of a running cluster (``auto``, ``ray://...``); ``None`` takes ``RAY_ADDRESS``, which Ray sets
            for its jobs, and without it starts a local instance.
        at_once: trials that a local instance makes room for; on a cluster they wait for each other.

    Raises:
        UserError: the cluster cannot be reached, or does not have what the job asks for.
    """
    if ray.is_initialized():
        _check_resources(cpus, gpus)
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS")
    environment = {name: os.environ.get(name, value) for name, value in WORKER_ENVIRONMENT.items()}
    os.environ.update(environment)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray runs workers at low priority by default; here they are the work itself.
    os.environ.setdefault("RAY_worker_niceness", "0")
    runtime = {"env_vars": environment}
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
            ray.init(address=address, log_to_driver=False, logging_level="ERROR", runtime_env=runtime)
    except (ConnectionError, ValueError, RuntimeError) as error:
        problem = " ".join(str(error).split())
        raise UserError(f"Ray cannot start or reach {address or 'a local instance'}: {problem}") from None
    if callable(on_sigterm) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray's own prints its native stack
    try:
        _check_resources(cpus, gpus)
        yield
    finally:
        ray.shutdown()


def _check_resources(cpus: float, gpus: float) -> None:
    available = ray.cluster_resources()
    for name, asked in (("CPU", cpus), ("GPU", gpus)):
        if asked > available.get(name, 0):
            raise UserError(
                f"a trial asks for {asked:g} {name}, the cluster has {available.get(name, 0):g}: "
                "lower rollout.runners or resources, or use a larger cluster"
            )
