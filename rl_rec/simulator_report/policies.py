"""What the reference policies earn in a simulator, and how far what they show is supported by the logs."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.progress import Progress, silent
from envs.world import World
from envs.world_folder import FittedWorld
from envs.world_settings import WorldSettings
from rl_rec.comparison import reference_names, reference_policy
from rl_rec.evaluation import Evaluation, evaluate, normalised

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class PoliciesFound:
    """The reference policies, each on the same users."""

    evaluations: dict[str, Evaluation]
    """By name."""

    @property
    def headroom(self) -> float:
        """(oracle − best constant slate) / (oracle − random): what is left for personal slates to earn.

        NaN where the oracle earns no more than the random policy.
        """
        reached = {name: result.return_mean for name, result in self.evaluations.items()}
        return 1 - normalised(reached["constant"], reached["random"], reached["oracle"])

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        random, oracle = (self.evaluations[name].return_mean for name in ("random", "oracle"))
        return {
            name: {**result.summary(), "normalised": normalised(result.return_mean, random, oracle)}
            for name, result in self.evaluations.items()
        }

    def support(self, logged: NDArray[np.floating] | None) -> dict[str, dict[str, float]] | None:
        """Distribution of the uncertainty of what was shown, by the logs and by each policy.

        Args:
            logged: uncertainty of the test users' logged exposures, ``None`` without an ensemble.

        Returns:
            By ``logged`` and policy: quantiles, ``mean`` and the share above the threshold, ``unsupported``.
        """
        if logged is None:
            return None
        known = {"logged": logged} | {
            name: result.uncertainty.cpu().numpy()
            for name, result in self.evaluations.items()
            if result.uncertainty is not None
        }
        threshold = next(iter(self.evaluations.values())).supported_up_to
        return {
            name: {
                **{f"q{round(100 * share)}": float(np.quantile(values, share)) for share in QUANTILES},
                "mean": float(values.mean()),
                "unsupported": float((values > threshold).mean()),
            }
            for name, values in known.items()
        }


def serve_references(
    fitted: FittedWorld,
    world: World,
    rules: WorldSettings,
    episodes: int,
    seed: int,
    progress: Progress = silent,
) -> PoliciesFound:
    """Evaluate every reference policy; the constant one is searched for on training users, which takes a while.

    Args:
        fitted: the simulator.
        world: of the users to be served.
        rules: of the world.
        episodes: users served by each.
        seed: of users, responses and the search.
        progress: called after every policy.
    """
    evaluations: dict[str, Evaluation] = {}
    names = reference_names(rules)
    for place, name in enumerate(names):
        make = reference_policy(name, fitted, rules, seed, world.device)
        evaluations[name] = evaluate(world, rules, make, episodes, seed)
        progress(place + 1, len(names), name)
    return PoliciesFound(evaluations)
