"""`rl-rec cluster render`: one description, what it adds up to, and what the files of all targets share."""

import json
import re
import shlex
import subprocess
from dataclasses import replace
from importlib.metadata import version

import click
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cluster.manifests.description import ClusterSettings
from cluster.manifests.render import TARGETS, render, settings_of
from cluster.manifests.resumable import resumable
from cluster.render_cli import cluster
from cluster.render_cli import cluster as verb
from envs.errors import UserError
from rl_rec.agents import find_agent
from rl_rec.resources import Processes, left_over
from tests.cluster.manifests import CLOUDS, ROOT, SWEEP, rendered


def locked(package: str) -> str:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return next(line.removeprefix(f"{package}==") for line in lines if line.startswith(f"{package}=="))


@pytest.mark.parametrize("target", TARGETS)
def test_every_version_of_ray_is_the_pinned_one(target):
    text = "".join(rendered(target, "slurm.container=a.sif").values())
    versions = re.findall(r"(?:-ray|rayproject/ray:|rayVersion: \"|ray.__version__ == ')(\d[\d.]*\d)", text)
    assert set(versions) == {locked("ray")}


@pytest.mark.parametrize("target", TARGETS)
def test_the_images_tag_is_the_projects_version_and_rays(target):
    text = "".join(rendered(target, "slurm.container=a.sif").values())
    assert set(re.findall(r"\brl-rec:([\w.-]+)", text)) == {f"{version('rl-rec')}-ray{locked('ray')}"}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("gpus", [0, 4])
def test_every_target_is_accepted_by_its_receiver_whatever_is_set(target, gpus):
    more = ["workers=4", "min_workers=1", f"gpus={gpus}", "trial.per_gpu=2", "spot=false", "name=mine"]
    more += ["kubernetes.auth_secret=mine", "kubernetes.storage_class=efs", "kubernetes.gpu_nodes=a.b/c=d"]
    more += [
        "kubernetes.pull_secrets=one,two",
        "kubernetes.pull_policy=Always",
        "registry_login=docker login x",
    ]
    more += ["aws.worker_profile=w", "gcp.worker_account=ray@my-project.iam.gserviceaccount.com"]
    more += ["kubernetes.egress=10.0.0.0/8,10.1.0.0/16", "aws.security_groups=sg-1", "aws.subnets=subnet-1"]
    more += ["aws.head_profile=p", "slurm.partition=gpu", "slurm.account=me", "slurm.container=a.sif"]
    if TARGETS[target].runner_machines:
        more.append("runners.machines=3")
    assert rendered(target, *more)  # render checks


@pytest.mark.parametrize("target", set(TARGETS) - {"docker"})
def test_usage_statistics_are_off_and_the_token_is_on(target):
    text = str(rendered(target))
    assert "disable-usage-stats" in text and "RAY_USAGE_STATS_ENABLED" in text
    assert "RAY_AUTH_MODE=token" in text or "mode: token" in text


@pytest.mark.parametrize("target", set(TARGETS) - {"docker"})
def test_the_dashboard_listens_on_loopback_unless_an_operator_must_ask_it(target):
    hosts = re.findall(r"dashboard-host[=:]\s?([\d.]+)", str(rendered(target)))
    assert hosts == (["0.0.0.0"] if target == "kuberay-job" else ["127.0.0.1"])


@pytest.mark.parametrize("target", TARGETS)
def test_no_file_holds_a_secret(target):
    # Nothing that looks like a key or a token: only where one is, and how one is made.
    assert not re.search(r"\b[0-9a-f]{32,}\b|AKIA|BEGIN .*KEY|auth_token[\"']?\s*[:=]", str(rendered(target)))


sizes = st.integers(1, 24)


