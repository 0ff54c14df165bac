"""A job's command line is read here, before it travels: misspelt, incomplete, or with paths of this machine."""

from collections.abc import Sequence

import click
import pytest

from cluster.jobs.client import JOB_VARIABLES, describe, exit_code, redact
from cluster.jobs.command import check_command
from envs.errors import UserError
from rl_rec.cli.main import cli
from rl_rec.cli.options import Folder

GOOD = ["train", "hac", "--simulator", "/mnt/sim", "--out", "s3://bucket/run"]


def check(arguments: Sequence[str], has_cwd: bool = False) -> list[str]:
    return check_command(cli, arguments, has_cwd)


@pytest.mark.parametrize(
    "arguments",
    [
        GOOD,
        ["evaluate", "--run", "/r", "--simulator", "file:///s", "--device", "cuda"],  # the cluster may have one
        ["compare", "/a", "gs://b/c", "--simulator", "/s", "--json"],
        ["compare", "/a", "/b", "--set", "world.max_steps=5", "--set", "dynamics.trust=3"],
        ["quickstart", "--out", "/mnt/q"],
        ["report", "/a", "s3://b/study", "--out", "/x"],
        ["train", "hsrl", *GOOD[2:], "--set", "agent.sids=/mnt/sids", "--device", "cuda"],
        ["train", "--resume", "/mnt/run"],
        ["sweep"],
        ["sweep", "/mnt/mine.yaml", "--simulator", "/s", "--out", "/o", "--set", "what.only=the_file_knows"],
        ["sweep", "planning", "--simulator", "/s", "--out", "/o", "--if-exists", "resume"],
        [
            "study",
            "hac",
            "--simulator",
            "/s",
            "--out",
            "/o",
            "--variant",
            "a@hsrl",
            "--world",
            "world.repeats=allow",
        ],
        ["evaluate", "--policy", "random", "--simulator", "/s", "--catalogue", "/mnt/schedule.json"],
        ["evaluate", "--policy", "random", "--simulator", "/s", "--catalogue", "/m/show=all.json"],
        ["evaluate", "--run", "/r", "--set", "dynamics.trust=3"],
        ["evaluate", "--run", "/r", "--catalogue", "churn=0.1"],  # the run's own may withhold enough
        ["data", "prepare", "own", "--interactions", "/m/*.csv", "--out", "/o"],
        ["scale", "hac", "--simulator", "/s", "--out", "/o"],
    ],
)
def test_good_ones_pass_and_nothing_of_them_runs(arguments, capfd):
    assert check(arguments) == []
    print("stdout is still there")
    assert capfd.readouterr().out == "stdout is still there\n"


@pytest.mark.parametrize(
    "arguments, problem",
    [
        (["trian"], "No such command 'trian'"),
        (["train", "hac", "--simulatr", "/s"], "--simulatr"),
        (["train", "hac", "--steps", "many"], "'many'"),
        (["train", "hac", "more"], "unexpected extra argument"),
        (["sids"], "Missing command"),
        (["bench", "tune", "/r"], "Missing option"),
        (["train", "--track", "paper"], "paper"),
    ],
)
def test_misspelt_and_incomplete_ones_fail_here(arguments, problem):
    with pytest.raises(click.UsageError) as error:
        check(arguments)
    assert problem in error.value.format_message()


@pytest.mark.parametrize(
    "arguments, problem",
    [
        ([*GOOD[:-1], "runs/x"], r"--out is runs/x, a relative path"),
        (["compare", "/a", "b", "--simulator", "/s"], r"RUN_B is b, a relative path"),
        (["quickstart"], r"--out is by default runs/quickstart, a relative path"),
        (["sweep", "mine.yaml", "--simulator", "/s", "--out", "/o"], r"FILE\] is mine.yaml, a relative path"),
        (["evaluate", "--run", "/r", "--catalogue", "a.json"], r"--catalogue is a.json, a relative path"),
        (
            ["data", "prepare", "own", "--interactions", "a.csv", "--out", "/o"],
            "--interactions is a.csv, a rel",
        ),
        (["train", "--resume", "~/run"], r"--resume is ~/run, a relative path"),
        ([*GOOD, "--address", "auto"], "leave --address out"),
        (["submit", "--", "train"], "cannot be `rl-rec submit`"),
        (["jobs", "list"], "cannot be `rl-rec jobs`"),
    ],
)
def test_what_the_cluster_would_not_find_is_refused_with_the_fix(arguments, problem):
    with pytest.raises(UserError, match=problem):
        check(arguments)


