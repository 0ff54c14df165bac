"""The registry of algorithms: names, and what looking one up costs."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from envs.errors import UserError
from rl_rec.agents import AGENTS, find_agent
from rl_rec.hac.config import HACSettings


@pytest.mark.parametrize(
    ("name", "nearest"), [("hca", "hac"), ("HAC", "hac"), ("sac", "hac"), ("HSRl", "hsrl"), ("srl", "hsrl")]
)
def test_an_unknown_name_gets_the_nearest(name, nearest):
    with pytest.raises(UserError, match=f"did you mean '{nearest}'"):
        find_agent(name)


def test_fields_replace_the_defaults_of_a_run():
    settings = find_agent("hac").train_settings(steps=7, seed=3)
    assert (settings.steps, settings.seed, settings.agent) == (7, 3, HACSettings())


def test_settings_are_strict_down_to_the_agents():
    with pytest.raises(UserError, match=r"did you mean 'agent\.exploration\.sigma'"):
        find_agent("hac").train_settings().with_overrides(["agent.exploration.sgima=1"])


@pytest.mark.parametrize("agent", AGENTS.values(), ids=AGENTS)
def test_every_import_path_leads_somewhere(agent):
    assert type(agent.rllib_config().train_settings()) is type(agent.train_settings())


def test_looking_an_algorithm_up_loads_neither_torch_nor_ray():
    program = (
        "import sys; from rl_rec.agents import find_agent; find_agent('hac');"
        "sys.exit(len({'torch', 'ray'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0


@pytest.mark.parametrize("name", AGENTS)
def test_help_and_a_page_name_every_algorithm(name):
    from cluster.cli import train

    assert train.help is not None and f" {name}" in train.help.replace("\n", " ").replace("    ", " ")
    folder = Path(import_module(AGENTS[name].settings.partition(":")[0]).__file__ or "").parent
    page = (folder / "README.md").read_text()
    assert (page.startswith("# ") and "arxiv.org" in page) or "supervised" in name
