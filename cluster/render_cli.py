"""`rl-rec cluster render`: the files that make a cluster, from one description."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import RenderableType
from rich.text import Text

from cluster.manifests.description import ClusterSettings
from cluster.manifests.machines import smallest
from cluster.manifests.render import TARGETS, Rendered, settings_of, unread
from cluster.manifests.render import render as render_files
from envs.counted import counted
from envs.errors import UserError
from envs.storage.location import Location, Url
from rl_rec.cli.options import FOLDER, Choice, json_option, overwrite_option, set_option
from rl_rec.cli.output import console, emit
from rl_rec.cli.settings_list import settings_table

_OUTSIDE = re.compile(r"\b(?!file\b)[a-z0-9+]+://|^--track\b")
"""What a command reaches over the network: folders behind URLs, trackers."""

_LOGINS = {
    ".amazonaws.com": "aws ecr get-login-password --region {region} | "
    "docker login --username AWS --password-stdin {registry}",
    "-docker.pkg.dev": "gcloud auth configure-docker {registry} --quiet",
}
"""By which command a machine logs in with its role, by the end of the registry's name."""


@click.group(epilog="Example: rl-rec cluster render kuberay --gpus 8 --workers 4 --out deploy/ray")
def cluster() -> None:
    """Make the files that make a cluster."""


@cluster.command(epilog="Example: rl-rec cluster settings kuberay")
@click.argument("target", type=Choice([*TARGETS]), required=False, metavar="[TARGET]")
@json_option
def settings(target: str | None, as_json: bool) -> None:
    """List the settings of a cluster's description: what render takes with --set or in its --config.

    With TARGET (aws, gcp, kuberay, kuberay-job, slurm or docker), without those that only others read.
    """
    emit({"target": target, "settings": settings_of(target)}, as_json, settings_table)


@cluster.command(
    epilog="Examples: rl-rec cluster render kuberay --gpus 8 --workers 4 --out deploy/ray; "
    "rl-rec cluster render slurm --gpus 4 --out deploy/slurm -- sweep exploration-variance "
    "--simulator work/sim --out work/sigma; "
    "rl-rec cluster render docker --set image=registry.example.org/team/rl-rec --out deploy/image"
)
@click.argument("target", type=Choice([*TARGETS]), metavar="TARGET")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND...]")
@click.option("--gpus", type=click.IntRange(0), help="GPUs of all workers together.")
@click.option("--workers", type=click.IntRange(1), help="Workers at most.")
@click.option("--min-workers", type=click.IntRange(0), help="Workers that stay when nothing runs.")
@click.option("--name", help="The cluster's name.")
@click.option("--config", type=click.Path(path_type=Path), help="A YAML file of settings, below the options.")
@click.option("--out", type=FOLDER, help="The folder to write; files are printed without it.")
@set_option
@overwrite_option
@json_option
def render(
    target: str,
    command: tuple[str, ...],
    gpus: int | None,
    workers: int | None,
    min_workers: int | None,
    name: str | None,
    config: Path | None,
    out: Location | None,
    assignments: Sequence[str],
    overwrite: bool,
    as_json: bool,
) -> None:
    """Render and check the files of TARGET: aws and gcp (`ray up`), kuberay, kuberay-job, slurm, docker.

    All come from one description, so that a cluster is the same wherever it runs; a description that does not
    add up is refused. rl-rec cluster settings TARGET lists what --set and --config take. Each file says which
    settings of rl-rec train and sweep fit the cluster. COMMAND is the job of kuberay-job and slurm, what would
    follow rl-rec; started again, it goes on from its checkpoints. docs/clusters.md walks from zero to a job for
    each target, docs/security.md says what each exposes.
    """
    from envs.files import new_directory
    from tuning.sweep_files import read_yaml

    if isinstance(out, Url):
        raise UserError(
            f"--out {out}: these files are for the machine that you start it from; name a local folder"
        )
    values = {} if config is None else read_yaml(config)
    if not isinstance(values, Mapping):
        raise UserError(f"{config} holds no settings of a cluster: name them, such as gpus: 8")
    described = ClusterSettings.from_mapping(values, file=config)
    fields = {"gpus": gpus, "workers": workers, "min_workers": min_workers, "name": name}
    pairs = [f"{field}={value}" for field, value in fields.items() if value is not None]
    pairs = [*assignments, *pairs]
    described = described.with_overrides(pairs)
    result = render_files(target, described, command)
    given = [pair.partition("=")[0].strip() for pair in pairs]  # a file may be for several targets
    in_vain = unread(target, given)
    for warning in [*([in_vain] if in_vain else []), *_warnings(described, result, command)]:
        console.print(f"[yellow]warning: {warning}[/yellow]", soft_wrap=True)
    if out is not None:
        with new_directory(out, overwrite=overwrite) as draft:
            for file, text in result.files.items():
                (draft / file).write_text(text)
    elif overwrite:
        raise UserError("--overwrite without --out: nothing is written")
    if out is None and not as_json:
        _print_files(result)
    else:
        emit(describe(result, out), as_json, _written)


