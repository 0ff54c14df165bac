"""What each target's files say, read as their receivers read them."""

import re

import pytest
import yaml

from cluster.manifests.checks import (
    check_bash,
    check_docker,
    check_kubernetes,
    check_ray_up,
    docker_instructions,
)
from tests.cluster.manifests import ROOT, rendered

GPUS = ["gpus=8", "workers=4", "runners.machines=3", "min_workers=1"]


def documents(target: str, *assignments: str) -> dict[str, dict]:
    """The Kubernetes documents by kind and name."""
    texts = rendered(target, *assignments).values()
    found = [document for text in texts for document in yaml.safe_load_all(text)]
    return {f"{document['kind']}/{document['metadata']['name']}": document for document in found}


def cluster_spec(target: str, *assignments: str) -> dict:
    kind = "RayJob" if target == "kuberay-job" else "RayCluster"
    spec = documents(target, *assignments)[f"{kind}/rl-rec"]["spec"]
    return spec["rayClusterSpec"] if target == "kuberay-job" else spec


def pods(spec: dict) -> dict[str, dict]:
    groups = {group["groupName"]: group["template"] for group in spec["workerGroupSpecs"]}
    return {"head": spec["headGroupSpec"]["template"], **groups}


@pytest.mark.parametrize(("target", "cpus"), [("aws", 8), ("gcp", 24)])
def test_ray_up_has_an_idle_on_demand_head_and_spot_workers(target, cpus):
    config = yaml.safe_load(rendered(target, *GPUS, "aws.worker_type=mine")["cluster.yaml"])
    nodes = config["available_node_types"]
    assert config["max_workers"] == 7 and config["head_node_type"] == "head"
    assert nodes["head"]["resources"] == {"CPU": 0} and nodes["worker"]["resources"] == {"CPU": cpus, "GPU": 2}
    assert (nodes["worker"]["min_workers"], nodes["worker"]["max_workers"]) == (1, 4)
    spot = {name: re.search("spot|SPOT", str(node["node_config"])) is not None for name, node in nodes.items()}
    assert spot == {"head": False, "worker": True, "runner": True}
    still = yaml.safe_load(rendered(target, *GPUS, "aws.worker_type=mine", "spot=false")["cluster.yaml"])
    assert not re.search("spot|SPOT", str(still["available_node_types"]))


@pytest.mark.parametrize("target", ["aws", "gcp"])
@pytest.mark.parametrize(
    ("break_it", "problem"),
    [
        (lambda text: text.replace("max_workers: 4\n", "max_workers: many\n"), "not of type 'integer'"),
        (lambda text: text.replace("upscaling_speed:", "upscale_speed:"), "upscale_speed"),
        (lambda text: text.replace("head_node_type: head", "heads: 1"), "heads"),
        (lambda text: text.replace("\nmax_workers: 7", "\nmax_workers: 0"), "smaller than the sum"),
        (lambda text: text.replace("container_name: rl_rec", "container: rl_rec"), "container"),
    ],
)
def test_ray_up_would_refuse_a_broken_file(target, break_it, problem):
    text = rendered(target, *GPUS, "aws.worker_type=mine")["cluster.yaml"]
    check_ray_up("", text)
    assert break_it(text) != text
    with pytest.raises((ValueError, AssertionError), match=problem):
        check_ray_up("", break_it(text))


def test_the_token_is_born_on_the_head_and_mounted_where_ray_puts_it_on_workers():
    from ray.autoscaler.sdk import get_docker_host_mount_location

    config = yaml.safe_load(rendered("aws", "name=mine")["cluster.yaml"])
    (synced,) = config["cluster_synced_files"]
    assert config["docker"]["worker_run_options"] == [
        f"--volume {get_docker_host_mount_location('mine')}{synced}:{synced}"
    ]
    assert any("umask 077" in command and "--generate" in command for command in config["head_setup_commands"])
    assert config["file_mounts"] == {}


def test_a_machine_on_amazon_hides_its_role_and_encrypts_its_disk():
    for node in yaml.safe_load(rendered("aws", *GPUS, "aws.worker_type=x")["cluster.yaml"])[
        "available_node_types"
    ].values():
        assert node["node_config"]["MetadataOptions"]["HttpTokens"] == "required"
        assert node["node_config"]["BlockDeviceMappings"][0]["Ebs"]["Encrypted"] is True


@pytest.mark.parametrize("target", ["kuberay", "kuberay-job"])
def test_rays_autoscaler_reads_the_groups_as_described(target):
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    spec = cluster_spec(target, *GPUS)
    config = _derive_autoscaling_config_from_ray_cr(
        {"metadata": {"name": "rl-rec", "namespace": "default"}, "spec": spec}
    )
    nodes = config["available_node_types"]
    assert config["idle_timeout_minutes"] == 5 and config["max_workers"] == 7
    assert nodes["headgroup"]["resources"]["CPU"] == 0
    # 32 - (4 / 4 + 4 / 5 + 8 / 10 + 16 * 6 / 100 + 1) = 27.44 GiB, and 16 - (1 + 0.8 + 0.8 + 1) = 12.4 GiB.
    assert nodes["worker"]["resources"] == {"CPU": 8, "GPU": 2, "memory": int(27.44 * 1024) * 2**20}
    assert nodes["runner"]["resources"] == {"CPU": 8, "memory": int(12.4 * 1024) * 2**20}
    assert (nodes["worker"]["min_workers"], nodes["worker"]["max_workers"]) == (1, 4)


