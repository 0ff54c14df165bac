"""The semantic IDs of a world's catalogue: read from a folder, or built from the item features."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from envs.errors import UserError
from envs.world import World
from envs.world_folder import FittedWorld
from rl_rec.hsrl.config import HSRLSettings
from rl_rec.sids import folder
from rl_rec.sids.codebook import Codebook, SidSettings, fit_codebook
from rl_rec.sids.table import SidTable


def check_sids(settings: HSRLSettings, fitted: FittedWorld) -> None:
    """Find, before a run begins, that its semantic IDs do not fit its simulator.

    Raises:
        UserError: ``settings.sids`` is damaged, or was built from other data.
    """
    if settings.sids is None:
        return
    sids = folder.load(settings.sids)
    if sids.fingerprint != fitted.dataset.fingerprint:
        raise UserError(
            f"{settings.sids} was built from other data ({sids.dataset}) than this simulator was fitted on "
            f"({fitted.dataset.name}): build semantic IDs from it with rl-rec sids build --data"
        )


def catalogue_sids(world: World, settings: HSRLSettings, live: Tensor) -> tuple[Codebook, NDArray[np.int32]]:
    """The codebook, and the tokens (N + 1, L) of the world's items, −1 for padding.

    Args:
        world: whose items.
        settings: where the semantic IDs are, or how to build them.
        live: (N + 1,) bool, the items that exist when training begins. A codebook that is built here is fitted
            to them alone; the others get their nearest centres, as new items do.

    Raises:
        UserError: ``settings.sids`` is not a folder of semantic IDs, or one of another catalogue; or more
            levels and tokens than a code can number.
    """
    if settings.sids is not None:
        sids = folder.load(settings.sids)
        if sids.table.item_count != world.num_items:
            raise UserError(
                f"{settings.sids} holds semantic IDs of {sids.table.item_count} items, the world has "
                f"{world.num_items}: build them from this world's data (rl-rec sids build)"
            )
        # A last level that tells items of one bucket apart has no centres, and the tree's leaves do the same.
        return sids.codebook, np.asarray(sids.table.tokens, np.int32)[:, : len(sids.codebook.centres)]
    how = SidSettings(levels=settings.sid_levels, codebook_size=settings.sid_codebook)
    features, known = world.item_features.cpu().numpy(), live.cpu().numpy()
    codebook, of_known = fit_codebook(features[known], how)
    tokens = np.full((len(features), of_known.shape[1]), -1, np.int32)
    tokens[known] = of_known
    born_later = ~known
    born_later[0] = False
    if born_later.any():
        tokens[born_later] = codebook.encode(features[born_later])
    SidTable.from_tokens(tokens[1:], codebook.sizes)  # refuses codes that are too long to number
    return codebook, tokens
