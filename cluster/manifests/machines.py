"""Which machine type of a cloud holds a machine of the description."""

from collections.abc import Sequence
from typing import NamedTuple

from cluster.manifests.description import MachineSettings
from envs.counted import counted
from envs.errors import UserError


class MachineType(NamedTuple):
    """A machine that can be rented."""

    name: str
    cpus: int
    memory_gib: int
    gpus: int = 0


def _family(pattern: str, gib_per_cpu: int, sizes: Sequence[tuple[str, int]]) -> list[MachineType]:
    return [MachineType(pattern.format(size), cpus, cpus * gib_per_cpu) for size, cpus in sizes]


# Amazon: m7i; g6 (L4), p4d (A100), p5 (H100). https://aws.amazon.com/ec2/instance-types/
_M7I = [("large", 2), ("xlarge", 4), *((f"{n}xlarge", 4 * n) for n in (2, 4, 8, 12, 16, 24, 48))]
AWS = [
    *_family("m7i.{}", 4, _M7I),
    MachineType("g6.xlarge", 4, 16, 1),
    MachineType("g6.2xlarge", 8, 32, 1),
    MachineType("g6.4xlarge", 16, 64, 1),
    MachineType("g6.8xlarge", 32, 128, 1),
    MachineType("g6.16xlarge", 64, 256, 1),
    MachineType("g6.12xlarge", 48, 192, 4),
    MachineType("g6.24xlarge", 96, 384, 4),
    MachineType("g6.48xlarge", 192, 768, 8),
    MachineType("p4d.24xlarge", 96, 1152, 8),
    MachineType("p5.48xlarge", 192, 2048, 8),
]

# Google: n2; g2 (L4), a2 (A100), a3 (H100). https://cloud.google.com/compute/docs/machine-resource
_N2 = [(str(cpus), cpus) for cpus in (2, 4, 8, 16, 32, 48, 64, 80)]
GCP = [
    *_family("n2-standard-{}", 4, _N2),
    MachineType("g2-standard-4", 4, 16, 1),
    MachineType("g2-standard-8", 8, 32, 1),
    MachineType("g2-standard-12", 12, 48, 1),
    MachineType("g2-standard-16", 16, 64, 1),
    MachineType("g2-standard-32", 32, 128, 1),
    MachineType("g2-standard-24", 24, 96, 2),
    MachineType("g2-standard-48", 48, 192, 4),
    MachineType("g2-standard-96", 96, 384, 8),
    MachineType("a2-highgpu-1g", 12, 85, 1),
    MachineType("a2-highgpu-2g", 24, 170, 2),
    MachineType("a2-highgpu-4g", 48, 340, 4),
    MachineType("a2-highgpu-8g", 96, 680, 8),
    MachineType("a3-highgpu-8g", 208, 1872, 8),
]


def smallest(gpus: int) -> MachineType | None:
    """Of all clouds, the machine with so many GPUs that has the fewest CPUs."""
    fitting = [machine for machine in [*AWS, *GCP] if machine.gpus == gpus]
    return min(fitting, key=lambda machine: (machine.cpus, machine.memory_gib), default=None)


def machine_type(
    catalogue: Sequence[MachineType], wanted: MachineSettings, gpus: int, chosen: str | None
) -> MachineType:
    """The machine type to rent.

    Args:
        catalogue: those of one cloud.
        wanted: CPUs and memory that it must have.
        gpus: GPUs that it must have, no more and no fewer.
        chosen: the user's choice; one that is not in the catalogue is believed to be what was asked for.

    Raises:
        UserError: the choice is too small, or nothing in the catalogue is large enough.
    """
    known = {machine.name: machine for machine in catalogue}
    if chosen is not None:
        machine = known.get(chosen)
        if machine is not None:
            for what, asked, has in (
                ("CPUs", wanted.cpus, machine.cpus),
                ("GiB", wanted.memory_gib, machine.memory_gib),
                ("GPUs", gpus, machine.gpus),
            ):
                if asked > has:
                    raise UserError(
                        f"{asked} {what} on a {chosen}, which has {has}: take a larger type, or ask for less"
                    )
        return machine or MachineType(chosen, wanted.cpus, wanted.memory_gib, gpus)
    fitting = [
        machine
        for machine in catalogue
        if machine.gpus == gpus and machine.cpus >= wanted.cpus and machine.memory_gib >= wanted.memory_gib
    ]
    if not fitting:
        with_gpus = [machine for machine in catalogue if machine.gpus == gpus]
        there = (
            f"those with {counted(gpus, 'GPU')} have at most {max(m.cpus for m in with_gpus)} CPUs and "
            f"{max(m.memory_gib for m in with_gpus)} GiB"
            if with_gpus
            else f"machines have {', '.join(str(n) for n in sorted({m.gpus for m in catalogue}))} GPUs"
        )
        raise UserError(
            f"no known machine has {counted(gpus, 'GPU')}, {counted(wanted.cpus, 'CPU')} and "
            f"{wanted.memory_gib} GiB: {there}; "
            "change the description or name a type (worker_type, runner_type, head_type)"
        )
    return min(fitting, key=lambda machine: (machine.cpus, machine.memory_gib))