@settings(deadline=None)
@given(
    st.integers(1, 4),
    st.integers(0, 3),
    sizes,
    st.integers(0, 3),
    sizes,
    st.integers(1, 3),
    sizes,
    st.integers(1, 5),
)
def test_the_settings_that_fit_do_fit_and_leave_no_room_for_another_env_runner(
    workers, gpus, cpus, machines, machine_cpus, per_gpu, learner_cpus, runner_cpus
):
    values = {
        "workers": workers,
        "gpus": gpus * workers,
        "worker": {"cpus": cpus},
        "runners": {"machines": machines, "cpus": machine_cpus},
        "trial": {"per_gpu": per_gpu, "cpus": learner_cpus, "runner_cpus": runner_cpus},
    }
    assume(max(gpus * per_gpu, 1) * learner_cpus <= cpus)
    cluster = ClusterSettings.from_mapping(values)
    fits = [f"{path}={value}" for path, value in cluster.fits().items()]
    run = find_agent("hac").train_settings().with_overrides(fits)
    machine = [(machine_cpus, 0)] * machines
    if gpus:  # they alone keep every learner on a worker, whatever Ray places first
        assert left_over([*run.reservation] * cluster.trials, [(cpus, gpus)] * workers + machine) is None
    beside = [(cpus - cluster.trials_per_worker * learner_cpus, 0)] * workers + machine
    runners = Processes("env runners", cluster.trials * run.rollout.runners, runner_cpus)
    assert left_over([runners], beside) is None
    assert left_over([replace(runners, count=runners.count + cluster.trials)], beside) is not None


@pytest.mark.parametrize(
    ("assignments", "problem"),
    [
        (["gpus=8", "workers=3"], r"8 / 3 = 2\.67 is not whole; take workers=1 or 2 or 4 or 8"),
        (["min_workers=5", "workers=2"], "min_workers=5 is more than workers=2"),
        (["runners.machines=1", "runners.min_machines=2"], "min_machines=2 is more than machines=1"),
        (["gpus=4", "worker.cpus=2"], r"4 \* trial.cpus=1 = 4 CPUs, it has worker.cpus=2: raise worker.cpus$"),
        (["trial.per_gpu=9"], "9 runs at once .*: raise worker.cpus or lower trial.per_gpu$"),
        (["trial.cpus=9"], "1 run at once .* = 9 CPUs, .*: raise worker.cpus or lower trial.cpus$"),
        (["gpus=0", "trial.per_gpu=9", "trial.cpus=9"], "1 run .*: raise worker.cpus or lower trial.cpus$"),
        (["trial.runners=20"], r"1 \* 20 = 20 env runners .* 1 \* 7 \+ 0 = 7 fit"),
        (["worker.object_store_gib=20"], "32 / 2 = 16 at most"),
        (["workers=-1"], "workers: expected 1 or more, got '-1'"),
        (["worker.cpu=3"], "did you mean 'worker.cpus'"),
        (["mounts./home/ray/x=~/.aws"], r"'~/.aws' looks secret \(.aws\)"),
        (["mounts./home/ray/x=work/auth_token"], r"looks secret \(auth_token\)"),
        (["mounts./home/ray/x=work/Credentials.json"], r"looks secret \(credentials.json\)"),
        (["mounts./home/ray/x=work/me.pem"], r"looks secret \(me.pem\)"),
        (["workers.cpus=4"], "did you mean 'worker.cpus'"),
        (["kubernetes.egress=10.0.0.1/8"], r"egress.0: expected an address range such as 10\.0\.0\.0/8, got"),
        (["kubernetes.api_server=10.0.0.300/8"], r"expected an address range such as 10\.0\.0\.0/8, got"),
        (["registry_login=docker login -u me -px"], "--password-stdin"),
        (["registry_login=echo HUNTER2 | docker login -u me --password-stdin x"], "--password-stdin"),
        (["registry_login=printf %s 'x' | sudo docker login --password-stdin"], "--password-stdin"),
        (["registry_login=true && docker login --password=x example.org"], "--password-stdin"),
        (["aws.worker_profile=w"], "without aws.head_profile"),
        (["mounts.x=data"], "starts with /"),
        (["mounts=data"], "mounts takes key=value,key=value, got 'data'"),
        (["mounts=/a=x,/a=y"], "mounts has /a twice"),
        (["mounts=/a=data,/b=.ssh"], r"looks secret \(.ssh\)"),
        (["kubernetes.gpu_nodes=l4"], "takes key=value"),
        (
            ["kubernetes.pull_secrets=one,a b"],
            "pull_secrets.1: expected a Secret's name such as registry, got 'a b'",
        ),
        (["kubernetes.pull_secrets=one,"], "pull_secrets.1: expected a Secret's name"),
        (["kubernetes.auth_secret=Mine"], "auth_secret: expected a Secret's name"),
    ],
)
def test_numbers_that_do_not_add_up_are_refused_with_the_arithmetic(assignments, problem):
    with pytest.raises(UserError, match=problem):
        ClusterSettings().with_overrides(assignments)


