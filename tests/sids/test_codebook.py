"""Residual k-means: nearest centres by hand, errors that fall, seeds, limits, and odd catalogues."""

import warnings
from itertools import product

import numpy as np
import pytest

from envs.errors import UserError
from rl_rec.sids.balance import balanced_assignment
from rl_rec.sids.codebook import Codebook, SidSettings, fit_codebook
from rl_rec.sids.report import residual_errors

HAND = Codebook(
    mean=np.array([1.0, 0.0], np.float32),
    scale=np.array([2.0, 1.0], np.float32),
    centres=(
        np.array([[0.0, 0.0], [4.0, 0.0]], np.float32),
        np.array([[0.0, 1.0], [-1.0, 0.0], [1.0, 0.0]], np.float32),
    ),
)


def vectors(items=300, columns=6, seed=0):
    rng = np.random.default_rng(seed)
    clusters = 3.0 * rng.standard_normal((12, columns))
    return (clusters[rng.integers(12, size=items)] + rng.standard_normal((items, columns))).astype(np.float32)


def small(**changes):
    return SidSettings(**{"codebook_size": 8, **changes})


def errors(x, **changes):
    codebook, tokens = fit_codebook(x, small(**changes))
    return np.array(residual_errors(codebook, tokens, x))


def test_tokens_by_hand():
    # (7, 0.2) is (3, 0.2) standardised: nearest to (4, 0), and (−1, 0.2) is left, nearest to (−1, 0).
    # (1, 0.8) is (0, 0.8): (0, 0), then (0, 1). (3.6, 0) is (1.3, 0): (0, 0), then (1, 0).
    tokens = HAND.encode(np.array([[7.0, 0.2], [1.0, 0.8], [3.6, 0.0]]))
    assert tokens.dtype == np.int32
    assert tokens.tolist() == [[1, 1], [0, 0], [0, 2]]
    np.testing.assert_allclose(HAND.reconstruct(tokens), [[7, 0], [1, 1], [3, 0]])
    np.testing.assert_allclose(HAND.reconstruct(tokens, 1), [[9, 0], [1, 0], [1, 0]])


def test_encoding_is_the_brute_force_search_of_each_level():
    x = vectors(200)
    codebook, tokens = fit_codebook(x, small(levels=3))
    residual = ((x - codebook.mean) / codebook.scale).astype(np.float64)
    for level, centres in enumerate(codebook.centres):
        nearest = np.square(residual[:, None] - centres).sum(axis=2).argmin(axis=1)
        np.testing.assert_array_equal(tokens[:, level], nearest)
        residual -= centres[nearest]


def test_a_full_beam_finds_the_best_of_all_paths():
    x = vectors(40)
    codebook, _ = fit_codebook(x, small(codebook_size=3, levels=3))
    full = Codebook(codebook.mean, codebook.scale, codebook.centres, beam=9)
    paths = np.array(list(product(range(3), repeat=3)))
    distance = np.square(codebook.standardise(x)[:, None] - codebook.standardise(codebook.reconstruct(paths)))
    np.testing.assert_array_equal(full.encode(x), paths[distance.sum(axis=2).argmin(axis=1)])


def test_blocks_do_not_show(monkeypatch):
    x = vectors(500)
    codebook, tokens = fit_codebook(x, small())
    monkeypatch.setattr("rl_rec.sids.kmeans._BLOCK", 1)
    np.testing.assert_array_equal(codebook.encode(x), tokens)


@pytest.mark.parametrize("sample_above", [10, 1000])
@pytest.mark.parametrize("beam", [1, 4])
def test_every_level_lowers_the_error(sample_above, beam):
    left = errors(vectors(), sample_above=sample_above, sample_per_token=20, levels=4, beam=beam)
    assert (np.diff(left) < -0.01 * left[0]).all()


def test_a_beam_lowers_the_error():
    assert errors(vectors(), beam=8)[-1] < 0.99 * errors(vectors())[-1]


def test_refinements_of_a_sample_lower_the_error():
    sample = {"sample_above": 10, "sample_per_token": 4, "levels": 1}
    assert (
        errors(vectors(), **sample, refinements=6)[-1] < 0.95 * errors(vectors(), **sample, refinements=0)[-1]
    )


