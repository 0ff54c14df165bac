"""Running a search on Tune: candidates, then a study of the best; killed at any moment it goes on.

SEARCH/run.json              the plan
SEARCH/candidates/trial-000/  one candidate: its settings, results and newest checkpoint
SEARCH/search.json           every candidate with its score; there once the first stage is done
SEARCH/finals/               the second stage, a study
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray import tune
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from ray.tune import Callback

from envs.data.dataset import Split
from envs.errors import UserError
from envs.files import read_json, write_json
from envs.progress import Progress
from envs.storage.filesystem import store_json
from envs.storage.location import location
from envs.world_folder import FittedWorld
from rl_rec.json_values import json_value
from rl_rec.metrics import EVALUATION
from rl_rec.provenance import RUN_FILE, describe_run
from rl_rec.run_folder import read_results
from tuning import study as studies
from tuning.resuming import load_same
from tuning.schedulers import make_scheduler
from tuning.search import Search, SearchPlan
from tuning.study import Reporting
from tuning.sweep import Value
from tuning.training import begin, check_start, only_one
from tuning.trial import CANDIDATE, SCORE, VALUES, last_values, prepare, tidy, trial_config, user_steps
from tuning.trials import TotalProgress, run_trials

SEARCH_FILE = "search.json"
CANDIDATES, FINALS = "candidates", "finals"
_STOPPED = "stopped.json"
_PBT_CHECKPOINTS = 4  # a donor's may be asked for after it has saved others


def check(plan: SearchPlan, out: Path) -> FittedWorld:
    """Find what would stop a search before anything is written; needs no running Ray.

    Raises:
        UserError: ``out`` exists or cannot be made, the simulator cannot be read, or settings do not fit.
    """
    fitted = check_start(plan.simulator, out, resume="rl-rec sweep --if-exists resume")
    plan.check(fitted)
    return fitted


def search(
    plan: SearchPlan,
    out: Path,
    parallel: int = 2,
    reporting: Reporting = studies.unseen,
    trackers: Sequence[Callback] = (),
) -> dict[str, Any]:
    """Try candidates, confirm the best. Needs a running Ray.

    Args:
        plan: what to search.
        out: folder to write.
        parallel: trials at once; a population of pbt runs as many as Ray has room for.
        reporting: shows user-steps, then evaluations.
        trackers: see every result besides; of ``make_trackers``.

    Returns:
        ``study.json`` of the second stage, with ``search`` beside it.

    Raises:
        UserError: as ``check``; every candidate failed.
        KeyboardInterrupt: somebody interrupted it; ``resume`` goes on.
        Terminated: SIGTERM did; every trial was saved before.
    """
    fitted, out = check(plan, out), out.resolve()
    seed, device = plan.search.seed, plan.base.device
    with begin(out, describe_run(plan.describe(), seed, fitted.dataset.fingerprint, device)):
        return _go_on(plan, out, parallel, reporting, trackers)


def resume(
    out: Path,
    parallel: int = 2,
    reporting: Reporting = studies.unseen,
    trackers: Sequence[Callback] = (),
) -> dict[str, Any]:
    """Go on with a search: what is done stays, candidates go on from their newest whole checkpoints.

    Raises:
        UserError: ``out`` is no search, or its simulator was fitted on other data since.
        KeyboardInterrupt: as ``search``.
    """
    out = out.resolve()
    plan, fingerprint = read_search(out)
    plan.check(load_same(plan.simulator, fingerprint, out))
    with only_one(out):
        return _go_on(plan, out, parallel, reporting, trackers)


def is_search(out: Path) -> bool:
    """Whether the folder ``out`` holds a search, finished or not."""
    try:
        return "search" in read_json(out / RUN_FILE, "a run")["config"]
    except (UserError, KeyError, TypeError):
        return False


def read_search(out: Path) -> tuple[SearchPlan, str | None]:
    """The plan of the search in ``out``, and the fingerprint of the data that it began with.

    Raises:
        UserError: the folder is no search.
    """
    described = read_json(out / RUN_FILE, "a search (make one with: rl-rec sweep)")
    try:
        config = described["config"]
        plan = SearchPlan(
            location(config["simulator"]),
            Search.from_mapping(config["search"], file=out / RUN_FILE),
            Split[config["split"].upper()],
            tuple(config["assignments"]),
        )
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"{out / RUN_FILE} does not describe a search") from None
    return plan, described.get("data_fingerprint")


def _go_on(
    plan: SearchPlan, out: Path, parallel: int, reporting: Reporting, trackers: Sequence[Callback]
) -> dict[str, Any]:
    if not (out / SEARCH_FILE).exists():
        with reporting("searching, user-steps") as progress:
            tried = _try_candidates(plan, out, parallel, progress, trackers)
        write_json(out / SEARCH_FILE, json_value({"trials": tried, "finalists": _best(plan, tried)}))
    found = read_json(out / SEARCH_FILE, "a search")
    finals = out / FINALS
    if (finals / RUN_FILE).exists():
        result = studies.resume(finals, parallel, reporting, trackers)
    else:
        shutil.rmtree(finals, ignore_errors=True)  # begun, and killed before it said what it is
        best = [found["trials"][name][VALUES] for name in found["finalists"]]
        result = studies.study(plan.finals(best), finals, parallel, reporting, trackers)
    return {**result, "search": found}


def _best(plan: SearchPlan, tried: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The best of those that trained to the end, best first; the defaults are in the second stage anyway."""
    whole = [name for name, trial in tried.items() if trial["state"] == "finished" and trial["looks"]]
    if not whole:
        problems = {trial["problem"] for trial in tried.values() if trial["problem"]}
        raise UserError(f"every candidate failed: {'; '.join(sorted(problems))}")
    ranked = sorted(whole, key=lambda name: -tried[name]["score"])
    return plan.distinct({name: tried[name][VALUES] for name in ranked})[: plan.search.finalists]


