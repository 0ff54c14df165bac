"""One training run of a study as Tune sees it, whatever its algorithm.

A Tune experiment has one trainable, an RLlib algorithm is one: this one holds the algorithm that the trial's
configuration names, so that runs of several algorithms share a queue.
"""

import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

from pyarrow.fs import FileType
from ray.tune import Checkpoint, PlacementGroupFactory, Trainable

from envs.errors import UserError
from envs.files import read_json, write_json
from envs.settings import assignment
from envs.storage.filesystem import store_json
from envs.storage.location import Location
from rl_rec.agents import Agent
from rl_rec.checkpoint import verify
from rl_rec.json_values import json_value
from rl_rec.metrics import EVALUATION
from rl_rec.provenance import RUN_FILE, describe_run
from rl_rec.run_folder import EARLIER, RESULTS, START, checkpoints, whole_lines
from rl_rec.train_settings import TrainSettings
from rl_rec.unsaved import GoesOnUnsaved

SCORE = "validation_return"
"""What schedulers and searchers compare; part of every result."""
CANDIDATE, VALUES = "candidate", "values"
"""Where a search's configurations, results and checkpoints hold what it varies."""

_FROM_STUDY = ("command", "git", "data_fingerprint")
_PROGRESS = "progress.json"


class StudyTrial(GoesOnUnsaved, Trainable):
    """Delegates to an algorithm.

    Its configuration: ``trial``, of ``trial_config``, and in a search ``candidate``, whose ``values`` are
    settings by path. In its folder, ``prepare`` may have left a checkpoint to start from.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Build the algorithm, as it was when the trial's folder was left, and write there what it is."""
        rllib_config = _rllib_config(config)
        assert rllib_config.algo_class is not None
        self._algorithm = rllib_config.algo_class(config=rllib_config, storage=self._storage)
        self._values = dict(config.get(CANDIDATE, {}).get(VALUES, {}))
        self._score = math.nan
        assert self._storage is not None
        filesystem, folder = self._storage.storage_filesystem, PurePosixPath(self._storage.trial_fs_path)
        start = Checkpoint(str(folder / START), filesystem)
        if filesystem.get_file_info(start.path).type == FileType.Directory:
            with start.as_directory() as local:
                self.load_checkpoint(local)
        trial, settings = config["trial"], rllib_config.train_settings()
        described = {
            "algorithm": trial["agent"]["name"],
            "simulator": trial["simulator"],
            "settings": settings,
            "study": folder.parent.name,
        }
        known = describe_run(described, settings.seed, None, settings.device)
        filesystem.create_dir(str(folder))
        store_json(filesystem, str(folder / RUN_FILE), json_value({**known, **trial["origin"]}))

    def step(self) -> dict[str, Any]:
        """One iteration of the algorithm, with the latest validation return, NaN before there is one.

        Tune stops a whole experiment when one result lacks what its scheduler compares.
        """
        self._iteration = self._algorithm.iteration  # Tune counts from 0 in a process that it uses again
        result: dict[str, Any] = self._algorithm.train()
        if EVALUATION in result:
            self._score = result[EVALUATION]["return_mean"]
        result[SCORE] = self._score
        result[VALUES] = self._values  # a scheduler may change them on the way
        self.note_unsaved(result)
        return result

    @property
    def trained(self) -> bool:
        """Whether all user-steps are done."""
        return bool(self._algorithm.trained)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Become another trial: a new process would spend seconds on imports."""
        self.cleanup()
        self.setup(new_config)
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Save the algorithm, and how far it is."""
        score = self._score if math.isfinite(self._score) else None
        progress = {"user_steps": self._algorithm.collected, VALUES: self._values, SCORE: score}
        write_json(Path(checkpoint_dir) / _PROGRESS, progress)
        self._algorithm.save_checkpoint(checkpoint_dir)  # seals what is there

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Go on from a whole checkpoint.

        Raises:
            UserError: it is damaged.
        """
        self._algorithm.load_checkpoint(checkpoint)
        score = read_json(Path(checkpoint) / _PROGRESS, "a trial's checkpoint").get(SCORE)
        self._score = math.nan if score is None else score

    def cleanup(self) -> None:
        """Stop the algorithm's actors."""
        self._algorithm.stop()

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> PlacementGroupFactory:
        """What the algorithm asks for, whatever the candidate: values that clash fail in their own trial."""
        rllib_config = _rllib_config({"trial": config["trial"]})
        assert rllib_config.algo_class is not None
        asked = rllib_config.algo_class.default_resource_request(rllib_config.to_dict())
        assert isinstance(asked, PlacementGroupFactory)
        return asked