@pytest.mark.parametrize("changes", [{}, {"sample_above": 10, "sample_per_token": 20}, {"balanced": True}])
def test_the_seed_decides(changes):
    (one, tokens), (same, same_tokens), (other, _) = (
        fit_codebook(vectors(), small(seed=seed, **changes)) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(tokens, same_tokens)
    assert all((a == b).all() for a, b in zip(one.centres, same.centres, strict=True))
    assert not np.array_equal(one.centres[0], other.centres[0])


@pytest.mark.parametrize("items", [300, 301, 307])
def test_balanced_levels_hold_their_capacity_and_stay_close_to_plain(items):
    x = np.random.default_rng(0).standard_normal((items, 4)).astype(np.float32)
    codebook, tokens = fit_codebook(x, small(balanced=True))
    plain, plain_tokens = fit_codebook(x, small())
    for level in range(3):
        assert np.bincount(tokens[:, level]).max() <= -(-items // 8)
        assert np.bincount(plain_tokens[:, level]).max() > -(-items // 8)  # a limit that binds
    balanced, free = (residual_errors(*fitted, x) for fitted in ((codebook, tokens), (plain, plain_tokens)))
    assert (np.divide(balanced, free) < 1.12).all()


@pytest.mark.parametrize("seed", range(3))
def test_a_balanced_assignment_is_nearly_the_best_there_is(seed):
    from scipy.optimize import linear_sum_assignment

    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((120, 3)).astype(np.float32)
    centres = (0.3 * rng.standard_normal((10, 3)) + 1.0).astype(np.float32)  # off-centre: demand is uneven
    tokens, _ = balanced_assignment(rows, centres, 12)
    distance = np.square(rows[:, None] - centres).sum(axis=2)
    row, seat = linear_sum_assignment(np.repeat(distance, 12, axis=1))
    best = distance[row, seat // 12].sum()
    assert np.bincount(tokens, minlength=10).tolist() == [12] * 10
    assert distance[np.arange(120), tokens].sum() <= 1.02 * best
    assert distance.min(axis=1).sum() < 0.98 * best  # the limit costs something here


def test_copies_beyond_the_capacity_go_elsewhere():
    rows = np.concatenate([np.zeros((60, 2)), vectors(36, 2)]).astype(np.float32)  # no price parts copies
    tokens, _ = balanced_assignment(rows, vectors(8, 2, seed=1), 12)
    assert np.bincount(tokens, minlength=8).tolist() == [12] * 8


def test_prices_alone_are_nearly_the_best(monkeypatch):
    rows = np.random.default_rng(0).standard_normal((800, 3)).astype(np.float32)
    centres = rows[:8] + 1.0
    swapped = balanced_assignment(rows, centres, 100)[0]
    monkeypatch.setattr("rl_rec.sids.balance._SWAP_COSTS", 0)
    priced = balanced_assignment(rows, centres, 100)[0]
    best, found = (np.square(rows - centres[tokens]).sum() for tokens in (swapped, priced))
    assert best <= found < 1.01 * best


def test_few_distinct_items_get_as_many_tokens_and_no_error():
    x = np.repeat(vectors(5), 30, axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        codebook, tokens = fit_codebook(x, small(sample_above=10))
    assert codebook.sizes == (5, 1, 1)
    assert len(np.unique(tokens, axis=0)) == 5
    np.testing.assert_allclose(codebook.reconstruct(tokens), x, atol=1e-4)


def test_a_sample_of_copies_is_drawn_among_the_distinct():
    x = np.concatenate([np.repeat(vectors(1), 5000, axis=0), vectors(40, seed=1)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        codebook, _ = fit_codebook(x, small(sample_above=10, sample_per_token=2))
    assert codebook.sizes[0] == 8


def test_one_item_and_constant_columns():
    codebook, tokens = fit_codebook(np.array([[3.0, 4.0]]))
    assert (codebook.sizes, tokens.tolist()) == ((1, 1, 1), [[0, 0, 0]])
    x = np.column_stack([np.full(300, 1e6 + 0.1), vectors()])
    codebook, tokens = fit_codebook(x, small())
    np.testing.assert_array_equal(tokens, fit_codebook(vectors(), small())[1])
    assert codebook.scale[0] == 1.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e300])
def test_vectors_that_are_not_finite_are_refused(value):
    x = vectors().astype(np.float64)
    x[6, 2] = value
    with pytest.raises(UserError, match="item 7 holds NaN, infinity"):
        fit_codebook(x, small())
    with pytest.raises(UserError, match="NaN, infinity"):
        Codebook(np.zeros(6), np.ones(6), (np.zeros((1, 6), np.float32),)).encode(x)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (3,)])
def test_no_items_or_no_columns_are_refused(shape):
    with pytest.raises(UserError, match="expected"):
        fit_codebook(np.zeros(shape))


def test_other_columns_are_refused():
    with pytest.raises(UserError, match="expected \\(items, 2\\)"):
        HAND.encode(np.zeros((4, 3)))


def test_balanced_and_a_beam_exclude_each_other():
    with pytest.raises(UserError, match="balanced assignment knows only 1"):
        SidSettings.from_mapping({"balanced": True, "beam": 2})
