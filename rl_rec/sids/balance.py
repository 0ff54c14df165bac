"""Assignment to the nearest centres where every centre takes a limited number of rows.

A centre in demand asks a price that every row adds to its squared distance. With the prices of the optimum (the
dual of the transport problem) all rows choose freely and nearly nobody is turned away; the few who are lose
least by it.
"""

import numpy as np
from numpy.typing import NDArray

from rl_rec.sids.kmeans import Floats, Tokens, blocks

_SAMPLE_COSTS = 1 << 23
"""Squared distances held while the prices are found."""
_PRICE_STEPS = 100
"""Steps towards the prices; in large catalogues a quarter of them from those of an earlier assignment."""
_SWAP_COSTS = 1 << 21
"""Squared distances up to which a catalogue is small: pairs of its rows are exchanged in the end. In larger
ones few rows are turned away."""
_SWAP_ROUNDS = 100


def balanced_assignment(
    rows: Floats, centres: Floats, capacity: int, prices: Floats | None = None
) -> tuple[Tokens, Floats]:
    """Assign the rows (N, F) to the centres (V, F), at most ``capacity`` to each.

    Args:
        rows: what is assigned.
        centres: where to.
        capacity: V · capacity must be at least N.
        prices: (V,) of an earlier assignment to similar centres, to start from.

    Returns:
        The tokens int32 (N,), and the prices float32 (V,).
    """
    assert capacity * len(centres) >= len(rows)
    prices = _prices(rows, centres, prices)
    tokens = np.full(len(rows), -1, np.int32)
    free = np.full(len(centres), capacity)
    left = np.arange(len(rows))
    while len(left):
        is_open = np.flatnonzero(free)
        choice, regret = _choices(rows, left, centres[is_open], prices[is_open])
        choice = is_open[choice]
        # Per centre those first who would lose most elsewhere.
        order = np.lexsort((-regret, choice))
        chosen = choice[order]
        queue = np.arange(len(order)) - np.searchsorted(chosen, chosen)  # the place in the centre's queue
        accepted = order[queue < free[chosen]]
        tokens[left[accepted]] = choice[accepted]
        free -= np.bincount(choice[accepted], minlength=len(centres))
        left = np.delete(left, accepted)
    if rows.shape[0] * len(centres) <= _SWAP_COSTS:
        _swap(tokens, _costs(rows, centres, np.zeros_like(prices)))
    return tokens, prices


def _swap(tokens: Tokens, cost: Floats) -> None:
    """Exchange pairs of rows while that lowers the total of ``cost`` (N, V); all takings stay as they are."""
    size = cost.shape[1]
    every = np.arange(len(tokens))
    for _ in range(_SWAP_ROUNDS):
        order = np.argsort(tokens, kind="stable")
        taken, starts = np.unique(tokens[order], return_index=True)
        gain = (cost[every, tokens][:, None] - cost)[order]  # (N, V)
        best = np.full((size, size), -np.inf, np.float32)  # what the keenest row of a gains by moving to b
        best[taken] = np.maximum.reduceat(gain, starts)
        total = np.triu(best + best.T, 1)
        a, b = np.nonzero(total > 1e-5)
        if not len(a):
            return
        free = np.ones(size, bool)
        for pair in np.argsort(-total[a, b], kind="stable"):
            one, other = a[pair], b[pair]
            if free[one] and free[other]:
                free[[one, other]] = False
                forth, back = (_keenest(gain, order, tokens, *ends) for ends in ((one, other), (other, one)))
                tokens[forth], tokens[back] = other, one


def _keenest(
    gain: Floats, order: NDArray[np.intp], tokens: Tokens, origin: np.intp, target: np.intp
) -> np.intp:
    members = np.flatnonzero(tokens[order] == origin)
    return order[members[gain[members, target].argmax()]]


def _prices(rows: Floats, centres: Floats, prices: Floats | None) -> Floats:
    """Prices at which demand is nearly even, by dual ascent on evenly spaced rows."""
    warm = prices is not None and len(rows) * len(centres) > _SWAP_COSTS
    steps = _PRICE_STEPS // 4 if warm else _PRICE_STEPS
    prices = np.zeros(len(centres), np.float32) if prices is None else prices
    if len(centres) == 1:
        return prices
    wanted = max(_SAMPLE_COSTS // len(centres), 16 * len(centres))
    sample = rows[:: -(-len(rows) // wanted)]
    cost = _costs(sample, centres, np.zeros_like(prices))  # (n, V)
    two = np.partition(cost, 1, axis=1)[:, :2]
    step = max(float((two[:, 1] - two[:, 0]).mean()), 1e-12)
    best, best_excess = prices, np.inf
    share = len(sample) / len(centres)
    for turn in range(_PRICE_STEPS - steps, _PRICE_STEPS):
        demand = np.bincount((cost + prices).argmin(axis=1), minlength=len(centres))
        excess = np.maximum(demand - share, 0.0).sum()
        if excess < best_excess:
            best, best_excess = prices, excess
        pull = np.clip(demand / share - 1.0, -1.0, 3.0)
        prices = (prices + step * 0.96**turn * pull).astype(np.float32)
    return best


def _choices(
    rows: Floats, left: NDArray[np.intp], centres: Floats, prices: Floats
) -> tuple[NDArray[np.intp], Floats]:
    """The cheapest centre of each row of ``left``, and how much dearer the second is."""
    choice, regret = np.empty(len(left), np.intp), np.empty(len(left), np.float32)
    for block in blocks(len(left), len(centres)):
        cost = _costs(rows[left[block]], centres, prices)
        picked = cost.argmin(axis=1)
        own = np.arange(len(cost)), picked
        lowest = cost[own]
        cost[own] = np.inf
        choice[block], regret[block] = picked, cost.min(axis=1) - lowest
    return choice, regret


def _costs(rows: Floats, centres: Floats, prices: Floats) -> Floats:
    """Squared distance plus price (n, V), up to a constant of each row."""
    return np.square(centres).sum(axis=1) + prices - 2.0 * (rows @ centres.T)