def trial_config(
    name: str, agent: Agent, settings: TrainSettings[Any], simulator: Location, origin: Mapping[str, Any]
) -> dict[str, Any]:
    """A trial's configuration for ``StudyTrial``: plain data, so that Tune can copy and store it.

    Args:
        name: of the trial and its folder.
        agent: what is trained.
        settings: how.
        simulator: where.
        origin: the description of the study, from which the trial's ``run.json`` takes what is the same.
    """
    return {
        "name": name,
        "agent": asdict(agent),
        "simulator": str(simulator.resolve()),
        "settings": settings.model_dump(mode="json"),
        "origin": {part: origin.get(part) for part in _FROM_STUDY},
    }


def trial_name(trial: Any) -> str:
    """The name in a trial's configuration, for Tune."""
    return str(trial.config.get(CANDIDATE, trial.config["trial"])["name"])


def _rllib_config(config: Mapping[str, Any]) -> Any:
    trial = config["trial"]
    made = Agent(**trial["agent"]).rllib_config()
    settings = type(made).settings_class.from_mapping(trial["settings"])
    varied = [assignment(path, value) for path, value in config.get(CANDIDATE, {}).get(VALUES, {}).items()]
    return made.recommender(trial["simulator"], settings.with_overrides(varied))


def user_steps(trial: Path) -> int:
    """User-steps behind the newest whole checkpoint of the folder ``trial``; 0 where there is none."""
    whole = _newest_whole(trial)
    return int(read_json(whole / _PROGRESS, "a trial's checkpoint")["user_steps"]) if whole else 0


def last_values(trial: Path) -> dict[str, Any] | None:
    """What a search varies, as of the newest whole checkpoint of the folder ``trial``; ``None`` without one."""
    whole = _newest_whole(trial)
    return dict(read_json(whole / _PROGRESS, "a trial's checkpoint").get(VALUES, {})) if whole else None


def prepare(trial: Path) -> None:
    """Make the folder ``trial`` ready to go on from its newest whole checkpoint, or from nothing.

    Tune counts the checkpoints of a trial that it starts from 0, and would write into those that are there:
    they make place.
    """
    start, whole = trial / START, _newest_whole(trial)
    if whole is not None:
        keep_results(trial)
    if whole is not None and whole != start:
        shutil.rmtree(start, ignore_errors=True)
        whole.rename(start)
    elif whole is None:
        shutil.rmtree(trial, ignore_errors=True)
    for left in checkpoints(trial):
        shutil.rmtree(left)
    for name in ("error.txt", "error.pkl"):
        (trial / name).unlink(missing_ok=True)


def keep_results(trial: Path) -> None:
    """Set the results of the folder ``trial`` aside: a trial that Tune starts begins the file anew."""
    results = trial / RESULTS
    if results.exists():
        with (trial / EARLIER).open("ab") as earlier:
            earlier.write(whole_lines(results))
        results.unlink()


def tidy(trial: Path) -> None:
    """Drop what a finished trial started from, and put its earlier results before the later ones."""
    earlier, results = trial / EARLIER, trial / RESULTS
    if earlier.exists() and results.exists():
        draft = trial / f".{RESULTS}"
        draft.write_bytes(earlier.read_bytes() + results.read_bytes())
        draft.replace(results)
        earlier.unlink()
    shutil.rmtree(trial / START, ignore_errors=True)


def _newest_whole(trial: Path) -> Path | None:
    """The whole checkpoint with most user-steps behind it: names start anew with every restart."""
    newest, most = None, -1
    for folder in [*checkpoints(trial), trial / START]:
        try:
            verify(folder)
            behind = int(read_json(folder / _PROGRESS, "a trial's checkpoint")["user_steps"])
        except (UserError, KeyError):
            continue
        if behind > most:
            newest, most = folder, behind
    return newest