@pytest.mark.parametrize("target", ["kuberay", "kuberay-job"])
def test_pods_take_what_they_ask_for_are_not_root_and_share_the_volume(target):
    for name, template in pods(cluster_spec(target, *GPUS)).items():
        spec, (container,) = template["spec"], template["spec"]["containers"]
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        assert requests | {"cpu": None} == limits | {"cpu": None}
        assert container["imagePullPolicy"] == "IfNotPresent" and "imagePullSecrets" not in spec
        assert spec["securityContext"]["runAsNonRoot"] is True and spec["securityContext"]["runAsUser"] != 0
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }
        assert spec["automountServiceAccountToken"] is (name == "head")
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts == {"work": "/mnt/rl-rec", "shared-memory": "/dev/shm"}
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        assert volumes["work"]["persistentVolumeClaim"]["claimName"] == "rl-rec"
        assert volumes["shared-memory"]["emptyDir"]["medium"] == "Memory"
        assert spec.get("tolerations") == (
            [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
            if name == "worker"
            else None
        )


@pytest.mark.parametrize("target", ["kuberay", "kuberay-job"])
def test_the_object_store_fits_into_shared_memory_and_that_into_the_pod(target):
    spec = cluster_spec(target, *GPUS, "worker.object_store_gib=16")
    groups = {
        "head": spec["headGroupSpec"],
        **{group["groupName"]: group for group in spec["workerGroupSpecs"]},
    }
    for group in groups.values():
        pod = group["template"]["spec"]
        shared = next(v["emptyDir"] for v in pod["volumes"] if "emptyDir" in v)["sizeLimit"]
        memory = pod["containers"][0]["resources"]["limits"]["memory"]
        store = int(group["rayStartParams"]["object-store-memory"]) / 2**30
        assert store < int(shared.removesuffix("Gi")) < int(memory.removesuffix("Mi")) / 1024


@pytest.mark.parametrize("target", ["kuberay", "kuberay-job"])
def test_a_pod_fits_on_the_machine_beside_the_nodes_daemons(target):
    # Allocatable CPU and GiB of Google's n2-standard-2, n2-standard-8 and n2-standard-4; the daemon sets of an
    # ordinary cluster ask for 0.4 CPU and 0.5 GiB of it.
    allocatable = {"head": (1.93, 6.1), "worker": (7.91, 28.3), "runner": (3.92, 13.3)}
    more = ["runners.cpus=4", "runners.memory_gib=16", "runners.machines=1"]
    spec = cluster_spec(target, *more)
    for name, template in pods(spec).items():
        sizes = [container["resources"]["requests"] for container in template["spec"]["containers"]]
        sizes += [spec["autoscalerOptions"]["resources"]["requests"]] if name == "head" else []
        cpus = sum(int(size["cpu"].removesuffix("m")) for size in sizes) / 1000
        memory_gib = sum(int(size["memory"].removesuffix("Mi")) for size in sizes) / 1024
        assert cpus + 0.4 <= allocatable[name][0] and memory_gib + 0.5 <= allocatable[name][1]


@pytest.mark.parametrize("target", ["kuberay", "kuberay-job"])
def test_every_pod_logs_in_to_the_registry_with_the_named_secrets(target):
    found = documents(target, *GPUS, "kubernetes.pull_secrets=mine,ours", "kubernetes.pull_policy=Always")
    job = found.get("RayJob/rl-rec", {}).get("spec", {})
    spec = job.get("rayClusterSpec") or found["RayCluster/rl-rec"]["spec"]
    for template in [*pods(spec).values(), *([job["submitterPodTemplate"]] if job else [])]:
        assert template["spec"]["imagePullSecrets"] == [{"name": "mine"}, {"name": "ours"}]
        assert template["spec"]["containers"][0]["imagePullPolicy"] == "Always"


def test_machines_log_in_before_the_image_is_pulled_with_the_role_they_are_given():
    login = "aws ecr get-login-password | docker login --username AWS --password-stdin registry.example.org"
    roles = [
        "aws.head_profile=head",
        "aws.worker_profile=worker",
        "gcp.worker_account=w@p.iam.gserviceaccount.com",
    ]
    for target in ("aws", "gcp"):
        config = yaml.safe_load(
            rendered(target, *GPUS, *roles, "aws.worker_type=x", f"registry_login={login}")["cluster.yaml"]
        )
        assert config["initialization_commands"] == [login]
        nodes = {name: node["node_config"] for name, node in config["available_node_types"].items()}
        if target == "aws":
            profiles = {name: node["IamInstanceProfile"]["Name"] for name, node in nodes.items()}
            assert profiles == {"head": "head", "worker": "worker", "runner": "worker"}
        else:
            accounts = {
                name: [each["email"] for each in node.get("serviceAccounts", ())]
                for name, node in nodes.items()
            }
            mine = ["w@p.iam.gserviceaccount.com"]
            assert accounts == {"head": [], "worker": mine, "runner": mine}  # Ray gives the head one


@pytest.mark.parametrize("target", ["kuberay", "kuberay-job"])
def test_only_the_operator_and_the_clusters_own_pods_get_in(target):
    found = documents(target, "name=mine", "kubernetes.operator_namespace=ops")
    policy = found["NetworkPolicy/mine"]["spec"]
    own = {"app.kubernetes.io/part-of": "mine"}
    assert policy["podSelector"] == {"matchLabels": own} and policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["ingress"] == [
        {"from": [{"podSelector": {"matchLabels": own}}]},
        {
            "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ops"}}}],
            "ports": [{"port": 8265, "protocol": "TCP"}],
        },
    ]
    assert found["NetworkPolicy/mine-head"]["spec"]["policyTypes"] == ["Egress"]
    job = found.get("RayJob/mine", {}).get("spec", {})
    spec = job.get("rayClusterSpec") or found["RayCluster/mine"]["spec"]
    templates = [*pods(spec).values(), *([job["submitterPodTemplate"]] if job else [])]
    assert all(template["metadata"]["labels"] == own for template in templates)


def test_a_job_ends_its_cluster_is_retried_and_keeps_its_results():
    job = documents("kuberay-job", "job.hours=0.5", "job.retries=2", "job.keep_s=60")["RayJob/rl-rec"]["spec"]
    assert job["entrypoint"].endswith("--out /mnt/rl-rec/planning --if-exists resume")
    assert job["shutdownAfterJobFinishes"] is True and job["ttlSecondsAfterFinished"] == 60
    assert (job["activeDeadlineSeconds"], job["backoffLimit"]) == (1800, 2)


@pytest.mark.parametrize("target", ["kuberay", "kuberay-job"])
def test_the_volume_is_a_file_of_its_own_so_that_deleting_the_cluster_keeps_it(target):
    volume, cluster = rendered(target).values()
    assert "PersistentVolumeClaim" in volume and "PersistentVolumeClaim\n" not in cluster


