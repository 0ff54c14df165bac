"""The addresses of a Ray cluster: which kind a verb takes, and what to give in place of another kind."""

import os
from urllib.parse import urlsplit

from envs.errors import UserError

ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
_DASHBOARD, _GCS, _CLIENT = 8265, 6379, 10001
"""Ray's usual ports: of the dashboard, of the cluster's control service, and of Ray Client."""
_KINDS = {
    _GCS: "the address of Ray's control service",
    _CLIENT: "Ray Client's address",
}


def dashboard_address(address: str | None) -> str:
    """Return the address of the dashboard, which takes jobs, without a trailing slash.

    Args:
        address: ``http://HOST:8265``; by default ``RAY_API_SERVER_ADDRESS`` or ``RAY_ADDRESS``.

    Raises:
        UserError: there is none, it is not http or https, or it holds a password.
    """
    origin = "--address"
    for variable in ADDRESS_VARIABLES:
        if address is None and os.environ.get(variable):
            address, origin = os.environ[variable], variable
    if address is None:
        raise UserError(
            f"--address is missing: give the dashboard's address, http://HOST:{_DASHBOARD} "
            f"(or set {ADDRESS_VARIABLES[0]})"
        )
    _refuse_password(origin, address, f"http://HOST:{_DASHBOARD}")
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        scheme, host, port = _parts(address)
        kind = _KINDS.get(_CLIENT if scheme == "ray" else port or 0, "not a dashboard's address")
        raise UserError(
            f"{origin} {address} is {kind}: jobs go through the dashboard, http://{host or 'HOST'}:{_DASHBOARD}"
        )
    return address.rstrip("/")


def dashboard_hint(address: str) -> str:
    """What to look at where no dashboard answers at ``address``."""
    _, host, port = _parts(address)
    if port in _KINDS:
        return f"port {port} is usually {_KINDS[port]}, and the dashboard's is http://{host}:{_DASHBOARD}"
    return (
        f"is it the dashboard's address, as http://HOST:{_DASHBOARD}, and the tunnel to it open (ray dashboard "
        "FILE, kubectl port-forward, ssh -L)?"
    )


def node_address(address: str | None) -> str | None:
    """Return the address by which a process joins the cluster that its machine is part of; None without one.

    Args:
        address: ``HOST:6379`` or ``auto``; by default ``RAY_ADDRESS``, which Ray sets for its jobs.

    Raises:
        UserError: it is one for those outside, the dashboard's or Ray Client's, or it holds a password.
    """
    origin = "--address" if address else "RAY_ADDRESS"
    address = address or os.environ.get("RAY_ADDRESS") or None
    _refuse_password(origin, address or "", f"HOST:{_GCS} or auto")
    scheme, host, _ = _parts(address or "")
    kinds = {"http": "a dashboard's address", "https": "a dashboard's address", "ray": _KINDS[_CLIENT]}
    if scheme not in kinds:
        return address
    dashboard = address if scheme != "ray" else f"http://{host}:{_DASHBOARD}"
    here = "unset it" if origin == "RAY_ADDRESS" else "leave it out"
    raise UserError(
        f"{origin} {address} is {kinds[scheme]}: to run on that cluster, rl-rec submit --address {dashboard} "
        f"-- COMMAND; on a machine of the cluster, give HOST:{_GCS} or auto; to run here, {here}"
    )


def _refuse_password(origin: str, address: str, instead: str) -> None:
    if "@" in address:  # it would be repeated in every hint
        raise UserError(f"{origin} holds a password: give {instead}, and the token by RAY_AUTH_TOKEN_PATH")


def _parts(address: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port; ``HOST:PORT`` has no scheme."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        return parts.scheme, parts.hostname, parts.port
    except ValueError:  # no number
        return parts.scheme, parts.hostname, None