@pytest.mark.parametrize(
    "login",
    [
        "mkdir -p ~/.docker && get-token --password file | docker login -u me --password-stdin example.org",
        'echo "$(aws ecr get-login-password)" | docker login -u AWS --password-stdin example.org',
        "echo logging in && get-token | docker login -u me --password-stdin example.org",
    ],
)
def test_a_login_without_a_password_is_taken(login):
    assert ClusterSettings().with_overrides([f"registry_login={login}"]).registry_login == login


def test_mounts_are_an_option_too():
    once = ClusterSettings().with_overrides(["mounts=/home/ray/sim.v2=work/sim, /b=c"])
    assert once.mounts == {"/home/ray/sim.v2": "work/sim", "/b": "c"}
    assert once.with_overrides(["mounts={}"]).mounts == {}
    config = yaml.safe_load(rendered("aws", "mounts=/home/ray/sim=work/sim")["cluster.yaml"])
    assert config["file_mounts"] == {"/home/ray/sim": "work/sim"}


def test_a_dataset_whose_name_speaks_of_tokens_may_be_copied():
    mounts = ["mounts./a=work/semantic-token-ids", "mounts./b=data/secretary/tokens.parquet"]
    assert len(ClusterSettings().with_overrides(mounts).mounts) == 2


@pytest.mark.parametrize(
    ("target", "assignments", "problem"),
    [
        ("kuberay", ["head.memory_gib=4"], r"leaves 1.5 GiB, too little for object_store_gib=1 \+ 1"),
        ("kuberay", ["head.memory_gib=5"], r"leaves 2.3 GiB, too little .* \+ 1 and 1 for the processes"),
        ("kuberay", ["head.cpus=1"], "head.cpus=1: .* take 2 or more"),
        ("aws", ["aws.worker_type=g6.xlarge"], "8 CPUs on a g6.xlarge, which has 4"),
        ("aws", ["gpus=2"], "no known machine has 2 GPUs, .* have 0, 1, 4, 8 GPUs"),
        ("aws", ["worker.cpus=200"], "with 1 GPU have at most 64 CPUs"),
        ("gcp", ["gpus=3"], "no known machine has 3 GPUs"),
        ("aws", ["aws.image_id=none"], "aws ssm get-parameter .* --region us-west-2"),
        ("gcp", ["gcp.project=none"], "gcloud projects list"),
        ("gcp", ["gcp.source_image=none"], "gcloud compute images list"),
        ("slurm", ["runners.machines=1"], "slurm has nodes of one kind"),
        ("slurm", ["job.hours=0.05"], "is 180 s"),
    ],
)
def test_what_a_target_cannot_make_is_refused(target, assignments, problem):
    with pytest.raises(UserError, match=problem):
        rendered(target, *assignments)


RENTED = [
    ("aws", ["gpus=4"], 48, 192, 11),  # g6.12xlarge: (48 - 4) / 4
    ("aws", ["gpus=1"], 8, 32, 7),
    ("aws", ["gpus=1", "aws.worker_type=g6.16xlarge"], 64, 256, 63),
    ("aws", ["gpus=1", "aws.worker_type=of-tomorrow"], 8, 32, 7),  # not in the catalogue: the description's
    ("gcp", ["gpus=0", "worker.cpus=5"], 8, 32, 7),
    ("gcp", ["gpus=2"], 24, 96, 11),
]


