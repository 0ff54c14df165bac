"""What a cluster's head knows of nodes and actors, asked from outside: no driver is started for it."""

from dataclasses import dataclass

from ray._private.state import GlobalState
from ray._raylet import GcsClientOptions  # type: ignore[attr-defined]  # compiled


@dataclass(frozen=True)
class Actor:
    """An actor of any time."""

    name: str
    """Of its class."""
    node: str
    """Id of the node that it runs on."""
    pid: int
    alive: bool


class RayState:
    """Ray's public list of actors is the dashboard's, which a throw-away head has none of."""

    def __init__(self, address: str) -> None:
        self._state = GlobalState()
        options = GcsClientOptions.create(
            address, None, allow_cluster_id_nil=True, fetch_cluster_id_if_nil=False
        )
        self._state._initialize_global_state(options)

    def nodes(self) -> dict[str, bool]:
        """By id, whether the node is alive."""
        return {node["NodeID"]: bool(node["Alive"]) for node in self._state.node_table()}

    def actors(self, *names: str) -> list[Actor]:
        """Those of the classes ``names``, also dead ones."""
        entries = self._state.actor_table(None).values()
        return [
            Actor(entry["ActorClassName"], entry["Address"]["NodeID"], entry["Pid"], entry["State"] == "ALIVE")
            for entry in entries
            if entry["ActorClassName"] in names
        ]
