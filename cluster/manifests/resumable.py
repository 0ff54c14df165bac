"""A command that may be started again: after a failure or a time limit it goes on instead of starting over."""

import shlex
from collections.abc import Sequence
from pathlib import PurePosixPath

from envs.errors import UserError
from rl_rec.provenance import RUN_FILE


def resumable(command: Sequence[str], volume: str | None = None) -> list[str]:
    """What to run so that a second start goes on with what the first one left.

    Args:
        command: what would follow ``rl-rec``.
        volume: where results outlive the cluster; ``None`` where every place does.

    Raises:
        UserError: its results would be lost with the cluster.
    """
    verb, command = command[0], ["rl-rec", *command]
    out = _value(command, "--out") or _value(command, "--resume")
    if verb in ("train", "study") and "://" in (_value(command, "--out") or ""):
        where = f"on the volume, {volume}/..." if volume else "that every node sees"
        raise UserError(
            f"--out {out}: started again, the job could not see whether a run is there; name a folder {where}, "
            "or use rl-rec sweep, which looks by itself"
        )
    if volume is not None and verb in ("train", "study", "sweep"):
        if out is None:
            raise UserError(
                f"the command names no --out: name a folder on the volume, such as --out {volume}/{verb}"
            )
        if "://" not in out and not PurePosixPath(out).is_relative_to(volume):
            raise UserError(
                f"--out {out} is not on the volume {volume} and would end with the cluster: name {volume}/..."
            )
    if verb == "sweep" and _value(command, "--if-exists") is None:
        return [*command, "--if-exists", "resume"]
    if verb in ("train", "study") and out is not None and _value(command, "--resume") is None:
        again = ["rl-rec", verb, "--resume", out, *(["--json"] if "--json" in command else [])]
        there = shlex.quote(str(PurePosixPath(out) / RUN_FILE))
        script = f"if [ -e {there} ]; then exec {shlex.join(again)}; else exec {shlex.join(command)}; fi"
        return ["bash", "-c", script]
    return list(command)


def _value(command: Sequence[str], option: str) -> str | None:
    for index, word in enumerate(command):
        if word == option and index + 1 < len(command):
            return command[index + 1]
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return None