def test_a_chosen_machine_type_is_taken():
    nodes = yaml.safe_load(rendered("aws", "aws.worker_type=g6.16xlarge")["cluster.yaml"])[
        "available_node_types"
    ]
    assert nodes["worker"]["node_config"]["InstanceType"] == "g6.16xlarge"
    assert nodes["head"]["node_config"]["InstanceType"] == "m7i.large"


@pytest.mark.parametrize(("target", "assignments", "cpus", "gib", "runners"), RENTED)
def test_ray_is_told_every_cpu_of_the_rented_machine(target, assignments, cpus, gib, runners):
    text = rendered(target, *assignments)["cluster.yaml"]
    assert yaml.safe_load(text)["available_node_types"]["worker"]["resources"]["CPU"] == cpus
    assert f"of {cpus} CPUs, {gib} GiB" in text and f"--set rollout.runners={runners} " in text


@pytest.mark.parametrize(
    ("target", "cpus", "warned"),
    [("kuberay", 8, True), ("slurm", 8, True), ("kuberay", 48, False), ("aws", 8, False), ("docker", 8, False)],
)
def test_a_worker_that_asks_for_less_than_machines_with_its_gpus_have_is_warned_about(
    target, cpus, warned, capsys
):
    given = [] if target == "docker" else [f"worker.cpus={cpus}"]
    given += ["aws.image_id=ami-0"] if target == "aws" else []
    more = [part for each in given for part in ("--set", each)]
    command = ["--", *SWEEP] if TARGETS[target].takes_command else []
    run("render", target, "--gpus", 4, *more, *command)
    hint = "4 GPUs have 48 or more: .* --set worker.cpus=48 --set worker.memory_gib=192"
    assert (re.search(hint, capsys.readouterr().err) is not None) is warned


def test_a_train_command_goes_on_once_its_run_is_there(tmp_path):
    out = tmp_path / "my run"
    command = ["train", "hac", "--simulator", "sim", "--out", str(out)]
    again = resumable(command, str(tmp_path))
    stand_in = tmp_path / "rl-rec"
    stand_in.write_text('#!/bin/sh\nfor word; do echo "$word"; done\n')
    stand_in.chmod(0o755)

    def ran() -> list[str]:
        # As Ray does: split like a shell, joined, and given to a shell.
        text = shlex.join(shlex.split(shlex.join(again)))
        environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
        done = subprocess.run(text, shell=True, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    assert ran() == command
    out.mkdir()
    (out / "run.json").touch()
    assert ran() == ["train", "--resume", str(out)]


def test_a_sweep_goes_on_and_other_commands_are_left_alone():
    assert resumable(SWEEP)[-2:] == ["--if-exists", "resume"]
    assert resumable([*SWEEP, "--if-exists=restart"]) == ["rl-rec", *SWEEP, "--if-exists=restart"]
    assert resumable(["bench", "replay"]) == ["rl-rec", "bench", "replay"]


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        (["train", "hac"], "names no --out"),
        (["train", "hac", "--out", "/runs/hac"], "--out /runs/hac is not on the volume /mnt"),
        (["train", "hac", "--out=/mnt2/hac"], "is not on the volume /mnt"),
    ],
)
def test_a_command_whose_results_would_be_lost_is_refused(command, problem):
    with pytest.raises(UserError, match=problem):
        resumable(command, "/mnt")


def test_a_job_that_could_not_see_its_own_run_is_refused_without_a_volume_too(tmp_path):
    command = ["train", "hac", "--simulator", "s3://b/sim"]
    with pytest.raises(UserError, match=r"s3://b/hac: started again, .* a folder that every node sees, or use"):
        resumable([*command, "--out", "s3://b/hac"])
    assert resumable([*command, "--resume", "s3://b/hac"], "/mnt")[-1] == "s3://b/hac"