def _warnings(described: ClusterSettings, result: Rendered, command: Sequence[str]) -> Iterator[str]:
    if (
        result.fits.get("device") == "cuda"
        and command
        and not any("device=" in word or word == "--device" for word in command)
    ):
        yield f"the command leaves the GPUs idle: give it {_options(result.fits)}"
    if TARGETS[result.target].needs_registry and "/" not in described.image:
        yield (
            f"image={described.image} names no registry that it is pushed to and machines pull it from: "
            f"--set image=registry.example.org/team/{described.image}"
        )
    own = TARGETS[result.target].own
    machine = smallest(described.gpus_per_worker) if described.gpus and own in ("kubernetes", "slurm") else None
    if machine is not None and machine.cpus > described.worker.cpus:
        yield (
            f"worker.cpus={described.worker.cpus}, and machines with {counted(machine.gpus, 'GPU')} have "
            f"{machine.cpus} or more: what a worker does not ask for stays idle; "
            f"--set worker.cpus={machine.cpus} --set worker.memory_gib={machine.memory_gib}"
        )
    if own in ("aws", "gcp"):
        for place, here in described.mounts.items():
            if not Path(here).expanduser().exists():
                yield f"mounts: {here} is not there, which `ray up` would copy to {place}"
    outside = next((word for word in command if _OUTSIDE.search(word)), None)
    if own == "kubernetes" and outside is not None and not described.kubernetes.egress:
        yield (
            f"pods reach nothing outside, and the command has {outside}: "
            "open the addresses that it takes with --set kubernetes.egress=RANGE,..."
        )
    registry = described.image.partition("/")[0]
    login = next((command for ending, command in _LOGINS.items() if registry.endswith(ending)), None)
    if own in ("aws", "gcp") and described.registry_login is None and login is not None:
        yield (
            f"{registry} asks for a login, and there is none: --set "
            + shlex.quote("registry_login=" + login.format(registry=registry, region=registry.split(".")[-3]))
        )
    if own == "aws" and "aws ecr " in (described.registry_login or "") and described.aws.worker_profile is None:
        yield (
            "registry_login asks ECR with each machine's role, and none may: name roles that may read it, "
            "--set aws.head_profile=NAME --set aws.worker_profile=NAME"
        )


def describe(result: Rendered, out: Path | None) -> dict[str, Any]:
    """The whole result as plain data: the files' texts where they were not written."""
    where = "FOLDER" if out is None else shlex.quote(str(out))
    return {
        "target": result.target,
        "files": dict(result.files) if out is None else [str(out / name) for name in result.files],
        "fits": dict(result.fits),
        "trials_at_once": result.trials,
        "next": [step.replace("FOLDER", where) for step in result.steps],
    }


def _print_files(result: Rendered) -> None:
    """Verbatim: what is printed may be piped to a file or to ``kubectl apply -f -``."""
    for index, (name, text) in enumerate(result.files.items()):
        if len(result.files) > 1:
            if index and name.endswith(".yaml"):
                click.echo("---")
            click.echo(f"# ---- {name}")
        click.echo(text, nl=False)


def _options(fits: Mapping[str, Any]) -> str:
    return " ".join(f"--set {path}={value}" for path, value in fits.items())


def _written(described: Mapping[str, Any]) -> RenderableType:
    lines = [
        *(f"wrote {file}" for file in described["files"]),
        *(
            [
                f"fits: {_options(described['fits'])}",
                f"fits a study or sweep besides: --parallel {described['trials_at_once']}",
            ]
            if TARGETS[described["target"]].makes_cluster
            else []
        ),
    ]
    return Text("\n".join([*lines, "next:", *(f"  {step}" for step in described["next"])]))
