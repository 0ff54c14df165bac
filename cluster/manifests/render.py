"""From the description of a cluster to the files that make it, checked before anybody sees them."""

import json
import math
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from cluster.jobs.command import check_command
from cluster.manifests import checks
from cluster.manifests.description import ClusterSettings, image_tag, ray_version
from cluster.manifests.machines import AWS, GCP, MachineType, machine_type
from cluster.manifests.pods import AUTOSCALER, pod_size
from cluster.manifests.resumable import resumable
from envs.counted import counted
from envs.errors import UserError
from rl_rec.cli.settings_list import settings_list

PACKAGES = ("envs", "rl_rec", "tuning", "cluster")
"""What the image holds of the checkout."""

_AMI = (
    "aws ssm get-parameter --query Parameter.Value --output text --region {} --name "
    "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"
)
_DISK_IMAGES = "gcloud compute images list --project deeplearning-platform-release --no-standard-images"


@dataclass(frozen=True)
class Target:
    """Something that makes clusters."""

    summary: str
    files: Mapping[str, str]
    """File name to template."""
    check: Callable[[str, str], None]
    """Raises AssertionError or ValueError for a file, given its name and text, that the target would refuse."""
    steps: Sequence[str]
    """Commands from the files to a running job; FOLDER is where the files are, and empty ones are left out."""
    complete: Callable[[ClusterSettings], ClusterSettings] = lambda settings: settings
    """Put in place of what the description leaves open what the target chooses."""
    context: Callable[[ClusterSettings, Sequence[str]], Mapping[str, Any]] = lambda _settings, _command: {}
    """What only its templates need."""
    own: str | None = None
    """The group of settings that this target has to itself."""
    ignores: Collection[str] = ()
    """Paths of other settings and groups that change nothing of its files."""
    needs_registry: bool = True
    """Whether the image goes through a registry."""
    makes_cluster: bool = True
    takes_command: bool = False
    runner_machines: bool = True


@dataclass(frozen=True)
class Rendered:
    """The files of one target."""

    target: str
    files: Mapping[str, str]
    fits: Mapping[str, Any]
    trials: int
    steps: Sequence[str]