def test_files_are_written_to_no_url(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="s3://bucket/x: these files are for the machine"):
        cluster.main(["render", "docker", "--out", "s3://bucket/x"], standalone_mode=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("target", ["kuberay-job", "slurm"])
@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ([], "give the command after --"),
        (["rl-rec"], "give the command after --"),
        (["swep"], "swep"),
        (["sweep", "planning", "--simulater", "x"], "--simulater"),
        (["sweep", "planning", "--address", "auto"], "leave --address out"),
    ],
)
def test_a_mistake_in_the_command_is_found_before_it_travels(target, command, problem):
    with pytest.raises((UserError, click.UsageError), match=problem):
        render(target, ClusterSettings(), command)


def test_paths_of_a_job_on_kubernetes_are_absolute_and_slurm_has_the_folder_of_sbatch():
    command = ("rl-rec", "sweep", "planning", "--simulator", "work/sim", "--out", "/mnt/rl-rec/planning")
    with pytest.raises(UserError, match="--simulator is work/sim, a relative path: pods have no such folder"):
        render("kuberay-job", ClusterSettings(), command)
    text = render("slurm", ClusterSettings(), command).files["rl-rec.sbatch"]
    assert "rl-rec sweep planning --simulator work/sim" in text


def run(*arguments: str) -> None:
    verb.main([*map(str, arguments)], standalone_mode=False)


def test_a_target_that_brings_no_job_takes_no_command():
    with pytest.raises(UserError, match="only kuberay-job and slurm take a command"):
        run("render", "kuberay", "--", *SWEEP)


def test_files_are_written_whole_and_replaced_only_when_asked(tmp_path, capsys):
    out = tmp_path / "deploy"
    run("render", "kuberay", "--gpus", 8, "--workers", 4, "--out", out)
    text = capsys.readouterr().out
    assert f"kubectl apply -f {out}/cluster.yaml" in text and "--set rollout.runners=3" in text
    assert "2 GPUs" in (out / "cluster.yaml").read_text()
    with pytest.raises(UserError, match="exists already"):
        run("render", "kuberay", "--out", out)
    with pytest.raises(UserError, match="not whole"):
        run("render", "kuberay", "--gpus", 3, "--workers", 2, "--out", tmp_path / "other")
    run("render", "docker", "--out", out, "--overwrite")
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "Dockerfile",
        "Dockerfile.dockerignore",
        "deploy",
    ]


def test_one_document_for_programs(tmp_path, capsys):
    run("render", "kuberay", "--gpus", 2, "--json")
    result = json.loads(capsys.readouterr().out)
    assert result["fits"]["device"] == "cuda" and result["trials_at_once"] == 2
    assert [document["kind"] for document in yaml.safe_load_all(result["files"]["cluster.yaml"])][
        -1
    ] == "RayCluster"
    run("render", "kuberay", "--out", tmp_path / "x", "--json")
    names = json.loads(capsys.readouterr().out)["files"]
    assert names == [str(tmp_path / "x" / name) for name in ("volume.yaml", "cluster.yaml")]


def test_a_file_of_settings_is_below_the_options(tmp_path, capsys):
    path = tmp_path / "cluster.yaml"
    path.write_text("gpus: 4\nworkers: 2\nkubernetes:\n  namespace: team\n")
    run("render", "kuberay", "--config", path, "--workers", 4)
    text = capsys.readouterr().out
    assert "namespace: team" in text and "maxReplicas: 4" in text
    path.write_text("gpu: 4\n")
    with pytest.raises(UserError, match=f"{path}: unknown setting 'gpu'; did you mean 'gpus'"):
        run("render", "kuberay", "--config", path)
    path.write_text("workers: {cpus: 3}\n")
    with pytest.raises(UserError, match=f"{path}: workers: .*; did you mean 'worker.cpus'"):
        run("render", "kuberay", "--config", path)
    path.write_text("- gpus\n")
    with pytest.raises(UserError, match="holds no settings of a cluster"):
        run("render", "kuberay", "--config", path)