def test_several_clusters_share_one_claim():
    for target in ("kuberay", "kuberay-job"):
        found = documents(target, "name=mine", "kubernetes.claim=ours")
        assert "PersistentVolumeClaim/ours" in found and "claimName': 'ours'" in str(found)


@pytest.mark.parametrize(
    ("find", "replace", "problem"),
    [
        ("maxReplicas: 1", "maxReplica: 1", r"RayCluster spec.workerGroupSpecs.0: .*maxReplica"),
        ("maxReplicas: 1", "maxReplicas: one", "is not of type 'integer'"),
        ("upscalingMode: Default", "upscalingMode: Fast", "is not one of"),
        ("mode: token", "mode: none", "is not one of"),
        ("enableInTreeAutoscaling", "enableAutoscaling", "enableAutoscaling"),
        ("runAsNonRoot", "runAsNotRoot", "runAsNotRoot"),
        ("imagePullPolicy", "imagePullPolicies", "imagePullPolicies"),
        ("periodSeconds: 10", "periodSecond: 10", "periodSecond"),
        ("mountPath:", "path:", "path"),
        ("policyTypes:", "policyType:", "NetworkPolicy spec: .*policyType"),
        (
            "automountServiceAccountToken: true",
            'automountServiceAccountToken: "yes"',
            "is not of type 'boolean'",
        ),
    ],
)
def test_kubernetes_would_refuse_a_broken_file(find, replace, problem):
    text = rendered("kuberay")["cluster.yaml"]
    check_kubernetes("", text)
    assert find in text
    with pytest.raises(ValueError, match=problem):
        check_kubernetes("", text.replace(find, replace, 1))


def test_bash_would_refuse_a_broken_script():
    with pytest.raises(ValueError, match="syntax error"):
        check_bash("", rendered("slurm")["rl-rec.sbatch"].replace("\nfi\n", "\n", 1))


def test_the_image_copies_what_is_there_and_what_the_build_may_see():
    files = rendered("docker")
    steps = docker_instructions(files["Dockerfile"])
    copied = [word for name, rest in steps if name == "COPY" for word in rest.split()[1:-1]]
    assert set(copied) >= {"requirements.lock", "setup.cfg", "envs", "rl_rec", "tuning", "cluster"}
    shown = re.findall(r"^!(.+)$", files["Dockerfile.dockerignore"], re.MULTILINE)
    assert all((ROOT / path).exists() for path in copied) and set(copied) == set(shown)
    # The distribution's own build needs these too.
    for needed in re.findall(
        r"(?:long_description = file:|license_files =) *(\S+)", (ROOT / "setup.cfg").read_text()
    ):
        assert needed in copied


@pytest.mark.parametrize(
    ("gpus", "flavour", "index"), [(0, "py311-cpu", True), (1, "py311-gpu", False)], ids=["cpu", "gpu"]
)
def test_the_image_has_the_locked_versions_for_its_processor(gpus, flavour, index):
    steps = docker_instructions(rendered("docker", f"gpus={gpus}")["Dockerfile"])
    assert steps[0][1].endswith(flavour) and steps[0][1].startswith("rayproject/ray:")
    runs = [rest for name, rest in steps if name == "RUN"]
    assert ("download.pytorch.org/whl/cpu" in runs[0]) is index and "requirements.lock" in runs[0]
    assert "--no-deps" in runs[1]
    environment = next(rest for name, rest in steps if name == "ENV")
    assert {"OMP_NUM_THREADS=1", "OMP_WAIT_POLICY=PASSIVE", "RAY_AUTH_MODE=token"} <= set(environment.split())


@pytest.mark.parametrize(
    ("find", "replace"),
    [("USER 1000:100", "USER root"), ("USER 1000:100", "USER 0:0"), ("CMD", "CMDS"), ("FROM", "ENV")],
)
def test_a_broken_dockerfile_is_refused(find, replace):
    text = rendered("docker")["Dockerfile"]
    with pytest.raises(ValueError, match=r"root|not a Dockerfile"):
        check_docker("Dockerfile", text.replace(find, replace))
