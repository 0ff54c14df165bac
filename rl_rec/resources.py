"""What a run reserves on Ray: processes of a few kinds, each of which needs its share of one node."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Processes:
    """Equal processes."""

    what: str
    count: int
    cpus: float
    """Of each."""
    gpus: float = 0.0
    """Of each; a fraction is a share of one."""

    def __str__(self) -> str:
        gpus = f" + {self.gpus:g} GPU" if self.gpus else ""
        return f"{self.count} {self.what} × {self.cpus:g} CPU{gpus}"


Reservation: TypeAlias = Sequence[Processes]
Node: TypeAlias = tuple[float, float]
"""CPUs and GPUs."""


def total(reservation: Reservation) -> Node:
    """CPUs and GPUs of all processes together."""
    cpus = sum(kind.count * kind.cpus for kind in reservation)
    return cpus, sum(kind.count * kind.gpus for kind in reservation)


def arithmetic(reservation: Reservation) -> str:
    """How the total comes about: ``9 CPU (1 learner × 1 CPU + 8 env runners × 1 CPU)``."""
    cpus, gpus = total(reservation)
    asked = f"{cpus:g} CPU" + (f" and {gpus:g} GPU" if gpus else "")
    return f"{asked} ({', '.join(str(kind) for kind in reservation)})"


def left_over(reservation: Reservation, nodes: Iterable[Node]) -> Processes | None:
    """The processes that find no place when all, the largest first, go to the first node with room.

    Args:
        reservation: of one run.
        nodes: what each node has.

    Returns:
        One kind, with the number of those without a place; ``None`` where all have one.
    """
    free = [list(node) for node in nodes]
    for kind in sorted(reservation, key=lambda kind: (kind.gpus, kind.cpus), reverse=True):
        missing = kind.count
        for node in free:
            rooms = [int(node[part] / each + 1e-6) for part, each in enumerate((kind.cpus, kind.gpus)) if each]
            placed = min([missing, *rooms])
            node[0] -= placed * kind.cpus
            node[1] -= placed * kind.gpus
            missing -= placed
        if missing:
            return Processes(kind.what, missing, kind.cpus, kind.gpus)
    return None