@pytest.mark.parametrize("target", TARGETS)
def test_every_setting_that_shows_is_named_in_a_comment(target):
    """Who reads a file knows which setting to change: a setting named in a comment exists."""
    comments = re.findall(r"#(.*)", "\n".join(rendered(target, "runners.machines=0").values()))
    named = {name for line in comments for name in re.findall(r"\(((?:[a-z_]+\.)+[a-z_]+)\)", line)}
    assert named or target == "docker"
    for name in named:
        with pytest.raises(UserError, match=r"^(?!unknown setting)"):
            ClusterSettings().with_overrides([f"{name}.x=1"])


def leaves(values: dict, prefix: str = "") -> set[str]:
    groups = {name: value for name, value in values.items() if isinstance(value, dict) and value}
    inner = [leaves(value, f"{prefix}{name}.") for name, value in groups.items()]
    return {prefix + name for name in values.keys() - groups.keys()}.union(*inner)


def test_the_list_of_settings_is_the_description(capsys):
    run("settings", "--json")
    listed = json.loads(capsys.readouterr().out)["settings"]
    description = ClusterSettings().model_dump(mode="json")
    assert {each["setting"] for each in listed} == leaves(description) and len(listed) == len(
        leaves(description)
    )
    by_name = {each["setting"]: each for each in listed}
    assert all(each["meaning"] for each in listed)
    assert by_name["head.cpus"]["default"] == 2 and by_name["worker.cpus"]["default"] == 8
    assert by_name["trial.runners"]["type"] == "whole number, 0 or more or none"
    assert by_name["kubernetes.pull_policy"]["type"] == "IfNotPresent, Always, Never"


@pytest.mark.parametrize("target", TARGETS)
def test_the_settings_of_a_target_leave_out_what_others_alone_read(target, capsys):
    run("settings", target, "--json")
    groups = {each["setting"].partition(".")[0] for each in json.loads(capsys.readouterr().out)["settings"]}
    own = {"aws", "gcp", "kubernetes", "slurm"}
    assert groups & own == ({target.removesuffix("-job").replace("kuberay", "kubernetes")} & own)
    # What the files name in comments is listed.
    comments = re.findall(r"#(.*)", "\n".join(rendered(target).values()))
    named = {name for line in comments for name in re.findall(r"\(((?:[a-z_]+\.)+[a-z_]+)\)", line)}
    assert {name.partition(".")[0] for name in named} <= groups


CHANGES = {
    "name": "name=other",
    "image": "image=other",
    "registry_login": "registry_login=log-in",
    "gpus": "gpus=0",
    "workers": "workers=2",
    "min_workers": "min_workers=1",
    "idle_minutes": "idle_minutes=9",
    "spot": "spot=false",
    "head": "head.memory_gib=30",
    "worker": "worker.memory_gib=20",
    "runners": "runners.cpus=4",
    "trial": "trial.runners=1",
    "job": "job.hours=2",
    "volume": "volume=/mnt",
    "mounts": "mounts./a=b",
    "aws": "aws.region=eu-west-1",
    "gcp": "gcp.zone=us-west1-b",
    "kubernetes": "kubernetes.storage_gib=9",
    "slurm": "slurm.wait_s=99",
}


@pytest.mark.parametrize("target", TARGETS)
def test_what_a_target_is_said_to_read_changes_its_files_and_nothing_else_does(target):
    assert CHANGES.keys() == ClusterSettings.model_fields.keys()
    listed = {each["setting"].partition(".")[0] for each in settings_of(target)}
    base = ["gpus=2", "slurm.container=a.sif", "aws.worker_type=x", "gcp.worker_type=x"]
    base += ["runners.machines=1"] if TARGETS[target].runner_machines else []
    before = rendered(target, *base)
    assert {name for name, change in CHANGES.items() if rendered(target, *base, change) != before} == listed


