"""What a job ships: what an installation would hold, and nothing that lies beside it."""

import subprocess
import sys
from importlib.metadata import PathDistribution, version
from pathlib import Path
from zipfile import ZipFile

import pytest

from cluster.jobs import package as job_package
from cluster.jobs.main import differences
from cluster.jobs.submission import Submission, entrypoint, read_variables, runtime_environment
from envs.errors import UserError

SETUP = """
[metadata]
name = rl-rec
version = 1.2.3
[options]
install_requires =
    # why
    click>=8.2
    torch>=2.6
[options.packages.find]
include =
    rl_rec
    rl_rec.*
[options.package_data]
* = py.typed, *.md, templates/*
[options.entry_points]
rl_rec.commands =
    # a verb
    train = rl_rec.cli:train
"""
SHIPPED = {"rl_rec/__init__.py", "rl_rec/cli.py", "rl_rec/a/__init__.py", "rl_rec/a/README.md"}
SHIPPED |= {"rl_rec/templates/page.html"}
DESCRIBED = {"rl_rec-1.2.3.dist-info/METADATA", "rl_rec-1.2.3.dist-info/entry_points.txt", "requirements.lock"}
LEFT = {".git/config", ".venv/lib/x.py", "runs/one/run.json", "worlds/sim/model.pt", "data/log.csv", "notes.py"}
LEFT |= {"rl_rec/__pycache__/cli.py", "rl_rec/runs/run.py", "rl_rec/weights.pt", "rl_rec/.secret", "tests/x.py"}
LEFT |= {"rl_rec/tests/__init__.py", "rl_rec/tests/test_x.py"}


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    root = tmp_path / "checkout"
    for name in SHIPPED | LEFT:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "setup.cfg").write_text(SETUP)
    (root / "requirements.lock").write_text("click==8.5\n")
    monkeypatch.setattr(job_package, "checkout", lambda: root)
    return root


@pytest.fixture
def scratch(tmp_path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def test_only_what_an_installation_would_hold_travels(checkout, scratch):
    files = job_package.collect(scratch)
    assert set(files) == SHIPPED | DESCRIBED
    folder = scratch / "package"
    job_package.write(files, folder, limit_mib=1)
    assert (folder / "rl_rec/cli.py").read_text() == "rl_rec/cli.py"


def test_the_shipped_metadata_are_the_checkouts(checkout, scratch):
    job_package.collect(scratch)
    shipped = PathDistribution(scratch / "rl_rec-1.2.3.dist-info")
    assert shipped.version == "1.2.3" and shipped.requires == ["click>=8.2", "torch>=2.6"]
    assert [(each.name, each.value) for each in shipped.entry_points] == [("train", "rl_rec.cli:train")]


def test_this_projects_own_package_holds_what_its_installation_holds(scratch):
    package = scratch / "package"
    job_package.write(job_package.collect(scratch), package, limit_mib=16)
    tops = {path.name.partition("-")[0] for path in package.iterdir()}
    assert tops == {"envs", "rl_rec", "tuning", "cluster", "requirements.lock"}
    # The verbs are found where nothing is installed (-S: without site-packages).
    program = (
        "from importlib.metadata import entry_points as e; print(*[p.name for p in e(group='rl_rec.commands')])"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", program], cwd=package, capture_output=True, text=True, check=True
    )
    assert {"train", "submit", "jobs"} <= set(done.stdout.split())


def test_a_package_over_the_limit_names_its_largest_files(checkout, scratch):
    (checkout / "rl_rec/big.md").write_bytes(b"x" * 2**21)
    files = job_package.collect(scratch)
    with pytest.raises(
        UserError, match=r"2.0 MiB, more than --size-limit 1: the largest are rl_rec/big.md \(2 MiB\)"
    ):
        job_package.write(files, scratch / "package", limit_mib=1)
    assert not (scratch / "package").exists()


def make_wheel(path: Path) -> Path:
    with ZipFile(path, "w") as archive:
        for name in ("rl_rec/__init__.py", "rl_rec-9.dist-info/METADATA", "rl_rec-9.dist-info/RECORD"):
            archive.writestr(name, name)
        archive.writestr("rl_rec-9.data/scripts/x", "x")
    return path


def test_a_wheel_travels_without_what_an_installer_notes(checkout, scratch):
    wheel = make_wheel(scratch / "rl_rec-9-py3-none-any.whl")
    files = job_package.collect(scratch, str(wheel))
    assert set(files) == {"rl_rec/__init__.py", "rl_rec-9.dist-info/METADATA", "requirements.lock"}


@pytest.mark.parametrize(
    "name, problem",
    [
        ("none-any.whl", "there is no wheel"),
        ("numpy-2-py3-none-any.whl", "not a wheel of rl-rec"),
        ("rl_rec-1-cp311-cp311-linux_x86_64.whl", "not a wheel of rl-rec"),
        ("rl_rec-1-py3-none-any.whl", "broken"),
    ],
)
def test_what_is_no_wheel_of_ours_is_refused(checkout, scratch, name, problem):
    if problem != "there is no wheel":
        (scratch / name).write_text("no zip")
    with pytest.raises(UserError, match=problem):
        job_package.collect(scratch, str(scratch / name))


def test_an_installation_ships_itself_and_locks_its_own_versions(scratch, tmp_path, monkeypatch):
    site = tmp_path / "site"
    info = site / "rl_rec-5.dist-info"
    info.mkdir(parents=True)
    (site / "rl_rec").mkdir()
    (site / "rl_rec/__init__.py").touch()
    (info / "METADATA").write_text(
        "Name: rl-rec\nVersion: 5\nRequires-Dist: click\nRequires-Dist: gone; extra == 'x'\n"
    )
    (info / "direct_url.json").write_text("{}")
    recorded = ["rl_rec/__init__.py", "rl_rec/__pycache__/a.pyc", "../../bin/rl-rec", f"{info.name}/METADATA"]
    recorded += [f"{info.name}/direct_url.json", f"{info.name}/RECORD"]
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in recorded))
    monkeypatch.setattr(job_package, "checkout", lambda: None)
    monkeypatch.syspath_prepend(str(site))
    files = job_package.collect(scratch)
    assert set(files) == {"rl_rec/__init__.py", f"{info.name}/METADATA", "requirements.lock"}
    assert f"click=={version('click')}\n" in files["requirements.lock"].read_text()
    with pytest.raises(UserError, match="needs the project's checkout"):
        job_package.collect(scratch, "build")