NEW = ["--simulator", "/s", "--out", "/o"]


@pytest.mark.parametrize(
    "arguments, problem",
    [
        (["train", "hca", *NEW], "unknown algorithm 'hca'; did you mean 'hac'"),
        (["train", "hac", "--out", "/o"], "missing --simulator"),
        (["train", "hac", *NEW, "--set", "agent.gama=1"], "did you mean 'agent.gamma'"),
        (["train", "hac", *NEW, "--set", "replay.ratio=-1"], "replay.ratio: expected more than 0, got '-1'"),
        (["train", "hac", *NEW, "--device", "gpu"], "device: use cpu or cuda"),
        (["train", "hac", *NEW, "--set", "rollout.mode=async"], "needs rollout.runners >= 1"),
        (["train", "--resume", "/r", "--steps", "3"], "leave out --steps"),
        (["study", "hac", *NEW, "--variant", "a:agent.gama=1"], "did you mean 'agent.gamma'"),
        (["study", "hac", *NEW, "--variant", "a", "--variant", "b"], "'b' has the same settings as 'a'"),
        (["study", "hac", *NEW, "--serve", "x:world.history_length=3"], "change it with --world"),
        (["sweep", "planing", *NEW], "'planing'; did you mean 'planning'"),
        (["sweep", "planning", "--out", "/o"], "missing --simulator"),
        (["sweep", "planning", *NEW, "--set", "stpes=3"], "unknown setting 'stpes'"),
        (["scale", "hac", *NEW, "--modes", "fast"], "use sync, async"),
        (["scale", "hac", *NEW, "--set", "agent.gama=1"], "did you mean 'agent.gamma'"),
        (["bench", "tune", "--simulator", "/s", "--agent", "hca"], "unknown algorithm 'hca'"),
        (["bench", "device", "--set", "user=3"], "did you mean 'users'"),
        (["bench", "train", "--set", "agent.gama=3"], "did you mean 'agent.gamma'"),
        (["bench", "sids", "--set", "item=3"], "did you mean 'items'"),
        (["bench", "decode", "--items", "many"], "expected a whole number"),
        (["data", "prepare", "ml-10k", "--out", "/o"], "unknown dataset 'ml-10k'"),
        (["data", "generate", "own", "--out", "/o", "--set", "user=3"], "did you mean 'users'"),
        (["simulator", "fit", "--data", "/d", "--out", "/o", "--set", "model.dims=3"], "'model.dim'"),
        (["simulator", "fit", "--data", "/d", "--out", "/o", "--device", "gpu"], "unknown device 'gpu'"),
        (["sids", "build", "--data", "/d", "--out", "/o", "--set", "level=3"], "did you mean 'levels'"),
        (["evaluate", "--policy", "random"], "--policy needs --simulator"),
        (["evaluate", "--policy", "random", "--simulator", "/s", "--set", "world.repeat=x"], "'repeats'"),
        (["evaluate", "--run", "/r", "--set", "max_stepz=5"], "did you mean 'max_steps'"),
        (["evaluate", "--run", "/r", "--catalogue", "chrun=0.1"], "did you mean 'catalogue.churn'"),
        (["compare", "/a", "/b", "--set", "world.max_stepz=5"], "did you mean 'max_steps'"),
    ],
)
def test_what_the_command_would_refuse_there_it_refuses_here_with_the_same_line(arguments, problem):
    with pytest.raises(UserError, match=problem) as here:
        check(arguments)
    with pytest.raises(UserError) as there:
        cli.main(arguments, standalone_mode=False)
    assert str(there.value) == str(here.value)