@pytest.mark.parametrize(
    ("target", "given", "problem"),
    [
        ("docker", ["--min-workers", "1"], "docker's files do not change with min_workers; "),
        (
            "docker",
            ["--set", "volume=/mnt", "--set", "spot=false"],
            "do not change with volume and spot;",
        ),
        ("kuberay", ["--set", "spot=false"], "rl-rec cluster settings kuberay lists"),
        ("kuberay", ["--set", "mounts./a=b"], "do not change with mounts./a"),
        ("slurm", ["--set", "job.keep_s=9", "--", *SWEEP], "slurm's files do not change with job.keep_s"),
    ],
)
def test_what_changes_nothing_on_the_command_line_is_warned_about(target, given, problem, tmp_path, capsys):
    run("render", target, "--out", tmp_path / "x", *given)
    warned = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert any(problem in line for line in warned)


def test_one_command_line_may_put_right_what_a_file_for_all_targets_says(tmp_path):
    file = tmp_path / "team.yaml"
    file.write_text("runners: {machines: 2}")
    with pytest.raises(UserError, match=r"slurm has nodes of one kind: set runners\.machines=0"):
        run("render", "slurm", "--config", file, "--", *SWEEP)
    run("render", "slurm", "--config", file, "--set", "runners.machines=0", "--", *SWEEP)
    run("render", "docker", "--gpus", "12", "--set", "worker.cpus=16")


def test_a_file_of_settings_may_be_for_several_targets(tmp_path):
    path = tmp_path / "team.yaml"
    path.write_text("spot: false\nmin_workers: 1\ngcp: {zone: us-west1-b}\n")
    run("render", "docker", "--config", path, "--set", "image=mine", "--out", tmp_path / "x")
    assert (tmp_path / "x/Dockerfile").is_file()


@pytest.mark.parametrize("page", ["clusters.md", "security.md"])
def test_the_pages_name_the_pinned_version_and_settings_that_exist(page):
    text = (ROOT / "docs" / page).read_text()
    assert set(re.findall(r"(?::|-ray)(\d+\.\d+\.\d+)(?!-ray)\b", text)) == {locked("ray")}
    assert set(re.findall(r":([\d.]+)-ray", text)) <= {version("rl-rec")}
    groups = "|".join(ClusterSettings.model_fields)
    named = set(re.findall(rf"`((?:{groups})(?:\.[a-z_]+)+)`", text)) - {"rollout.runners"}
    assert named
    for name in named:
        with pytest.raises(UserError, match=r"^(?!unknown setting)"):
            ClusterSettings().with_overrides([f"{name}.x=1"])


def test_the_verb_is_registered_and_its_data_packaged():
    text = (ROOT / "setup.cfg").read_text()
    assert "cluster = cluster.render_cli:cluster" in text and "schemas/*" in text and "templates/*" in text


def test_a_job_that_would_leave_the_gpus_idle_is_warned_about():
    arguments = [
        "render",
        "kuberay-job",
        "--gpus",
        "4",
        "--",
        "sweep",
        "planning",
        "--simulator",
        "/mnt/rl-rec/sim",
    ]
    arguments += ["--out", "/mnt/rl-rec/x"]
    assert "leaves the GPUs idle: give it --set device=cuda" in CliRunner().invoke(verb, arguments).stderr
    fitting = CliRunner().invoke(verb, [*arguments, "--set", "device=cuda"])
    assert fitting.exit_code == 0 and "leaves the GPUs idle" not in fitting.stderr


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_that_machines_could_not_pull_is_warned_about(target):
    command = ["--", *SWEEP, "--set", "device=cuda"] if TARGETS[target].takes_command else []
    arguments = ["render", target, *(word for text in CLOUDS for word in ("--set", text))]
    warned = CliRunner().invoke(verb, [*arguments, *command])
    assert ("names no registry" in warned.stderr) is (target != "slurm") and warned.exit_code == 0
    named = CliRunner().invoke(verb, [*arguments, "--set", "image=registry.example.org/a/rl-rec", *command])
    assert named.stderr == "" and named.exit_code == 0


