"""What a simulator may be trusted with and what not, in sentences."""

from collections.abc import Collection, Mapping
from math import isnan

from envs.calibration import Bias, shortfall
from envs.data.sessions import Origin
from envs.fit import REMEDY
from rl_rec.simulator_report.measure import GroupFound, LogFound
from rl_rec.simulator_report.policies import PoliciesFound

GAP = 0.02
"""Predictions that are off by less are as good as right."""
ECE = 0.05
"""Calibration errors above this one, and above twice what chance brings, are told."""
UNSUPPORTED = 0.25
"""Share of shown items beyond the logs above which a policy's return rests on guesses."""
SMALL_HEADROOM = 0.2
"""Share of the way from random to oracle; where personal slates add less, agents have little to learn."""


def sentences(
    logs: Mapping[Origin, LogFound],
    policies: PoliciesFound,
    support: Mapping[str, Mapping[str, float]] | None,
) -> list[str]:
    """The findings, most important first."""
    logged = logs[Origin.LOGGED]
    failed = {
        name: wrong for name, compared in logged.quality.items() if (wrong := shortfall(compared)) is not None
    }
    learned = next(iter(logged.quality)) not in failed
    said = [f"Not to be trusted: who does what ({name}); {wrong}. {REMEDY}." for name, wrong in failed.items()]
    said += [_of_logged(logged, learned), *_of_groups(logged)]
    if Origin.RANDOM in logs:
        said += [_of_random(logs[Origin.RANDOM], logged, learned), *_of_groups(logs[Origin.RANDOM])]
    else:
        said.append(
            "Untested: what users would do with items that the logging system chose not to show; the logs hold "
            "no randomly drawn slates."
        )
    said.append(_of_returns(policies, failed))
    said.append(_of_support(support))
    return said


def is_off(measured: Bias, tried: int = 1) -> bool:
    """Whether a mean prediction is wrong by more than ``GAP`` and than chance brings in ``tried`` groups."""
    low, high = measured.interval(1 - 0.05 / tried)
    return abs(measured.gap) > GAP and (low > 0 or high < 0)


def _of_logged(found: LogFound, learned: bool) -> str:
    overall = found.overall
    behaviour, quality = next(iter(found.quality.items()))
    ranks = quality["model"].auc > quality["popularity"].auc
    calibrated = not is_off(overall) and not _badly_calibrated(overall)
    of = f" ({behaviour})" if len(found.quality) > 1 else ""
    if calibrated and not learned:
        verdict = f"Right in the mean only: probabilities of what the logging system showed{of}"
    elif calibrated and ranks:
        verdict = f"May be trusted: probabilities of what the logging system showed{of}"
    elif calibrated:
        verdict = f"May be trusted in the mean{of}, not user by user (it ranks no better than item popularity)"
    else:
        verdict = f"Not to be trusted: probabilities of what the logging system showed{of}"
    return (
        f"{verdict}; {_gap(overall)}, calibration error {overall.ece:.3f} ({overall.chance_ece:.3f} by chance "
        f"alone), AUC {quality['model'].auc:.3f} beside {quality['gradient_boosting'].auc:.3f} of gradient "
        f"boosting and {quality['popularity'].auc:.3f} of item popularity."
    )


def _of_groups(found: LogFound) -> list[str]:
    where = "" if found.origin == Origin.LOGGED else " in randomly drawn slates"
    off = [group for group in found.groups if is_off(group.bias, len(found.groups))]
    off.sort(key=lambda group: -abs(group.bias.gap))
    if not off:
        return [f"No group of items or users{where} is predicted wrongly beyond chance and beyond {GAP:.2f}."]
    return [f"Not to be trusted: {_too_high(group)}{where}." for group in off]


def _too_high(group: GroupFound) -> str:
    side = "too high" if group.bias.gap > 0 else "too low"
    return f"predictions for {group.about} are {abs(group.bias.gap):.2f} {side} ({_interval(group.bias)})"


def _of_random(found: LogFound, logged: LogFound, learned: bool) -> str:
    overall = found.overall
    auc, auc_logged = (next(iter(logs.quality.values()))["model"].auc for logs in (found, logged))
    ranking = f"AUC {auc:.3f} there, {auc_logged:.3f} on logged slates"
    if is_off(overall):
        side = "too high" if overall.gap > 0 else "too low"
        return (
            f"Not to be trusted: probabilities of items that the logging system would not have chosen; in "
            f"randomly drawn slates they are {abs(overall.gap):.2f} {side} ({_gap(overall)}): the logs' "
            f"selection bias. {ranking}."
        )
    if _badly_calibrated(overall):
        return (
            f"With care: in randomly drawn slates the mean is right ({_gap(overall)}), yet the calibration "
            f"error is {overall.ece:.3f} ({overall.chance_ece:.3f} by chance alone). {ranking}."
        )
    verdict = "May be trusted" if learned else "Right in the mean only"
    return f"{verdict}: probabilities in randomly drawn slates too; {_gap(overall)}. {ranking}."


def _of_returns(policies: PoliciesFound, failed: Collection[str]) -> str:
    reached = {name: result.return_mean for name, result in policies.evaluations.items()}
    # NaN where the oracle earns no more than random slates: a model without any taste.
    added = "nothing" if isnan(policies.headroom) else f"{policies.headroom:.0%} of the range"
    told = (
        f"The oracle earns {reached['oracle']:.2f}, the best constant ranking {reached['constant']:.2f}, "
        f"random slates {reached['random']:.2f}: personal slates add {added}."
    )
    if policies.headroom >= SMALL_HEADROOM:
        return told
    told += " Comparisons of personalised agents have little room here"
    if failed:
        return f"{told}, which is the failure of the fit ({', '.join(failed)}) and tells nothing of the users."
    return f"{told}."


def _of_support(support: Mapping[str, Mapping[str, float]] | None) -> str:
    if support is None:
        return (
            "Unknown: how far the logs support what policies show; fit the simulator with --set ensemble=4 to "
            "measure it."
        )
    shares = {name: figures["unsupported"] for name, figures in support.items() if name != "logged"}
    listed = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    beyond = [name for name, share in shares.items() if share > UNSUPPORTED]
    told = f"Shown items whose uncertainty is above 95% of the logged exposures: {listed}."
    if beyond:
        return f"Not to be trusted: the returns of {', '.join(beyond)}, which rest on guesses. {told}"
    return f"No reference policy shows much that the ensemble is unsure of. {told}"


def _badly_calibrated(measured: Bias) -> bool:
    return measured.ece > max(ECE, 2 * measured.chance_ece)


def _gap(measured: Bias) -> str:
    return (
        f"mean {measured.predicted:.3f} predicted, {measured.observed:.3f} observed "
        f"({measured.gap:+.3f}, {_interval(measured, '+.3f')})"
    )


def _interval(measured: Bias, form: str = ".2f") -> str:
    ends = measured.interval()
    low, high = ends if form.startswith("+") else sorted(abs(end) for end in ends)
    return f"95% {low:{form}} to {high:{form}}"
