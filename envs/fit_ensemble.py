"""Fitting further response models, which tell where the simulator knows too little.

Glossary: S slates, n shown items.
"""

from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from envs.data.dataset import Dataset, Split
from envs.ensemble import Ensemble
from envs.examples import Slates
from envs.fit import FitSettings, fit_model
from envs.progress import Progress, silent
from envs.randomness import stream_seed
from envs.response import FrozenResponse, ResponseModel

SUPPORTED = 0.95
"""Share of the logged exposures whose uncertainty is within the threshold."""
_SLATES_AT_ONCE = 4096


class FittedEnsemble:
    """The further models of a fit, without the main one, read when first asked for.

    Attributes:
        threshold: uncertainty that 95% of the validation users' logged exposures stay within.
    """

    def __init__(self, read: Callable[[], Sequence[ResponseModel]], threshold: float) -> None:
        """``read`` gives the models, on the CPU."""
        self._read, self.threshold = read, threshold

    @cached_property
    def models(self) -> tuple[ResponseModel, ...]:
        """In ``eval()`` mode, on the CPU.

        Raises:
            UserError: their weights are missing or damaged.
        """
        return tuple(model.eval() for model in self._read())


def fit_ensemble(
    dataset: Dataset,
    main: ResponseModel,
    settings: FitSettings,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
) -> FittedEnsemble:
    """Fit ``settings.ensemble`` further models, each calibrated on the validation users like the main one.

    The threshold is of those users too: the test users are there to measure what was chosen.

    Raises:
        UserError: as ``fit``.
    """
    train, validation = (
        Slates.of_split(dataset, split, settings.history_length, device)
        for split in (Split.TRAIN, Split.VALIDATION)
    )
    profiles = torch.from_numpy(dataset.user_features).to(device)
    item_features = torch.from_numpy(dataset.item_features).to(device)
    models = []
    for member in range(settings.ensemble):
        seed = stream_seed(settings.seed, 2, member)
        drawn = bootstrap_users(train, seed)
        own = settings.model_copy(update={"seed": seed})
        model, _, _ = fit_model(drawn, validation, profiles, item_features, own)
        models.append(model)
        progress(member + 1, settings.ensemble, "further models")
    frozen = [FrozenResponse(model, profiles, item_features) for model in (main.to(device), *models)]
    uncertainty = slate_uncertainty(Ensemble(frozen[0], lambda: frozen[1:], 0.0), validation)
    # Sorted by hand: torch.quantile refuses more than 16 million values.
    place = round(SUPPORTED * (len(uncertainty) - 1))
    threshold = float(uncertainty.sort().values[place])
    main.cpu()
    return FittedEnsemble(lambda: [model.cpu() for model in models], threshold)


def bootstrap_users(slates: Slates, seed: int) -> Slates:
    """As many users as there are, drawn with replacement, each with all their slates."""
    users, place = slates.user.unique(return_inverse=True)
    generator = torch.Generator().manual_seed(stream_seed(seed, 2))
    drawn = torch.randint(len(users), (len(users),), generator=generator)
    times = torch.bincount(drawn, minlength=len(users)).to(place.device)  # (users,)
    return slates[torch.arange(len(slates), device=place.device).repeat_interleave(times[place])]


def slate_uncertainty(ensemble: Ensemble, slates: Slates) -> Tensor:
    """Uncertainty of everything that logged slates showed: (n,) float, slate by slate."""
    parts = torch.arange(len(slates), device=slates.user.device).split(_SLATES_AT_ONCE)
    of_parts = [
        ensemble.uncertainty(part.user, part.history, part.items)[part.items != 0]
        for part in (slates[index] for index in parts)
    ]
    return torch.cat(of_parts)
