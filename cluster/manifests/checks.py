"""What the receiver of a manifest would refuse, found here: by Ray's own code, by schemas, by the shell."""

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

_INSTRUCTIONS = {"FROM", "ENV", "COPY", "RUN", "USER", "WORKDIR", "CMD"}


def check_ray_up(_name: str, text: str) -> None:
    """What ``ray up`` does before it talks to the cloud.

    Raises:
        ValueError: it would refuse the file.
    """
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    try:
        validate_config(prepare_config(yaml.safe_load(text)))
    except ValidationError as error:
        raise ValueError(f"{_path(error.absolute_path)}: {error.message}") from None


def check_kubernetes(_name: str, text: str) -> None:
    """That every document of ``text`` has only fields that its kind has, of their types.

    Raises:
        ValueError: a field is unknown, missing or of another type.
    """
    for document in yaml.safe_load_all(text):
        error = next(iter(_validator(document["kind"]).iter_errors(document)), None)
        if error is not None:
            raise ValueError(f"{document['kind']} {_path(error.absolute_path)}: {error.message}")


def check_bash(_name: str, text: str) -> None:
    """That bash can parse it, where there is a bash.

    Raises:
        ValueError: it cannot.
    """
    bash = shutil.which("bash")
    if bash is None:
        return
    done = subprocess.run([bash, "-n"], input=text, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise ValueError(done.stderr.strip())


def check_docker(name: str, text: str) -> None:
    """That a Dockerfile starts from one image, ends as another user than root, and has only known instructions.

    Raises:
        ValueError: it does not.
    """
    if name != "Dockerfile":
        return
    steps = docker_instructions(text)
    unknown = {word for word, _ in steps} - _INSTRUCTIONS
    if unknown or steps[0][0] != "FROM":
        raise ValueError(f"not a Dockerfile of ours: {sorted(unknown) or steps[0][0]}")
    user = [rest for word, rest in steps if word == "USER"][-1:]
    if not user or re.fullmatch(r"[1-9]\d*:\d+", user[0]) is None:
        raise ValueError(f"the image's user is {user}, not a number other than root's")


def docker_instructions(text: str) -> list[tuple[str, str]]:
    """Instruction and argument of every step, without comments, continued lines joined."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", lines)
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in joined.splitlines() if line.strip()]


@cache
def _validator(kind: str) -> Any:
    from jsonschema import Draft7Validator

    definitions: dict[str, Mapping[str, Any]] = {}
    for name in ("kubernetes.json", "kuberay.json"):
        definitions |= json.loads(files("cluster.manifests").joinpath("schemas", name).read_text())[
            "definitions"
        ]
    known = kind if kind in definitions else f"V1{kind}"
    return Draft7Validator({"$ref": f"#/definitions/{known}", "definitions": definitions})


def _path(parts: Any) -> str:
    return ".".join(str(part) for part in parts) or "the whole"