@pytest.mark.parametrize("more", [["--track", "wandb"], ["--set", "agent.sids=s3://bucket/sids"]])
def test_a_job_that_reaches_outside_of_closed_pods_is_warned_about(more):
    arguments = ["render", "kuberay-job", "--gpus", "0", "--set", "image=a/b"]
    job = ["--", "train", "hsrl", "--simulator", "/mnt/rl-rec/s", "--out", "/mnt/rl-rec/x"]
    warned = CliRunner().invoke(verb, [*arguments, *job, *more])
    assert "pods reach nothing outside" in warned.stderr and "kubernetes.egress" in warned.stderr
    assert warned.exit_code == 0
    for silent in ([*arguments, *job], [*arguments, "--set", "kubernetes.egress=10.0.0.0/8", *job, *more]):
        assert CliRunner().invoke(verb, silent).stderr == ""


@pytest.mark.parametrize(
    ("target", "image", "login"),
    [
        (
            "aws",
            "1.dkr.ecr.eu-west-1.amazonaws.com/rl-rec",
            "aws ecr get-login-password --region eu-west-1 | docker login --username AWS --pass",
        ),
        ("gcp", "us-west1-docker.pkg.dev/p/r/rl-rec", "gcloud auth configure-docker us-west1-docker.pkg.dev"),
        ("aws", "registry.example.org/rl-rec", None),
        ("kuberay", "1.dkr.ecr.eu-west-1.amazonaws.com/rl-rec", None),  # nodes have rights of their own
    ],
)
def test_a_clouds_registry_without_a_login_is_warned_about(target, image, login):
    project = ["--set", "gcp.project=my-project"] if target == "gcp" else []
    arguments = ["render", target, "--gpus", "0", "--set", f"image={image}", *project]
    warned = CliRunner().invoke(verb, arguments)
    assert warned.exit_code == 0
    assert warned.stderr == "" if login is None else f"--set 'registry_login={login}" in warned.stderr


def test_an_image_is_no_cluster_that_settings_fit(tmp_path, capsys):
    run("render", "docker", "--out", tmp_path / "x")
    told = capsys.readouterr().out
    assert "docker build" in told and "fits" not in told


def test_a_login_by_a_role_that_machines_do_not_have_is_warned_about():
    login = "registry_login=aws ecr get-login-password | docker login -u AWS --password-stdin example.org"
    arguments = ["render", "aws", "--gpus", "0", "--set", "image=a/b", "--set", login]
    assert "--set aws.worker_profile=NAME" in CliRunner().invoke(verb, arguments).stderr
    roles = ["--set", "aws.head_profile=h", "--set", "aws.worker_profile=w"]
    assert CliRunner().invoke(verb, [*arguments, *roles]).stderr == ""


def test_the_next_steps_fill_the_cluster_and_name_its_namespace(capsys):
    run("render", "kuberay", "--gpus", 8, "--workers", 4, "--set", "kubernetes.namespace=ours", "--json")
    steps = json.loads(capsys.readouterr().out)["next"]
    assert steps[0].startswith("kubectl create namespace ours")
    assert "--set device=cuda" in steps[-1] and steps[-1].endswith("--parallel 8")
    run("render", "kuberay", "--json")
    assert "create namespace" not in capsys.readouterr().out  # `default` is there


def test_what_is_printed_is_one_stream_of_documents():
    printed = CliRunner().invoke(verb, ["render", "kuberay"]).stdout
    kinds = [document["kind"] for document in yaml.safe_load_all(printed)]
    assert kinds[0] == "PersistentVolumeClaim" and kinds[-1] == "RayCluster"


@pytest.mark.parametrize("given", ["image=registry.example.org/rl-rec:latest", "slurm.environment=~/venv"])
def test_what_would_break_later_is_refused(given):
    with pytest.raises(UserError, match="expected something like "):
        ClusterSettings().with_overrides([given])


def test_results_behind_a_url_outlive_the_cluster_where_the_command_finds_them_again():
    sweep = ["sweep", "planning", "--out", "s3://bucket/planning"]
    assert resumable(sweep, "/mnt/rl-rec") == ["rl-rec", *sweep, "--if-exists", "resume"]
    with pytest.raises(UserError, match="could not see whether a run is there"):
        resumable(["train", "hac", "--out", "s3://bucket/run"], "/mnt/rl-rec")