def _try_candidates(
    plan: SearchPlan, out: Path, parallel: int, progress: Progress, trackers: Sequence[Callback]
) -> dict[str, dict[str, Any]]:
    """The first stage, or what is left of it: those that are known already, then what the searcher proposes."""
    search, folder = plan.search, out / CANDIDATES
    begun = _begun(folder)
    known = dict(begun)
    if search.searcher == "random":
        drawn = {f"trial-{index:03d}": values for index, values in enumerate(search.candidates())}
        known = {**drawn, **begun}  # pbt may have changed their values
    left = {name: values for name, values in known.items() if _state(folder / name, search) is None}
    looks = {name: _looks(folder / name) for name in begun}
    behind = {name: user_steps(folder / name) for name in begun}
    total = TotalProgress(progress, search.steps, search.trials, behind)
    watching = [_Endings(search.steps), total, *trackers]
    origin = read_json(out / RUN_FILE, "a search")
    trial = trial_config(search.name, plan.agent, plan.base, plan.simulator, origin)
    failed: dict[str, str] = {}
    if left:
        for name in left:
            prepare(folder / name)
        listed = [{"name": name, VALUES: values} for name, values in left.items()]
        pbt = search.scheduler == "pbt"
        failed |= run_trials(
            {"trial": trial, CANDIDATE: tune.grid_search(listed)},
            plan.base,
            folder,
            None if pbt else parallel,
            watching,
            make_scheduler(search, looks),
            keep=_PBT_CHECKPOINTS if pbt else 1,
        )
        _stop_if_interrupted(folder, left, search, failed)
        for name in left.keys() - failed.keys():
            tidy(folder / name)
    if len(known) < search.trials:
        failed_now, proposed = _propose(plan, folder, parallel, watching, trial, known, failed)
        failed |= failed_now
        known |= proposed
        if len(known) < search.trials:
            raise KeyboardInterrupt
        _stop_if_interrupted(folder, known, search, failed)
    return {name: _describe(folder / name, known[name], search, failed.get(name)) for name in sorted(known)}