def test_a_sweep_of_ones_own_is_read_where_its_file_is_here_as_well(tmp_path):
    file = tmp_path / "mine.yaml"
    arguments = ["sweep", str(file), *NEW]
    file.write_text("name: mine\nquestion: Which\nsteps: 100\ngrid: {agent.gama: [0.9, 0.8]}\n")
    with pytest.raises(UserError, match=r"did you mean 'agent\.gamma'"):
        check(arguments)
    file.write_text("name: mine\nquestion: Which\nsteps: 100\ngrid: {agent.gamma: [0.9, 0.8]}\n")
    assert check(arguments) == []
    code = tmp_path / "mine.py"  # is not run here
    code.write_text("1 / 0\n")
    assert check(["sweep", str(code), *NEW]) == []


def test_with_a_folder_to_run_in_relative_paths_are_the_clusters():
    assert check(["quickstart"], has_cwd=True) == []


PATHS = [
    (verb, option.opts[0])
    for verb in ("train", "study", "sweep")
    for option in (cli.get_command(click.Context(cli), verb) or click.Command("none")).params
    if isinstance(option.type, Folder) and isinstance(option, click.Option)
]


@pytest.mark.parametrize("verb, option", PATHS)
def test_paths_are_known_by_their_type(verb, option):
    with pytest.raises(UserError, match=f"{option} is a/b, a relative path"):
        check([verb, option, "a/b"])


def test_the_verbs_have_paths():
    assert {("train", "--out"), ("train", "--simulator"), ("study", "--resume")} <= set(PATHS)


def test_a_setting_that_names_something_here_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sids").mkdir()
    (warning,) = check(["train", "hsrl", *GOOD[2:], "--set", "agent.sids=sids", "--set", "seed=1"])
    assert "sids exists here" in warning and "absolute path" in warning
    (tmp_path / "planning").mkdir()  # what the sweep of that name wrote
    assert check(["sweep", "planning", *NEW]) == []


def job(status: str, code: int | None = None, message: str = "", **more: str):
    from ray.job_submission import JobDetails

    variables = {"env_vars": {**JOB_VARIABLES, "KEY": "topsecret", **more}}
    return JobDetails(
        type="SUBMISSION",
        submission_id="a",
        status=status,
        entrypoint="exec x",
        driver_exit_code=code,
        message=message,
        runtime_env=variables,
    )


@pytest.mark.parametrize(
    "status, code, expected",
    [("SUCCEEDED", 0, 0), ("STOPPED", None, 130), ("FAILED", 3, 3), ("FAILED", None, 1), ("FAILED", -9, 137)],
)
def test_the_exit_code_is_the_commands(status, code, expected):
    assert exit_code(job(status, code)) == expected


@pytest.mark.parametrize(
    "log, cause",
    [
        ("training\nerror: no space left for topsecret\n\n(raylet) bye\n", ": error: no space left for ***"),
        (
            "Traceback\n  x\nModuleNotFoundError: No module named 'x'\n",
            ": ModuleNotFoundError: No module named 'x'",
        ),
        ("training\nKilled\n", ": Killed"),
        ("\n", ""),
    ],
)
def test_a_command_that_failed_is_told_with_the_line_of_its_log_that_says_why(log, cause):
    failed = "Job entrypoint command failed with exit code 2"
    message = f"{failed}, last available logs (truncated to 20,000 chars):\n{log}"
    assert describe(job("FAILED", 2, message))["problem"] == failed + cause


def test_a_failed_job_is_one_line_without_secrets():
    message = "runtime_env setup failed:\nTraceback\n  x\nERROR: no version of topsecret\n"
    described = describe(job("FAILED", None, message))
    assert described["problem"] == "runtime_env setup failed: ERROR: no version of ***"
    assert described["variables"] == sorted(["KEY", *JOB_VARIABLES]) and "topsecret" not in str(described)
    assert redact("a 1 b", ["1"]) == "a 1 b"


def test_a_secret_of_several_lines_is_hidden_and_the_projects_own_variables_are_not():
    key = "-----BEGIN\nHUNTER2\nlast/line==\n"
    message = "runtime_env setup failed:\nbad key -----BEGIN\n  HUNTER2\n  last/line==\n"
    assert describe(job("FAILED", message=message, PEM=key))["problem"] == "runtime_env setup failed: ***"
    told = "told to end by SIGTERM; OMP is PASSIVE"
    assert describe(job("FAILED", message=told))["problem"] == told
