"""The `rl-rec` command: finds its verbs, and turns every failure into one line and an exit code."""

import os
import sys
import traceback
from difflib import get_close_matches
from importlib.metadata import EntryPoint, PackageNotFoundError, version
from typing import NoReturn

import click

from envs.errors import Terminated, UserError
from envs.memory import keep_freed_memory
from envs.notice import NOTICE
from envs.storage.location import shown
from rl_rec.cli.termination import end_process, ended_in_time, termination_raised
from rl_rec.cli.verbs import registered

ENTRY_POINTS = "rl_rec.commands"

# In the order of the data. The summaries are here because `--help` must not import the verbs (torch and ray
# take seconds); the verbs themselves come from entry points, so that this package imports nothing above it.
SUMMARIES = {
    "data": "Turn raw interaction logs into a columnar dataset.",
    "simulator": "Fit the user simulator to a dataset, and say how far it may be trusted.",
    "sids": "Give the items semantic IDs: codebook, table, report.",
    "train": "Train an agent inside the simulator.",
    "evaluate": "Measure a trained agent, one episode per user.",
    "compare": "Test one trained agent against another, as an A/B test.",
    "study": "Compare agents and variants over seeds, as tables with intervals.",
    "sweep": "Answer a question: every variant, every seed, a report.",
    "report": "Write the page that shows what a sweep or study found.",
    "scale": "Measure how training scales with env runners and learners, and predict it.",
    "bench": "Measure throughput and latency on this machine.",
    "submit": "Run a command on a Ray cluster, as a job.",
    "jobs": "List, show, follow and stop a cluster's jobs.",
    "cluster": "Render what makes a cluster: ray up, KubeRay, Slurm, Docker.",
    "drill": "Try out what a cluster's faults do to a run.",
    "quickstart": "Walk the whole way: logs, simulator, agent, result.",
}


class VerbGroup(click.Group):
    """A group whose commands are the entry points of ``rl_rec.commands``, loaded when invoked."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        found = registered(ENTRY_POINTS)
        known = [name for name in SUMMARIES if name in found]
        return known + sorted(set(found) - set(known))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = registered(ENTRY_POINTS).get(cmd_name)
        if entry is None:
            if cmd_name in SUMMARIES:
                raise UserError(f"{cmd_name!r} is not installed: run `pip install -e .` in the checkout again")
            return None
        try:
            command = entry.load()
        except (ImportError, AttributeError) as error:
            if os.environ.get("RL_REC_TRACEBACK"):
                traceback.print_exc()
            raise UserError(f"{cmd_name!r} cannot be loaded from {entry.value}: {_one_line(error)}") from error
        if not isinstance(command, click.Command):
            raise UserError(f"{cmd_name!r} ({entry.value}) is not a click command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        found = self.list_commands(ctx)
        if args[0] not in found and (near := get_close_matches(args[0], found, 1)):
            ctx.fail(f"No such command {args[0]!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        found = registered(ENTRY_POINTS)
        rows = [(name, SUMMARIES.get(name) or _origin(found[name])) for name in self.list_commands(ctx)]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


def _origin(entry: EntryPoint) -> str:
    return f"(added by {entry.dist.name})" if entry.dist else f"({entry.value})"


def _version() -> str:
    try:
        return version("rl-rec")
    except PackageNotFoundError:
        return "not installed"


@click.group(
    cls=VerbGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Example: rl-rec quickstart",
)
@click.version_option(_version(), prog_name="rl-rec")
def cli() -> None:
    """Train and measure reinforcement-learning recommenders, from raw logs to a trained agent.

    Results go to stdout (one JSON document with --json), progress and errors to stderr. Exit codes: 0 done,
    1 failure, 2 wrong input, 130 interrupted, 143 terminated.
    """


def run(arguments: list[str] | None = None) -> NoReturn:
    """``main`` as what the process is for."""
    with ended_in_time():
        code = main(arguments)
        if NOTICE.given:
            # Threads that still ask storage, and Arrow's own behind them, would hold the interpreter's end.
            end_process(code)
    sys.exit(code)


def main(arguments: list[str] | None = None) -> int:
    """Run one command line.

    Args:
        arguments: what follows ``rl-rec``; the process's own by default.

    Returns:
        The exit code; every failure has been told in one line on stderr.
    """
    # Before torch is imported, here and in the Ray workers that inherit it: OpenMP threads that spin while
    # they wait slow torch by up to 100 times on a machine with other work.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    keep_freed_memory()
    try:
        with termination_raised():
            code = cli.main(arguments, prog_name="rl-rec", standalone_mode=False)
        if sys.stdout is not None:  # closed by whoever started the process
            sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except click.ClickException as error:
        return _fail(_usage(error), 2)
    except UserError as error:
        return _fail(_one_line(error), 2)
    except Terminated:
        return _fail("terminated", Terminated.CODE)
    except (KeyboardInterrupt, click.Abort):
        return _fail("interrupted", 130)
    except BrokenPipeError:
        # The reader (`| head`) has what it wanted. Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("RL_REC_TRACEBACK"):
            traceback.print_exc()
            return 1
        what = f"{type(error).__name__}: {_one_line(error)}".rstrip(": ")
        return _fail(f"{what} (set RL_REC_TRACEBACK=1 for the traceback)", 1)


def _usage(error: click.ClickException) -> str:
    text = _one_line(error.format_message())
    context = getattr(error, "ctx", None)
    stop = "" if text.endswith((".", "?", "!")) else "."
    return f"{text}{stop} See: {context.command_path} --help" if context else text


def _one_line(error: object) -> str:
    # What a broken file made a library say may hold anything, and a terminal obeys control characters.
    return "".join(mark if mark.isprintable() else "\ufffd" for mark in " ".join(str(error).split()))


def _fail(message: str, code: int) -> int:
    click.echo(f"error: {shown(message)}", err=True)
    return code


if __name__ == "__main__":
    sys.argv[0] = "rl-rec"  # a run's description names the command
    run()