def test_the_job_says_in_what_its_environment_differs(monkeypatch):
    monkeypatch.setattr("cluster.jobs.main.requires", lambda _: ["torch>=2", "Click>=8", "nobody-has-this"])
    monkeypatch.setattr("cluster.jobs.main.platform.python_version_tuple", lambda: ("3", "11", "4"))
    installed = {"torch": "2.13.0+cpu", "click": "8.2.0", "rich": "14.0"}

    def found(name: str) -> str:
        from importlib.metadata import PackageNotFoundError

        if name not in installed:
            raise PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr("cluster.jobs.main.version", found)
    lock = "# a comment\ntorch==2.13.0\nclick==8.2.0\nmypy==1.0 ; python_version < '3'\npytest==9\n"
    assert differences("3.11", lock) == ([], [])
    assert differences("3.11", lock + "nobody_has_this==3\n") == (["nobody-has-this is missing (lock 3)"], [])
    other = "torch==2.12.0\nclick==8.2.0\nrich==15.0\n"
    major = ["Python 3.11 (client 3.12)", "torch 2.13.0+cpu (lock 2.12.0)"]
    assert differences("3.12", other) == (major, ["rich 14.0 (lock 15.0)"])


def test_the_entrypoint_is_the_command_and_reserves_nothing():
    job = Submission(["train", "hac", "--out", "/a b/$HOME"], cwd="/mnt/x")
    line = entrypoint(job)
    assert line.startswith("exec python -m cluster.jobs.main --python 3.")
    assert line.endswith("--environment image --cwd /mnt/x -- train hac --out '/a b/$HOME'")


def test_the_environment_holds_the_callers_variables_over_ours(checkout, scratch):
    environment = runtime_environment(
        Submission(["train"], variables={"OMP_NUM_THREADS": "4", "KEY": "v"}), scratch
    )
    variables = environment["env_vars"]
    assert (variables["OMP_NUM_THREADS"], variables["OMP_WAIT_POLICY"], variables["KEY"]) == (
        "4",
        "PASSIVE",
        "v",
    )
    assert variables["RAY_JOB_STOP_SIGNAL"] == "SIGTERM"
    assert set(environment) == {"working_dir", "env_vars"}


def test_a_locked_environment_installs_what_the_code_requires_at_the_locks_versions(checkout, scratch):
    package = scratch / "package"
    job_package.write(job_package.collect(scratch), package, limit_mib=1)
    environment = runtime_environment(Submission(["train"], environment="lock"), package)
    lock = "-c ${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}/requirements.lock"
    assert environment["pip"]["packages"] == ["click>=8.2", "torch>=2.6", lock]


def test_variables_are_given_or_taken_and_their_values_are_not_repeated(monkeypatch):
    monkeypatch.setenv("MINE", "hidden")
    assert read_variables(["A=b=c", "MINE", "EMPTY="]) == {"A": "b=c", "MINE": "hidden", "EMPTY": ""}
    with pytest.raises(UserError, match="NOT_MINE is not set here"):
        read_variables(["NOT_MINE"])
    with pytest.raises(UserError) as problem:
        read_variables(["1bad=topsecret"])
    assert "topsecret" not in str(problem.value)


@pytest.mark.parametrize("name", ["a/b", "", "-a", "a b", "x" * 200])
def test_a_name_fits_into_an_address(name):
    with pytest.raises(UserError, match="--name takes"):
        Submission(["train"], name=name)
