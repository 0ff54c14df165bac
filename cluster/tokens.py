"""The token that a cluster asks for: where it is taken from, and what to say where there is none."""

import os
from pathlib import Path

from ray._private.authentication.authentication_token_setup import _enable_token_auth

from envs.errors import UserError

_VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")  # in Ray's order

MISSING = (
    "the cluster asks for a token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to a file that "
    "holds it (or RAY_AUTH_TOKEN)"
)


def use_token() -> bool:
    """Do as ``ray.init`` does for a running cluster: a token that is there is used.

    Returns:
        Whether there is one.

    Raises:
        UserError: one is asked for and there is none.
    """
    mode = os.environ.get("RAY_AUTH_MODE")
    if (mode or "token").lower() != "token":
        return False
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    file = Path(path) if path else Path.home() / ".ray" / "auth_token"
    given = bool(os.environ.get("RAY_AUTH_TOKEN"))
    if not given and path and not file.is_file():
        raise UserError("RAY_AUTH_TOKEN_PATH names no file: set it to the file that holds the cluster's token")
    there = given or file.is_file()
    if mode is not None and not there:
        raise UserError(MISSING)
    if mode is None and there:
        _enable_token_auth()
    return there


def refused() -> str:
    """What to say of a token that is another cluster's."""
    given = next((name for name in _VARIABLES if os.environ.get(name)), "~/.ray/auth_token")
    return (
        f"the cluster refuses this token: that of {given} is another cluster's; "
        "set RAY_AUTH_TOKEN_PATH to a file that holds this one's"
    )
