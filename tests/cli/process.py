"""A verb in a process of its own."""

import os
import subprocess
import sys

# A verb of its own process: {body} is what the command does.
PROBE = """
import os, sys, click
from rl_rec.cli import main as module
from rl_rec.cli.options import json_option
from rl_rec.cli.output import emit

@click.command()
@json_option
def probe(as_json):
{body}

class Entry:
    value, dist = "", None
    def load(self):
        return probe

module.registered = lambda group: {{"probe": Entry()}}
code = module.{entry}(["probe", *{options}])
{after}
sys.exit(code)
"""


def run_python(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )
