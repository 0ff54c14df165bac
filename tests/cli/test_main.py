"""The command line's promises: cheap help, one-line errors, exit codes, and a clean stdout."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoints
from pathlib import Path

import click
import pytest

from envs.errors import Terminated, UserError
from rl_rec.cli import main as main_module
from rl_rec.cli import verbs
from rl_rec.cli.evaluate import evaluate
from rl_rec.cli.main import SUMMARIES, cli, main
from rl_rec.cli.options import Choice, check_device, device_option, json_option
from rl_rec.cli.output import emit
from tests.cli.process import PROBE, run_python

NOISY = PROBE.format(
    entry="main",
    options=["--json"],
    after="print('restored')",
    body="""
    print("from python")
    os.system("echo from a child")
    os.write(1, b"from native code")
    emit({"auc": float("nan"), "users": 3}, as_json)
""",
)


QUIET = PROBE.format(entry="main", options=[], after="", body="    print('hello')")


@pytest.fixture
def verb(monkeypatch):
    """Make a function the command ``probe``."""

    class Entry:
        name, value, dist = "probe", "tests:probe", None

        def __init__(self, command):
            self._command = command

        def load(self):
            if isinstance(self._command, Exception):
                raise self._command
            return self._command

    def add(command):
        monkeypatch.setattr(main_module, "registered", lambda group: {"probe": Entry(command)})

    return add


def raising(error: BaseException) -> click.Command:
    @click.command()
    def probe():
        raise error

    return probe


def test_help_lists_the_verbs_in_the_order_of_the_data_without_importing_torch_or_ray():
    done = run_python(
        "import sys; from rl_rec.cli.main import main\n"
        "code = main(['--help'])\n"
        "loaded = {'torch', 'ray', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'loaded {loaded}' if loaded else code)"
    )
    assert done.returncode == 0, done.stderr
    listed = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ") and line.split()]
    assert [name for name in listed if name in SUMMARIES] == list(SUMMARIES)


def test_a_verb_without_a_summary_is_listed_after_the_known_ones(verb, capsys):
    verb(raising(AssertionError("help must not run it")))
    assert main(["--help"]) == 0
    assert "probe" in capsys.readouterr().out


def test_no_arguments_show_the_help_and_fail(capsys):
    assert main([]) == 2
    assert "Commands:" in capsys.readouterr().err


def test_sigterm_unwinds_what_is_being_done(verb, capsys):
    undone, before = [], signal.getsignal(signal.SIGTERM)

    @click.command()
    def probe():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # a second one changes nothing
            undone.append("draft")

    verb(probe)
    assert main(["probe"]) == 143
    assert undone and capsys.readouterr().err == "error: terminated\n"
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_inside_compiled_code_is_no_internal_error(verb, capsys):
    """What the interpreter says of a compiled function that returned while a handler raised."""
    error = SystemError("returned a result with an exception set")
    error.__cause__ = Terminated()
    verb(raising(error))
    assert main(["probe"]) == 143
    assert capsys.readouterr().err == "error: terminated\n"


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("rl-rec")


@pytest.mark.parametrize("arguments", [["trian"], ["--nonsense"], ["probe", "--nonsense"], ["probe", "extra"]])
def test_wrong_usage_is_one_line_and_2(verb, capsys, arguments):
    verb(raising(AssertionError("must not run")))
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1


@pytest.mark.parametrize(
    "error, code, text",
    [
        (UserError("the folder\nis empty"), 2, "error: the folder is empty\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (click.Abort(), 130, "error: interrupted\n"),
        (Terminated(), 143, "error: terminated\n"),
        (KeyError("x"), 1, "error: KeyError: 'x' (set RL_REC_TRACEBACK=1 for the traceback)\n"),
        (AssertionError(), 1, "error: AssertionError (set RL_REC_TRACEBACK=1 for the traceback)\n"),
    ],
)
def test_every_failure_is_one_line_with_its_exit_code(verb, capsys, monkeypatch, error, code, text):
    monkeypatch.delenv("RL_REC_TRACEBACK", raising=False)
    verb(raising(error))
    assert main(["probe"]) == code
    captured = capsys.readouterr()
    assert captured.err.lstrip("\n") == text  # click ends the line that ^C was typed on
    assert captured.out == ""


def test_the_traceback_is_there_when_asked_for(verb, capsys, monkeypatch):
    monkeypatch.setenv("RL_REC_TRACEBACK", "1")
    verb(raising(KeyError("x")))
    assert main(["probe"]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("problem", [ImportError("No module named 'cluster.cli'"), AttributeError("no train")])
def test_a_verb_that_cannot_be_loaded_says_so(verb, capsys, problem):
    verb(problem)
    assert main(["probe"]) == 2
    assert capsys.readouterr().err == f"error: 'probe' cannot be loaded from tests:probe: {problem}\n"


def test_a_known_verb_without_entry_point_asks_for_the_installation(verb, capsys):
    verb(raising(AssertionError("must not run")))
    assert main(["train"]) == 2
    assert "pip install -e ." in capsys.readouterr().err


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_closed_pipe_is_quiet(unbuffered):
    # The reader is gone before anything is printed; a buffered print meets that only at the last flush.
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", QUIET],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_openmp_is_tamed_but_a_person_may_choose(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("OMP_WAIT_POLICY")
    main(["--version"])
    assert (os.environ["OMP_NUM_THREADS"], os.environ["OMP_WAIT_POLICY"]) == ("7", "PASSIVE")


def test_json_is_the_only_thing_on_stdout():
    done = run_python(NOISY)
    assert done.returncode == 0, done.stderr
    document, end, after = done.stdout.partition("}\n")
    assert json.loads(document + end) == {"auc": None, "users": 3}
    assert after == "restored\n"
    for noise in ("from python", "from a child", "from native code"):
        assert noise in done.stderr


def test_json_is_clean_and_stdout_restored_in_process(verb, capsys):
    @click.command()
    @json_option
    def probe(as_json):
        print("noise")
        emit({"loss": float("inf")}, as_json)

    verb(probe)
    stdout = sys.stdout
    assert main(["probe", "--json"]) == 0
    assert sys.stdout is stdout
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"loss": None}
    assert "noise" in captured.err


def test_a_failing_json_command_leaves_stdout_empty(verb, capsys):
    @click.command()
    @json_option
    def probe(as_json):
        raise UserError("bad")

    verb(probe)
    assert main(["probe", "--json"]) == 2
    assert capsys.readouterr().out == ""


def test_without_json_a_person_reads_figures(verb, capsys):
    @click.command()
    @json_option
    def probe(as_json):
        emit({"users": 12345, "auc": 0.76543}, as_json)

    verb(probe)
    assert main(["probe"]) == 0
    out = capsys.readouterr().out
    assert "12,345" in out and "0.7654" in out


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cpu:x"])
def test_an_unknown_device_is_refused(name):
    with pytest.raises(UserError, match="unknown device"):
        check_device(name)


def test_a_missing_device_is_refused_before_the_command_runs(verb, capsys, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    @click.command()
    @device_option
    def probe(device):
        pytest.fail("the command ran")

    verb(probe)
    assert main(["probe", "--device", "cuda"]) == 2
    expected = "error: device 'cuda' is not available: torch sees no CUDA device; use cpu\n"
    assert capsys.readouterr().err == expected


def test_without_an_installation_the_checkouts_own_commands_are_found(monkeypatch):
    monkeypatch.setattr(verbs, "entry_points", lambda group: EntryPoints())
    assert {*SUMMARIES} <= {*verbs.registered("rl_rec.commands")}
    assert verbs.registered("rl_rec.commands")["evaluate"].load() is evaluate
    assert verbs.registered("rl_rec.bench")["tune"].value == "cluster.bench_cli:tune"
    monkeypatch.setattr(verbs, "_SETUP", Path("nowhere"))
    assert verbs.registered("rl_rec.commands") == {}


def test_every_summary_is_a_sentence():
    assert all(summary.endswith(".") and "\n" not in summary for summary in SUMMARIES.values())


def commands(
    command: click.Command, context: click.Context | None, name: str
) -> Iterator[tuple[str, click.Command]]:
    """Path of ``command`` and of everything below it."""
    # A command remembers its help option as the first context names it.
    inner = click.Context(command, parent=context, info_name=name, **command.context_settings)
    yield inner.command_path, command
    if isinstance(command, click.Group):
        for child in command.list_commands(inner):
            yield from commands(command.get_command(inner, child) or click.Command(child), inner, child)


def test_the_help_of_every_command_ends_with_an_example_of_it():
    found = dict(commands(cli, None, "rl-rec"))
    assert {"rl-rec jobs", "rl-rec cluster settings", "rl-rec bench tune"} <= found.keys()
    for path, command in found.items():
        epilog = command.epilog or ""
        assert epilog.startswith("Example") and f": {path} " in epilog, path


def test_every_choice_names_the_nearest():
    choices = [
        (path, parameter)
        for path, command in commands(cli, None, "rl-rec")
        for parameter in command.params
        if isinstance(parameter.type, click.Choice)
    ]
    assert len(choices) > 5
    for path, parameter in choices:
        assert isinstance(parameter.type, Choice), (path, parameter.name)
