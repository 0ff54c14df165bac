"""Which address a verb takes, and that another kind is answered with the right one."""

import click
import pytest

from cluster.addresses import dashboard_address, dashboard_hint, node_address
from envs.errors import UserError
from rl_rec.cli.main import cli


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "given, problem",
    [
        ("ray://head:10001", "Ray Client's address: jobs go through the dashboard, http://head:8265"),
        ("head:10001", "Ray Client's address: jobs go through the dashboard, http://head:8265"),
        ("10.0.0.1:6379", "the address of Ray's control service: .*, http://10.0.0.1:8265"),
        ("head:8265", "not a dashboard's address: .*, http://head:8265"),
        ("auto", "not a dashboard's address: .*, http://auto:8265"),
        ("head:x", "not a dashboard's address: .*, http://head:8265"),
        ("http://", "not a dashboard's address: .*, http://HOST:8265"),
    ],
)
def test_jobs_go_through_the_dashboard_and_other_addresses_are_answered_with_it(given, problem):
    with pytest.raises(UserError, match=problem):
        dashboard_address(given)


def test_the_dashboard_comes_from_the_option_then_from_rays_variables(monkeypatch):
    with pytest.raises(UserError, match="--address is missing"):
        dashboard_address(None)
    monkeypatch.setenv("RAY_ADDRESS", "http://b:1")
    assert dashboard_address(None) == "http://b:1"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "https://a:2/")
    assert dashboard_address(None) == "https://a:2"
    assert dashboard_address("http://c:3") == "http://c:3"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "ray://a:2")
    with pytest.raises(UserError, match="RAY_API_SERVER_ADDRESS ray://a:2 is Ray Client's"):
        dashboard_address(None)


def test_where_no_dashboard_answers_the_port_says_why():
    assert "control service, and the dashboard's is http://head:8265" in dashboard_hint("http://head:6379")
    assert "tunnel" in dashboard_hint("http://head:8265")


@pytest.mark.parametrize(
    "given, problem",
    [
        ("http://head:8265", "a dashboard's address: .* rl-rec submit --address http://head:8265 -- COMMAND"),
        ("ray://head:10001", "Ray Client's address: .* rl-rec submit --address http://head:8265 -- COMMAND"),
    ],
)
def test_a_process_joins_the_cluster_of_its_machine(given, problem, monkeypatch):
    with pytest.raises(UserError, match=f"--address {given} is {problem}.* give HOST:6379 or auto"):
        node_address(given)
    monkeypatch.setenv("RAY_ADDRESS", given)
    with pytest.raises(UserError, match=f"RAY_ADDRESS {given} is {problem}.* unset it"):
        node_address(None)
    assert node_address("head:6379") == "head:6379" and node_address("auto") == "auto"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")  # as inside a Ray job
    assert node_address(None) == "10.0.0.1:6379"
    monkeypatch.delenv("RAY_ADDRESS")
    assert node_address(None) is None


@pytest.mark.parametrize(
    "given", ["me:HUNTER2@head:8265", "http://me:HUNTER2@head:8265", "ray://HUNTER2@head:1"]
)
@pytest.mark.parametrize("read", [dashboard_address, node_address])
def test_a_password_is_not_repeated(read, given):
    with pytest.raises(UserError, match="--address holds a password") as error:
        read(given)
    assert "HUNTER2" not in str(error.value)


@pytest.mark.parametrize("verb", ["train", "study", "sweep", "scale"])
def test_every_verb_that_trains_says_so_before_it_loads_anything(verb):
    required = ["hac", "--simulator", "/s", "--out", "/o"] if verb == "scale" else []
    with pytest.raises(UserError, match="is a dashboard's address"):
        cli.main([verb, *required, "--address", "http://head:8265"], standalone_mode=False)
    command = cli.get_command(click.Context(cli), verb)
    assert command is not None and any(each.name == "address" for each in command.params)
