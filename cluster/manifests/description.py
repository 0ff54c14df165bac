"""What a cluster is, in one typed description from which every manifest is rendered."""

import math
import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import PurePosixPath
from typing import Any

from pydantic import Field, model_validator
from typing_extensions import Self

from cluster.manifests.target_settings import (
    AwsSettings,
    GcpSettings,
    KubernetesSettings,
    SlurmSettings,
)
from envs.counted import counted
from envs.settings import Settings

_SECRET_NAMES = {".ssh", ".aws", ".kube", ".ray", ".config", ".netrc", ".env", ".gnupg", ".docker"}
_SECRET_STEMS = {"token", "auth_token", "secret", "secrets", "credential", "credentials"}
_SECRET_ENDINGS = {".pem", ".key"}
_WRITTEN_PASSWORD = re.compile(
    r"\blogin\s([^|;&]*\s)?(-p|--password(?!-stdin))"  # as an option
    r"|\b(echo|printf)\s[^|;&$`]*\|[^;&]*\blogin\b"  # through a pipe; what the machine fills in has $ or `
)


def ray_version() -> str:
    """The version that the images carry: the one that is installed here, because both ends must be equal."""
    return version("ray")


def image_tag() -> str:
    """The tag of the image: the project's version and Ray's, as both are in it."""
    return f"{version('rl-rec')}-ray{ray_version()}".replace(
        "+", "-"
    )  # of a local version; no tag may have one


class MachineSettings(Settings):
    """One machine or pod, as Ray sees it."""

    cpus: int = Field(8, ge=1)
    """CPUs; aws and gcp rent a machine type with as many or more, and all of them are used."""
    memory_gib: int = Field(32, ge=2)
    """Memory in GiB, the object store included; likewise."""
    object_store_gib: int = Field(4, ge=1)
    """Of it, Ray's object store in /dev/shm; more holds larger batches on their way."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.object_store_gib > self.memory_gib / 2:
            raise ValueError(
                f"object_store_gib={self.object_store_gib} of memory_gib={self.memory_gib} is more than half: "
                f"{self.memory_gib} / 2 = {self.memory_gib / 2:g} at most"
            )
        return self


class RunnerSettings(MachineSettings):
    """Machines without a GPU that only collect experience."""

    machines: int = Field(0, ge=0)
    """How many there are at most; 0: the workers' own CPUs collect."""
    min_machines: int = Field(0, ge=0)
    """How many stay when nothing runs."""

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        if self.min_machines > self.machines:
            raise ValueError(f"min_machines={self.min_machines} is more than machines={self.machines}")
        return self


class TrialSettings(Settings):
    """What one training run takes, from which the resource settings that fit are worked out."""

    per_gpu: int = Field(1, ge=1)
    """Runs that share a GPU; small networks leave most of one idle."""
    cpus: int = Field(1, ge=1)
    """CPUs of the process that learns."""
    runners: int | None = Field(None, ge=0)
    """Remote env runners, ``rollout.runners``; none: as many as the CPUs that are left hold."""
    runner_cpus: int = Field(1, ge=1)
    """CPUs of one of them."""


class JobSettings(Settings):
    """A job that comes with its cluster: kuberay-job and slurm."""

    hours: float = Field(24.0, gt=0)
    """Hours until it is stopped."""
    retries: int = Field(3, ge=0)
    """New attempts, each from the last checkpoint: after a failure (kuberay-job), after its hours (slurm)."""
    keep_s: int = Field(600, ge=0)
    """Seconds that the finished cluster stays, to look at its logs (kuberay-job)."""


