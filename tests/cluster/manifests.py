"""Files of every target, for the tests of `rl-rec cluster render`."""

from pathlib import Path

from cluster.manifests.description import ClusterSettings
from cluster.manifests.render import TARGETS, render

ROOT = Path(__file__).resolve().parents[2]
SWEEP = ["sweep", "planning", "--simulator", "/mnt/rl-rec/sim", "--out", "/mnt/rl-rec/planning"]
CLOUDS = ["aws.image_id=ami-0123", "gcp.project=my-project", "gcp.source_image=projects/p/global/images/i"]


def rendered(target: str, *assignments: str) -> dict[str, str]:
    """File name to text, of a small cluster with ``assignments``."""
    settings = ClusterSettings().with_overrides([*CLOUDS, *assignments])
    return dict(render(target, settings, SWEEP if TARGETS[target].takes_command else ()).files)