def _propose(
    plan: SearchPlan,
    folder: Path,
    parallel: int,
    watching: Sequence[Callback],
    trial: Mapping[str, Any],
    known: Mapping[str, Mapping[str, Value]],
    failed: Mapping[str, str],
) -> tuple[dict[str, str], dict[str, dict[str, Value]]]:
    """Let Optuna propose the candidates that are missing; returns why some failed, and everyone's values."""
    search = plan.search
    for trace in _folders(folder):
        if trace not in known:
            shutil.rmtree(folder / trace)  # begun, and killed before its first look
    looks = {name: _looks(folder / name) for name in known}
    scored = [(known[name], seen[-1][1]) for name, seen in looks.items() if seen and name not in failed]
    first = max((int(name.partition("-")[2]) + 1 for name in known), default=0)
    searcher = _optuna(search, first, scored)
    failed_now = run_trials(
        {"trial": trial},
        plan.base,
        folder,
        parallel,
        watching,
        make_scheduler(search, looks),
        searcher,
        search.trials - len(known),
    )
    return failed_now, searcher.proposed


def _stop_if_interrupted(
    folder: Path, names: Mapping[str, Any], search: Search, failed: Mapping[str, str]
) -> None:
    # Tune ends its loop on Ctrl-C and returns as if all were well.
    if any(_state(folder / name, search) is None for name in names if name not in failed):
        raise KeyboardInterrupt


def _folders(folder: Path) -> list[str]:
    return sorted(trial.name for trial in folder.glob("trial-*") if trial.is_dir())


def _begun(folder: Path) -> dict[str, dict[str, Value]]:
    """By candidate that has a checkpoint, its values as they are now."""
    found = {name: last_values(folder / name) for name in _folders(folder)}
    return {name: values for name, values in found.items() if values is not None}


def _state(trial: Path, search: Search) -> str | None:
    if user_steps(trial) >= search.steps:
        return "finished"
    return "stopped" if (trial / _STOPPED).exists() else None


def _looks(trial: Path) -> list[tuple[int, float]]:
    """User-steps and score of every evaluation; reports between two of them repeat the last."""
    return [
        (int(result[NUM_ENV_STEPS_SAMPLED_LIFETIME]), float(result[EVALUATION]["return_mean"]))
        for result in read_results(trial)
        if EVALUATION in result
    ]


def _describe(trial: Path, values: Mapping[str, Value], search: Search, problem: str | None) -> dict[str, Any]:
    results, looks = read_results(trial), _looks(trial)
    last = results[-1] if results else {}
    return {
        VALUES: last.get(VALUES) or dict(values),  # pbt may have changed them
        "score": looks[-1][1] if looks else None,
        "user_steps": int(last.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, 0)),
        "state": "failed" if problem else _state(trial, search),
        "problem": problem,
        "looks": looks,
    }


class _Endings(Callback):
    """Notes which candidates the scheduler stopped: a restart must not go on with them."""

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Called by Tune."""
        done = (trial.last_result or {}).get(NUM_ENV_STEPS_SAMPLED_LIFETIME, 0)
        if done < self._steps:
            note = f"{trial.storage.trial_fs_path}/{_STOPPED}"
            store_json(trial.storage.storage_filesystem, note, {"user_steps": int(done)})


def _optuna(search: Search, begun: int, scored: Sequence[tuple[Mapping[str, Value], float]]) -> Any:
    """Optuna's searcher, told of earlier candidates; its own are numbered from ``begun`` on."""
    import optuna
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space: dict[str, Any] = {}
    for path, axis in search.space.items():
        if isinstance(axis, tuple):
            space[path] = CategoricalDistribution(axis)
        elif axis.integer:
            space[path] = IntDistribution(int(axis.low), int(axis.high), log=axis.log)
        else:
            space[path] = FloatDistribution(axis.low, axis.high, log=axis.log)

    class Named(OptunaSearch):
        """Gives candidates names in their order."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.proposed: dict[str, dict[str, Value]] = {}

        def suggest(self, trial_id: str) -> dict[str, Any] | None:
            values = super().suggest(trial_id)
            if values is None:
                return None
            name = f"trial-{begun + len(self.proposed):03d}"
            self.proposed[name] = values
            return {CANDIDATE: {"name": name, VALUES: values}}

    return Named(
        space,
        metric=SCORE,
        mode="max",
        points_to_evaluate=[dict(values) for values, _ in scored] or None,
        evaluated_rewards=[score for _, score in scored] or None,
        # Another one after a restart: the same would propose the same first points again.
        seed=search.seed + begun,
    )
