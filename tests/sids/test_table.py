"""The table is a bijection between items and (tokens, rank), and stays one when items join."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.errors import UserError
from rl_rec.sids.table import SidTable, add_ranks, next_ranks


@st.composite
def catalogues(draw):
    """Sizes of the levels, and tokens of a catalogue and of later items; small sizes make many collisions."""
    sizes = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    old, new = (rng.integers(0, sizes, (draw(st.integers(low, 40)), len(sizes)), np.int32) for low in (1, 0))
    return sizes, old, new


def assert_bijection(table: SidTable, tokens: np.ndarray) -> None:
    everyone = np.arange(1, len(tokens) + 1)
    np.testing.assert_array_equal(table.tokens[1:], tokens)
    np.testing.assert_array_equal(table.items_of(table.tokens[1:], table.rank[1:]), everyone)
    assert len(
        {(*ids, rank) for ids, rank in zip(tokens.tolist(), table.rank[1:].tolist(), strict=True)}
    ) == len(tokens)
    for bucket, code in enumerate(table.codes):
        members = table.items[table.offsets[bucket] : table.offsets[bucket + 1]]
        assert table.rank[members].tolist() == list(range(len(members)))  # every rank once, without a gap
        assert sorted(members) == list(members)  # the older the lower
        assert len({tuple(table.tokens[item]) for item in members}) == 1
        assert bucket == 0 or code > table.codes[bucket - 1]
    assert table.items_of(table.tokens[:1], table.rank[:1]).tolist() == [0]


@settings(max_examples=60, deadline=None)
@given(catalogues())
def test_items_and_ids_are_one_to_one_also_after_items_join(catalogue):
    sizes, old, new = catalogue
    table = SidTable.from_tokens(old, sizes)
    assert_bijection(table, old)
    grown = table.add(new)
    assert_bijection(grown, np.concatenate([old, new]))
    np.testing.assert_array_equal(grown.rank[: len(old) + 1], table.rank)
    counts = np.unique(old, axis=0, return_counts=True)[1]
    assert table.collisions == counts[counts > 1].sum()
    np.testing.assert_array_equal(table.bucket_sizes, counts)


@settings(max_examples=30, deadline=None)
@given(catalogues())
def test_a_level_of_ranks_removes_every_collision(catalogue):
    sizes, old, new = catalogue
    table = add_ranks(SidTable.from_tokens(old, sizes))
    assert table.collisions == 0
    grown = table.add(next_ranks(table, new))
    np.testing.assert_array_equal(grown.tokens[: len(old) + 1], table.tokens)
    assert_bijection(grown, grown.tokens[1:])


def test_new_items_take_the_free_ranks_then_share_the_last():
    table = add_ranks(SidTable.from_tokens(np.array([[0], [0], [1]]), (3,)))  # two ranks
    assert next_ranks(table, np.array([[1], [1], [2], [0]])).tolist() == [[1, 1], [1, 1], [2, 0], [0, 1]]


@pytest.mark.parametrize(
    ("tokens", "rank"),
    [([1, 0], 2), ([1, 0], -1), ([0, 1], 0), ([-1, -1], 0), ([0, 3], 0), ([0, 2], 0), ([7, 0], 0)],
)
def test_what_is_no_id_of_an_item_finds_none(tokens, rank):
    # [0, 3] packs to the same number as [1, 0]: only the check of the range keeps them apart.
    table = SidTable.from_tokens(np.array([[1, 0], [1, 0], [0, 0]]), (2, 3))
    assert table.items_of(np.array([tokens]), np.array([rank])).tolist() == [0]


def test_ids_beyond_64_bits_are_refused():
    SidTable.from_tokens(np.zeros((1, 3), np.int32), (2**20,) * 3)
    with pytest.raises(UserError, match="lower levels or codebook_size"):
        SidTable.from_tokens(np.zeros((1, 4), np.int32), (2**16,) * 4)


def test_large_codes_sort_like_small_ones():
    sizes = (2**20,) * 3  # code and position do not fit into one number: the other sort
    tokens = np.random.default_rng(0).integers(0, 2**20, (50, 3))
    tokens = np.concatenate([tokens, tokens[::-1]])
    assert_bijection(SidTable.from_tokens(tokens, sizes), tokens)


@pytest.mark.parametrize("tokens", [[[0, 3]], [[-1, 0]], [[0, 0, 0]]])
def test_tokens_that_do_not_fit_are_refused(tokens):
    with pytest.raises(UserError):
        SidTable.from_tokens(np.array(tokens), (2, 3))
