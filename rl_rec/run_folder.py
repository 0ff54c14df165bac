"""A training run on disk, read without Ray: what it was, and the policy of its newest good checkpoint.

RUN/run.json                      configuration, versions, commit, data fingerprint, seed
RUN/finished.json                 there once all user-steps are done
RUN/trial/result.json             one line per report
RUN/trial/checkpoint_000003/      networks, targets, optimizers, replay, generators, counters
"""

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from envs.errors import UserError
from envs.files import read_json, write_json
from envs.storage.location import Location, location
from envs.world import World
from envs.world_settings import WorldSettings
from rl_rec.agents import Agent, find_agent
from rl_rec.checkpoint import verify
from rl_rec.policy import Policy
from rl_rec.provenance import RUN_FILE
from rl_rec.train_settings import TrainSettings

TRIAL = "trial"
RESULTS, EARLIER = "result.json", "earlier.json"
START = "start"
"""The checkpoint that a trial began anew from, where Tune counts its checkpoints from 0 again."""
FINISHED = "finished.json"
"""There once all user-steps are done."""
_WEIGHTS = Path("learner_group/learner/rl_module/default_policy/module_state.pkl")


class RunFolder:
    """A folder that ``rl-rec train`` wrote, or one trial of a study."""

    def __init__(self, path: Path) -> None:
        """Read the description of the run.

        Raises:
            UserError: the folder is not a run.
        """
        self.path = Path(path)
        described = read_json(self.path / RUN_FILE, "a run (make one with: rl-rec train)")
        if _is_study(described):
            trials = sorted(str(found.parent) for found in self.path.rglob(f"*/{RUN_FILE}"))
            one = next((trial for trial in trials if list(Path(trial).glob("checkpoint_*"))), "")
            raise UserError(f"{self.path} holds many trials: name one{f', as in {one}' if one else ''}")
        try:
            config = described["config"]
            self.agent: Agent = find_agent(config["algorithm"])
            self.simulator: Location = location(config["simulator"])
            values: dict[str, Any] = {**config["settings"]}
        except (KeyError, TypeError):
            raise UserError(
                f"{self.path / RUN_FILE} does not describe a training run (make one with: rl-rec train)"
            ) from None
        settings_class = type(self.agent.train_settings())
        self.settings: TrainSettings[Any] = settings_class.from_mapping(values, file=self.path / RUN_FILE)
        self.fingerprint: str | None = described.get("data_fingerprint")
        self.study: str | None = config.get("study")
        """The study that it is a trial of."""

    @property
    def trial(self) -> Path:
        """Where results and checkpoints are."""
        return self.path if self.study is not None else self.path / TRIAL

    def results(self) -> list[dict[str, Any]]:
        """One entry per report; see ``read_results``."""
        return read_results(self.trial)

    def checkpoints(self) -> list[Path]:
        """Checkpoint folders, newest first; some may be torn."""
        return checkpoints(self.trial)

    def whole_checkpoints(self) -> Iterator[Path]:
        """Checkpoint folders that are as they were saved, newest first, and what the run began anew from."""
        for checkpoint in _to_load(self.trial):
            try:
                verify(checkpoint)
            except UserError:
                continue
            yield checkpoint

    @property
    def finished(self) -> bool:
        """Whether the run collected all its user-steps and saved the policy that it ended with."""
        return (self.path / FINISHED).exists() and any(self.whole_checkpoints())

    def mark_finished(self) -> None:
        """Note that nothing is left to do."""
        last = self.results()[-1:]
        write_json(self.path / FINISHED, {"iterations": last[0]["training_iteration"] if last else 0})

    def weights(self) -> dict[str, Any]:
        """Weights of the newest good checkpoint, as numpy arrays by name.

        Raises:
            UserError: the run has no good checkpoint.
        """
        return newest_weights(self.trial)

    def policy(self, world: World, rules: WorldSettings) -> Policy:
        """The greedy policy of the newest good checkpoint, for ``world`` and its rules.

        Raises:
            UserError: no good checkpoint, or a world with other features than the run's.
        """
        policy: Policy = self.agent.load_policy(self.weights(), world, rules, self.settings.agent)
        return policy


def _is_study(described: Any) -> bool:
    config = described.get("config") if isinstance(described, dict) else None
    return isinstance(config, dict) and not {"variants", "search"}.isdisjoint(config)


def read_results(trial: Path) -> list[dict[str, Any]]:
    """One entry per report; where a resumed run repeated some, the later one counts."""
    # A trial that was restarted keeps what it had reported before beside its own file until it is done.
    content = b"".join(path.read_bytes() for name in (EARLIER, RESULTS) if (path := trial / name).exists())
    by_iteration = {result["training_iteration"]: result for result in parse_results(content)}
    return [by_iteration[iteration] for iteration in sorted(by_iteration)]


def whole_lines(path: Path) -> bytes:
    """What a file holds up to its last whole line: what is appended to a torn one would be lost with it."""
    content = path.read_bytes() if path.exists() else b""
    return content[: content.rfind(b"\n") + 1]


def parse_results(content: bytes) -> Iterator[dict[str, Any]]:
    """Every whole report of a results file, in the order of its lines."""
    for line in content.splitlines():
        try:
            result = json.loads(line)
            result["training_iteration"]
        except (ValueError, TypeError, KeyError):
            continue  # a line that a killed process left half-written
        yield result


def checkpoints(trial: Path) -> list[Path]:
    """Checkpoint folders of one trial, newest first; some may be torn."""
    return sorted(trial.glob("checkpoint_*"), reverse=True)


def _to_load(trial: Path) -> list[Path]:
    start = trial / START
    return [*checkpoints(trial), *([start] if start.exists() else [])]


def newest_weights(trial: Path) -> dict[str, Any]:
    """Weights of a trial's newest good checkpoint, as numpy arrays by name.

    Raises:
        UserError: it has no good checkpoint.
    """
    problem = "it has not saved a checkpoint yet (a run that was interrupted goes on with --resume)"
    for checkpoint in _to_load(trial):
        try:
            verify(checkpoint)
            with (checkpoint / _WEIGHTS).open("rb") as file:
                weights: dict[str, Any] = pickle.load(file)
            return weights
        except UserError as error:
            problem = str(error)
        except (OSError, pickle.UnpicklingError, EOFError):
            problem = f"{checkpoint / _WEIGHTS} cannot be read"
    raise UserError(f"{trial.parent} has no policy to load: {problem}")