class ClusterSettings(Settings):
    """A cluster: a head without work, GPU workers, and machines that only collect experience."""

    name: str = Field("rl-rec", pattern=r"^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$", examples=["team-a"])
    """Its name."""
    image: str = Field(
        "rl-rec",
        pattern=r"^[a-z0-9]([a-z0-9._/:-]*/)?[a-z0-9._-]*[a-z0-9]$",
        examples=["registry.example.org/team-a/rl-rec"],
    )
    """The image that the docker target builds, with its registry and without a tag."""
    registry_login: str | None = None
    """Command by which each machine logs in to the image's registry with its own role (aws, gcp)."""
    gpus: int = Field(1, ge=0)
    """GPUs of all workers together; 0: workers have none."""
    workers: int = Field(1, ge=1)
    """Workers at most."""
    min_workers: int = Field(0, ge=0)
    """Workers that stay when nothing runs; 0 costs least and starts slowest."""
    idle_minutes: float = Field(5.0, gt=0)
    """Minutes without work after which a machine is given back."""
    spot: bool = True
    """Workers and runner machines on capacity that may be taken away, the head never."""
    head: MachineSettings = MachineSettings(cpus=2, memory_gib=8, object_store_gib=1)
    """The head: bookkeeping, dashboard and the command that you start; Ray places no work there."""
    worker: MachineSettings = MachineSettings()
    """A worker."""
    runners: RunnerSettings = RunnerSettings(cpus=8, memory_gib=16, object_store_gib=2)
    """Machines that only collect experience."""
    trial: TrialSettings = TrialSettings()
    """What one training run takes."""
    job: JobSettings = JobSettings()
    """The job of kuberay-job and slurm."""
    volume: str = Field("/mnt/rl-rec", pattern=r"^(/[\w.-]+)+$", examples=["/mnt/rl-rec"])
    """Where pods mount the volume (kuberay, kuberay-job)."""
    mounts: dict[str, str] = Field({})
    """Folders to copy to every machine of ``ray up``: /path/there=path/here,... Nothing secret."""
    aws: AwsSettings = AwsSettings()
    """Amazon EC2."""
    gcp: GcpSettings = GcpSettings()
    """Google Compute Engine."""
    kubernetes: KubernetesSettings = KubernetesSettings()
    """Kubernetes."""
    slurm: SlurmSettings = SlurmSettings()
    """Slurm."""

    @property
    def gpus_per_worker(self) -> int:
        return self.gpus // self.workers

    @property
    def trials_per_worker(self) -> int:
        """Training runs at once on a worker."""
        return max(self.gpus_per_worker * self.trial.per_gpu, 1)

    @property
    def trials(self) -> int:
        """Training runs at once on the whole cluster."""
        return self.workers * self.trials_per_worker

    @property
    def _runner_slots(self) -> tuple[int, int]:
        """Env runners that fit on one worker beside the learners, and on all runner machines together."""
        own = (self.worker.cpus - self.trials_per_worker * self.trial.cpus) // self.trial.runner_cpus
        return own, self.runners.machines * (self.runners.cpus // self.trial.runner_cpus)

    @property
    def runners_per_trial(self) -> int:
        """``rollout.runners`` that fit."""
        if self.trial.runners is not None:
            return self.trial.runners
        own, pool = self._runner_slots
        return (self.workers * own + pool) // self.trials

    def fits(self) -> Mapping[str, Any]:
        """The settings of ``rl-rec train`` and ``rl-rec sweep`` that fill this cluster."""
        share = math.floor(1e4 / self.trial.per_gpu) / 1e4  # Ray counts in ten-thousandths
        return {
            "device": "cuda" if self.gpus else "cpu",
            "resources.cpus": self.trial.cpus,
            **({"resources.gpus": share} if self.gpus else {}),
            "rollout.runners": self.runners_per_trial,
            "resources.runner_cpus": self.trial.runner_cpus,
        }

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = (self._workers_problem, self._cpus_problem, self._mounts_problem, self._login_problem)
        if found := next(filter(None, (problem() for problem in problems)), None):
            raise ValueError(found)
        return self

    def _workers_problem(self) -> str | None:
        if self.min_workers > self.workers:
            return f"min_workers={self.min_workers} is more than workers={self.workers}"
        if self.gpus % self.workers:
            whole = [str(count) for count in range(1, self.gpus + 1) if self.gpus % count == 0]
            return (
                f"gpus={self.gpus} over workers={self.workers}: {self.gpus} / {self.workers} = "
                f"{self.gpus / self.workers:.2f} is not whole; take workers={' or '.join(whole)}"
            )
        return None

    def _cpus_problem(self) -> str | None:
        at_once, trial = self.trials_per_worker, self.trial
        if at_once * trial.cpus > self.worker.cpus:
            above_one = {"trial.per_gpu": self.gpus and trial.per_gpu > 1, "trial.cpus": trial.cpus > 1}
            helps = ["raise worker.cpus", *(f"lower {name}" for name, helps in above_one.items() if helps)]
            return (
                f"{counted(at_once, 'run')} at once on a worker: {at_once} * trial.cpus={trial.cpus} = "
                f"{counted(at_once * trial.cpus, 'CPU')}, it has worker.cpus={self.worker.cpus}: "
                f"{' or '.join(helps)}"
            )
        own, pool = self._runner_slots
        wanted, there = self.trials * (trial.runners or 0), self.workers * own + pool
        if wanted > there:
            smaller = " or trial.runner_cpus" if trial.runner_cpus > 1 else ""
            return (
                f"runs * trial.runners = {self.trials} * {trial.runners} = {wanted} env runners of "
                f"{trial.runner_cpus} CPU, but workers * {own} + {pool} on runner machines = "
                f"{self.workers} * {own} + {pool} = {there} fit: "
                f"lower trial.runners{smaller}, or raise worker.cpus or runners.machines"
            )
        return None

    def _mounts_problem(self) -> str | None:
        for there, here in self.mounts.items():
            if found := _secret_part(here):
                return f"mounts: {here!r} looks secret ({found}), and every machine would hold it: leave it out"
            if not there.startswith("/"):
                return f"mounts: {there!r} is a path on the machines and starts with /"
        return None

    def _login_problem(self) -> str | None:
        if _WRITTEN_PASSWORD.search(self.registry_login or ""):
            return (
                "registry_login holds a password, and the file would too: let the machine's role ask for one, "
                "and pass it on with --password-stdin"
            )
        return None


def _secret_part(path: str) -> str | None:
    """The part of ``path`` whose name is one that keys and credentials have."""
    for part in PurePosixPath(path.lower()).parts:
        stem, ending = PurePosixPath(part).stem, PurePosixPath(part).suffix
        if part in _SECRET_NAMES or stem in _SECRET_STEMS or ending in _SECRET_ENDINGS:
            return part
    return None
