"""The settings that belong to one target: what each cloud or scheduler needs to know."""

import ipaddress
import re
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, model_validator
from typing_extensions import Self

from envs.settings import Settings


def _address_range(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        pass
    try:  # an address with a length: the range that it lies in
        example = str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        example = "10.0.0.0/8"
    raise ValueError(f"expected an address range such as {example}")


AddressRange: TypeAlias = Annotated[str, AfterValidator(_address_range)]
"""A CIDR block."""


def _secret_name(text: str) -> str:
    if re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", text) is None:
        raise ValueError("expected a Secret's name such as registry")
    return text


SecretName: TypeAlias = Annotated[str, AfterValidator(_secret_name)]
"""The name of a Kubernetes Secret."""


class AwsSettings(Settings):
    """Amazon EC2, by ``ray up``."""

    region: str = Field("us-west-2", pattern=r"^[a-z]{2}(-[a-z]+)+-\d$", examples=["us-west-2"])
    """Region."""
    image_id: str | None = Field(None, pattern=r"^ami-[0-9a-f]+$", examples=["ami-0123456789abcdef0"])
    """Machine image of this region with Docker and, for GPUs, NVIDIA's driver and container toolkit."""
    head_type: str | None = None
    """Instance type of the head; none: the smallest that holds it."""
    worker_type: str | None = None
    """Instance type of a worker; none: the smallest g6, p4d or p5 that holds it."""
    runner_type: str | None = None
    """Instance type of a runner machine; none: the smallest m7i that holds it."""
    head_profile: str | None = Field(None, pattern=r"^[\w+=,.@-]+$", examples=["ray-head"])
    """Instance profile of the head, which starts machines; none: Ray makes one with all of EC2 and S3."""
    worker_profile: str | None = Field(None, pattern=r"^[\w+=,.@-]+$", examples=["ray-worker"])
    """Instance profile of the other machines, to pull the image or read a bucket; none: no rights."""
    security_groups: tuple[str, ...] = ()
    """Your security groups; none: Ray makes one whose port 22 is open to the whole internet."""
    subnets: tuple[str, ...] = ()
    """Your subnets; none: the default VPC's."""

    @model_validator(mode="after")
    def _check_profiles(self) -> Self:
        if self.worker_profile is not None and self.head_profile is None:
            raise ValueError(
                f"aws.worker_profile={self.worker_profile} without aws.head_profile: the head's role must be "
                "allowed to hand it on (iam:PassRole), and the one that Ray makes is not"
            )
        return self


class GcpSettings(Settings):
    """Google Compute Engine, by ``ray up``."""

    project: str | None = Field(None, pattern=r"^[a-z][-a-z0-9]{4,28}[a-z0-9]$", examples=["my-project"])
    """Id of the project that pays and holds the machines; needed for gcp."""
    worker_account: str | None = Field(
        None, pattern=r"^[^@\s]+@[\w.-]+$", examples=["ray-worker@my-project.iam.gserviceaccount.com"]
    )
    """Service account of the machines but the head, to pull the image or read a bucket; none: no rights."""
    zone: str = Field("us-west1-a", pattern=r"^[a-z]+-[a-z]+\d+-[a-z]$", examples=["us-west1-a"])
    """Zone."""
    source_image: str | None = None
    """Boot image with Docker and, for GPUs, NVIDIA's driver and container toolkit."""
    head_type: str | None = None
    """Machine type of the head; none: the smallest that holds it."""
    worker_type: str | None = None
    """Machine type of a worker; none: the smallest g2, a2 or a3 that holds it."""
    runner_type: str | None = None
    """Machine type of a runner machine; none: the smallest n2 that holds it."""


class KubernetesSettings(Settings):
    """Kubernetes, by the KubeRay operator."""

    namespace: str = Field("default", pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", examples=["team-a"])
    """Where everything goes; give each team its own."""
    operator_namespace: str = Field(
        "kuberay-system", pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", examples=["kuberay-system"]
    )
    """Where the KubeRay operator runs: the only one from outside that may talk to the cluster."""
    storage_class: str | None = None
    """StorageClass of the volume, one that can be mounted by many nodes; none: the cluster's default."""
    claim: str | None = Field(None, pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$", examples=["team-a"])
    """The volume's claim, to share one among clusters and jobs; none: one of the cluster's name."""
    storage_gib: int = Field(100, ge=1)
    """Size of the volume for datasets, simulators, checkpoints and results."""
    gpu_resource: str = "nvidia.com/gpu"
    """The GPUs' name as a resource."""
    gpu_nodes: tuple[str, ...] = ()
    """Labels ``key=value`` of nodes for workers, such as ``cloud.google.com/gke-accelerator=nvidia-l4``."""
    auth_secret: SecretName | None = None
    """A Secret of yours with the key auth_token; none: the operator makes one with a random token."""
    api_server: AddressRange = "0.0.0.0/0"
    """Address range of the Kubernetes API, for the autoscaler in the head pod."""
    egress: tuple[AddressRange, ...] = ()
    """Address ranges outside that pods may reach; none: nothing but name service and each other."""
    pull_secrets: tuple[SecretName, ...] = ()
    """Secrets of the namespace that log in to the image's registry; none: the nodes' own rights."""
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    """When nodes fetch the image; Always: after pushing another one under the same tag."""

    @model_validator(mode="after")
    def _check_labels(self) -> Self:
        for label in self.gpu_nodes:
            if label.count("=") != 1 or label.startswith("="):
                raise ValueError(f"kubernetes.gpu_nodes takes key=value, got {label!r}")
        return self


class SlurmSettings(Settings):
    """A Slurm batch job."""

    partition: str | None = Field(None, pattern=r"^[\w,.-]+$", examples=["gpu"])
    """Partition; none: the default one."""
    account: str | None = Field(None, pattern=r"^[\w.-]+$", examples=["team-a"])
    """Account that pays."""
    environment: str = Field("$HOME/rl-rec/.venv", pattern=r"^[\w/.${}-]+$", examples=["$HOME/rl-rec/.venv"])
    """Virtual environment with rl-rec, on a file system that all nodes share; not with a container."""
    container: str | None = Field(None, pattern=r"^[\w/.${}-]+$", examples=["$HOME/rl-rec.sif"])
    """An Apptainer image (.sif) to run in instead."""
    state: str = Field("$HOME/.rl-rec-slurm", pattern=r"^[\w/.${}-]+$", examples=["$HOME/.rl-rec-slurm"])
    """Folder that all nodes share, for the token of a running job."""
    wait_s: int = Field(300, ge=10)
    """Seconds that nodes have to join."""
