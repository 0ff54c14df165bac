"""Sizes of pods: what is left of a machine once its node has kept its own share."""

from typing import NamedTuple

from cluster.manifests.description import MachineSettings
from envs.errors import UserError

_KEPT = ((4, 0.25), (4, 0.20), (8, 0.10), (112, 0.06), (float("inf"), 0.02))
"""Share of each further part of memory, in GiB, that Google's nodes keep; Amazon's and Azure's keep less.
https://cloud.google.com/kubernetes-engine/docs/concepts/plan-node-sizes"""
_DAEMONS_GIB = 1.0
"""Eviction threshold, and the pods that run on every node: network, logs, metrics, device plugin."""

_SHARED_MARGIN_GIB = 1
"""Of /dev/shm beyond the object store, which counts as the container's memory as well."""
_PROCESSES_GIB = 1.0
"""Ray's own on an idle node, with some room."""


class PodSize(NamedTuple):
    """What a pod asks for, so that it fits on a machine of the description beside the node's own daemons."""

    millicpus: int
    mib: int


NOTHING = PodSize(millicpus=0, mib=0)
AUTOSCALER = PodSize(millicpus=500, mib=512)
"""The container beside the head's own."""


def pod_size(name: str, machine: MachineSettings, beside: PodSize = NOTHING) -> PodSize:
    """The pod that fills ``machine``.

    Args:
        name: of the machine's settings, for messages.
        machine: all of it, as the cloud sells it.
        beside: what another container of the pod asks for.

    Raises:
        UserError: too little is left.
    """
    kept_gib, rest_gib = _DAEMONS_GIB, float(machine.memory_gib)
    for part_gib, share in _KEPT:
        kept_gib += share * min(part_gib, rest_gib)
        rest_gib = max(rest_gib - part_gib, 0.0)
    left = PodSize(
        machine.cpus * 990 - 500 - beside.millicpus,  # half a CPU and a hundredth
        int((machine.memory_gib - kept_gib) * 1024) - beside.mib,
    )
    if left.mib < (machine.object_store_gib + _SHARED_MARGIN_GIB + _PROCESSES_GIB) * 1024:
        raise UserError(
            f"{name}.memory_gib={machine.memory_gib}: a Kubernetes node leaves {left.mib / 1024:.1f} GiB, "
            f"too little for object_store_gib={machine.object_store_gib} + {_SHARED_MARGIN_GIB} and "
            f"{_PROCESSES_GIB:g} for the processes: raise the one, or lower the other"
        )
    if left.millicpus <= 0:
        raise UserError(f"{name}.cpus={machine.cpus}: a Kubernetes node keeps it for itself; take 2 or more")
    return left