def render(target: str, settings: ClusterSettings, command: Sequence[str] = ()) -> Rendered:
    """Render and check the files of ``target``.

    Args:
        target: a key of ``TARGETS``.
        settings: the cluster.
        command: what would follow ``rl-rec``, of a target that brings a job.

    Raises:
        UserError: the description or the command does not fit the target.
        click.UsageError: an unknown verb or option in the command.
    """
    chosen = TARGETS[target]
    if command and not chosen.takes_command:
        takers = " and ".join(name for name, one in TARGETS.items() if one.takes_command)
        raise UserError(f"{target} makes a cluster without a job: only {takers} take a command after --")
    if settings.runners.machines and not chosen.runner_machines:
        raise UserError(
            f"{target} has nodes of one kind: set runners.machines=0; more worker.cpus bring more env runners"
        )
    settings = chosen.complete(settings)
    fits = settings.fits()
    context = {
        "c": settings,
        "target": target,
        "makes_cluster": chosen.makes_cluster,
        "title": chosen.summary,
        "size": _size(settings, fixed=not chosen.runner_machines),
        "fits": " ".join(f"--set {path}={value}" for path, value in fits.items()),
        "trials": settings.trials,
        "ray_version": ray_version(),
        "rl_rec_version": version("rl-rec"),
        "image": f"{settings.image}:{image_tag()}",
        "packages": PACKAGES,
        **chosen.context(settings, command),
    }
    environment = Environment(
        loader=PackageLoader("cluster.manifests"),
        undefined=StrictUndefined,
        comment_start_string="{##",  # bash counts with ${#name[@]}
        comment_end_string="##}",
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["quoted"] = partial(
        json.dumps, ensure_ascii=False
    )  # JSON is YAML, whatever the text holds
    files = {name: environment.get_template(source).render(context) for name, source in chosen.files.items()}
    for name, text in files.items():
        try:
            chosen.check(name, text)
        except ValueError as error:
            raise UserError(f"{target} would refuse {name}: {error}") from None
    steps = filter(None, (step.format(**context) for step in chosen.steps))
    return Rendered(target, files, fits, settings.trials, list(steps))


def settings_of(target: str | None) -> list[dict[str, Any]]:
    """Every setting with type, default and meaning; of one ``target``, without those that others alone read."""
    unread: set[str | None] = set()
    if target is not None:
        chosen = TARGETS[target]
        unread = {one.own for one in TARGETS.values()} - {chosen.own} | set(chosen.ignores)
    return list(settings_list(ClusterSettings(), {name for name in unread if name is not None}))


def unread(target: str, given: Sequence[str]) -> str | None:
    """A warning of what somebody set for ``target`` and would wait for in vain.

    Args:
        target: a key of ``TARGETS``.
        given: paths of settings, such as ``worker.cpus``. Those that other targets have to themselves say so by
            their names, and are let through: one command line may do for several targets.
    """
    read = [each["setting"] for each in settings_of(target)]
    read += [one.own for one in TARGETS.values() if one.own is not None]
    found = [path for path in given if not any(f"{path}.".startswith(f"{name}.") for name in read)]
    if not found:
        return None
    return (
        f"{target}'s files do not change with {' and '.join(dict.fromkeys(found))}; "
        f"rl-rec cluster settings {target} lists what they read"
    )


def _size(settings: ClusterSettings, fixed: bool) -> str:
    worker, runners = settings.worker, settings.runners
    gpus = f", {counted(settings.gpus_per_worker, 'GPU')}" if settings.gpus else ""
    workers = counted(settings.workers, "worker")
    size = (
        f"{workers if fixed else f'{settings.min_workers} to {workers}'} of {counted(worker.cpus, 'CPU')}, "
        f"{worker.memory_gib} GiB{gpus}"
    )
    if not runners.machines:
        return size
    machines = f"{runners.min_machines} to {counted(runners.machines, 'runner machine')}"
    return f"{size}; {machines} of {counted(runners.cpus, 'CPU')}"


def _checked(command: Sequence[str], volume: str | None) -> Sequence[str]:
    """The command, whose verb, options and paths are found right before it travels.

    Args:
        command: with or without ``rl-rec``.
        volume: what pods mount; without one, relative paths have a place.
    """
    from rl_rec.cli.main import cli

    command = command[1:] if tuple(command[:1]) == ("rl-rec",) else command
    if not command:
        raise UserError(
            "give the command after --, such as: -- sweep planning --simulator SIMULATOR --out RESULT"
        )
    relative = f"pods have no such folder; give a path on the volume, {volume}/..., or a URL"
    check_command(cli, command, volume is None, relative)
    return command


def _aws(settings: ClusterSettings) -> ClusterSettings:
    mine = settings.aws
    if settings.gpus and mine.image_id is None:
        raise UserError(
            "aws.image_id is missing: GPUs need a machine image of the region with NVIDIA's driver; "
            f"find one with: {_AMI.format(mine.region)}"
        )
    return _rented(settings, AWS, "aws")


def _gcp(settings: ClusterSettings) -> ClusterSettings:
    mine = settings.gcp
    if mine.project is None:
        raise UserError("gcp.project is missing: the id of the project that pays, from: gcloud projects list")
    if settings.gpus and mine.source_image is None:
        raise UserError(
            "gcp.source_image is missing: GPUs need a boot image with NVIDIA's driver, such as "
            f"projects/deeplearning-platform-release/global/images/family/NAME; names: {_DISK_IMAGES}"
        )
    image = mine.source_image or "projects/deeplearning-platform-release/global/images/family/common-cpu"
    settings = settings.model_copy(update={"gcp": mine.model_copy(update={"source_image": image})})
    return _rented(settings, GCP, "gcp")


def _rented(settings: ClusterSettings, catalogue: Sequence[MachineType], cloud: str) -> ClusterSettings:
    """With the machine types of the cloud, and all the CPUs and memory that they have."""
    gpus = {"worker": settings.gpus_per_worker}
    mine = getattr(settings, cloud)
    sizes, types = {}, {}
    for field, kind in (("head", "head"), ("worker", "worker"), ("runners", "runner")):
        wanted, named = getattr(settings, field), f"{kind}_type"
        machine = machine_type(catalogue, wanted, gpus.get(kind, 0), getattr(mine, named))
        types[named] = machine.name
        sizes[field] = wanted.model_copy(update={"cpus": machine.cpus, "memory_gib": machine.memory_gib})
    return settings.model_copy(update={**sizes, cloud: mine.model_copy(update=types)})


def _kubernetes(settings: ClusterSettings, command: Sequence[str]) -> Mapping[str, Any]:
    sizes = {
        "head": pod_size("head", settings.head, AUTOSCALER),
        "worker": pod_size("worker", settings.worker),
    }
    if settings.runners.machines:
        sizes["runner"] = pod_size("runners", settings.runners)
    namespace = settings.kubernetes.namespace
    return {
        "new_namespace": "" if namespace == "default" else f"kubectl create namespace {namespace}   # once",
        "gpu_nodes": dict(label.split("=") for label in settings.kubernetes.gpu_nodes),
        "claim": settings.kubernetes.claim or settings.name,
        "sizes": sizes,
        "autoscaler": AUTOSCALER,
    }


def _kubernetes_job(settings: ClusterSettings, command: Sequence[str]) -> Mapping[str, Any]:
    # `ray job submit` splits and joins it again as a shell does.
    entrypoint = shlex.join(resumable(_checked(command, settings.volume), settings.volume))
    return {**_kubernetes(settings, command), "entrypoint": entrypoint}


def _slurm(settings: ClusterSettings, command: Sequence[str]) -> Mapping[str, Any]:
    limit_s = math.ceil(settings.job.hours * 3600)
    if limit_s <= 300:
        raise UserError(
            f"job.hours={settings.job.hours:g} is {limit_s} s, and start and end take 300 s: take 0.1 or more"
        )
    hours, rest = divmod(limit_s, 3600)
    minutes, seconds = divmod(rest, 60)
    return {
        "entrypoint": shlex.join(resumable(_checked(command, None))),
        "limit_s": limit_s,
        "time_limit": f"{hours:02}:{minutes:02}:{seconds:02}",
    }


_SUBMIT = (
    "rl-rec submit --address http://localhost:8265 -- sweep planning --simulator /PATH/THERE --out /PATH/THERE "
    "{fits} --parallel {trials}"
)
_RAY_UP = (
    "ray up FOLDER/cluster.yaml",
    "ray rsync-down FOLDER/cluster.yaml /home/ray/.ray/auth_token FOLDER.token",
    "ray dashboard FOLDER/cluster.yaml &",
    f"RAY_AUTH_TOKEN_PATH=FOLDER.token {_SUBMIT}",
    "ray down FOLDER/cluster.yaml",
)

TARGETS: Mapping[str, Target] = {
    "aws": Target(
        "A cluster on Amazon EC2, for `ray up`.",
        {"cluster.yaml": "aws.yaml.j2"},
        checks.check_ray_up,
        _RAY_UP,
        complete=_aws,
        own="aws",
        ignores=("volume", "job"),
    ),
    "gcp": Target(
        "A cluster on Google Compute Engine, for `ray up`.",
        {"cluster.yaml": "gcp.yaml.j2"},
        checks.check_ray_up,
        _RAY_UP,
        complete=_gcp,
        own="gcp",
        ignores=("volume", "job"),
    ),
    "kuberay": Target(
        "A cluster on Kubernetes that stays, for the KubeRay operator.",
        {"volume.yaml": "volume.yaml.j2", "cluster.yaml": "kuberay.yaml.j2"},
        checks.check_kubernetes,
        (
            "{new_namespace}",
            "kubectl apply --dry-run=server -f FOLDER",
            "kubectl apply -f FOLDER/volume.yaml",
            "kubectl apply -f FOLDER/cluster.yaml",
            "kubectl -n {c.kubernetes.namespace} get raycluster {c.name} --watch",
            f"docs/clusters.md says how to reach it; then: {_SUBMIT}",
        ),
        context=_kubernetes,
        own="kubernetes",
        ignores=("registry_login", "mounts", "spot", "job"),
    ),
    "kuberay-job": Target(
        "A job on Kubernetes with a cluster of its own, for the KubeRay operator.",
        {"volume.yaml": "volume.yaml.j2", "job.yaml": "kuberay-job.yaml.j2"},
        checks.check_kubernetes,
        (
            "{new_namespace}",
            "kubectl apply --dry-run=server -f FOLDER",
            "kubectl apply -f FOLDER/volume.yaml",
            "kubectl apply -f FOLDER/job.yaml",
            "kubectl -n {c.kubernetes.namespace} get rayjob {c.name} --watch",
        ),
        context=_kubernetes_job,
        own="kubernetes",
        ignores=("registry_login", "mounts", "spot"),
        takes_command=True,
    ),
    "slurm": Target(
        "A batch job with a cluster of its own, for Slurm.",
        {"rl-rec.sbatch": "slurm.sbatch.j2"},
        checks.check_bash,
        ("sbatch FOLDER/rl-rec.sbatch", "squeue --me"),
        context=_slurm,
        own="slurm",
        ignores=[
            "registry_login",
            "mounts",
            "volume",
            "spot",
            "min_workers",
            "idle_minutes",
            "head",
            "runners",
            "job.keep_s",
        ],
        needs_registry=False,
        takes_command=True,
        runner_machines=False,
    ),
    "docker": Target(
        "The image of every other target.",
        {"Dockerfile": "Dockerfile.j2", "Dockerfile.dockerignore": "dockerignore.j2"},
        checks.check_docker,
        ("docker build -f FOLDER/Dockerfile -t {image} .", "docker push {image}"),
        ignores=ClusterSettings.model_fields.keys() - {"image", "gpus"},
        makes_cluster=False,
    ),
}
