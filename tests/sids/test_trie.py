"""The prefix tree against a dictionary of prefixes, also after items retire and are born again."""

import math
from collections import defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.errors import UserError
from rl_rec.sids.trie import Trie


@st.composite
def catalogues(draw):
    """Sizes of the levels, tokens (N + 1, L), features; many items share their tokens."""
    sizes = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    items = draw(st.integers(1, 25))
    tokens = np.concatenate([np.full((1, len(sizes)), -1), rng.integers(0, sizes, (items, len(sizes)))])
    features = torch.from_numpy(rng.standard_normal((items + 1, 3)).astype(np.float32))
    return sizes, tokens, features, rng


def items_below(tokens, live=None) -> dict[tuple[int, ...], list[int]]:
    """The items below every prefix, in their order."""
    below = defaultdict(list)
    for item in range(1, len(tokens)):
        if live is None or live[item]:
            for length in range(tokens.shape[1] + 1):
                below[tuple(tokens[item, :length].tolist())].append(item)
    return below


def walk(trie: Trie) -> dict[tuple[int, ...], list[tuple]]:
    """Everything that can be reached from the root: the children of each prefix, tokens, then items."""
    reached: dict[tuple[int, ...], list[tuple]] = {}

    def visit(level: int, node: int, prefix: tuple[int, ...]) -> None:
        children, valid = trie.children(level, torch.tensor([node]))
        open_children = children[valid].tolist()
        if level == trie.levels:
            reached[prefix] = [(int(trie.item[leaf]), leaf) for leaf in open_children]
            return
        reached[prefix] = [(int(trie.token[level + 1][child]), child) for child in open_children]
        for token, child in reached[prefix]:
            visit(level + 1, child, (*prefix, token))

    visit(0, 0, ())
    return reached


def assert_is_the_dictionary(trie: Trie, tokens, live=None) -> None:
    below, reached, levels = items_below(tokens, live), walk(trie), tokens.shape[1]
    if not below:
        assert reached == {(): []}
        return
    assert set(reached) == set(below)
    for prefix, children in reached.items():
        if len(prefix) == levels:
            assert [item for item, _ in children] == below[prefix]
        else:
            assert [token for token, _ in children] == sorted(
                {p[-1] for p in below if len(p) == len(prefix) + 1 and p[:-1] == prefix}
            )
        for name, node in children:
            level = len(prefix) + 1
            under = [name] if level == levels + 1 else below[(*prefix, name)]
            assert trie.count[level][node] == len(under)
            assert (trie.path[under, level - 1] == node).all()
    assert trie.count[0].tolist() == [len(below[()])]


def assert_moments(trie: Trie, tokens, live=None) -> None:
    below = items_below(tokens, live)
    for level in range(1, trie.levels + 1):
        mean, deviation = trie.moments(level)
        assert mean.dtype == deviation.dtype == torch.float32
        filled = torch.zeros(trie.nodes(level), dtype=torch.bool)
        for prefix, items in below.items():
            if len(prefix) == level:
                node, x = trie.path[items[0], level - 1], trie.features[items].double()
                torch.testing.assert_close(mean[node], x.mean(dim=0).float(), atol=5e-6, rtol=1e-5)
                expected = x.std(dim=0, correction=0).float()
                torch.testing.assert_close(deviation[node], expected, atol=5e-6, rtol=1e-5)
                filled[node] = True
        assert not mean[~filled].any() and not deviation[~filled].any()


@settings(max_examples=60, deadline=None)
@given(catalogues(), st.booleans())
def test_the_tree_is_the_dictionary_of_prefixes(catalogue, fixed_width):
    sizes, tokens, features, _ = catalogue
    trie = Trie(tokens, sizes, features, fixed_width=fixed_width)
    assert_is_the_dictionary(trie, tokens)
    assert_moments(trie, tokens)
    below = items_below(tokens)
    assert trie.num_items == len(tokens) - 1
    for level in range(1, trie.levels + 1):
        assert trie.nodes(level) == sum(len(prefix) == level for prefix in below)
    for item in range(1, len(tokens)):
        leaf = trie.path[item, -1]
        assert trie.item[leaf] == item and trie.bucket[leaf] == trie.path[item, -2]
        for level in range(1, trie.levels + 1):
            assert trie.token[level][trie.path[item, level - 1]] == tokens[item, level - 1]
    assert trie.path[0].tolist() == [0] * (trie.levels + 1)


@settings(max_examples=40, deadline=None)
@given(catalogues(), st.integers(1, 6))
def test_retired_items_cannot_be_reached_and_reborn_ones_can(catalogue, changes):
    sizes, tokens, features, rng = catalogue
    trie = Trie(tokens, sizes, features)
    for _ in range(changes):
        live = torch.from_numpy(rng.random(len(tokens)) < rng.random())
        live[0] = True  # padding is never live, whatever is said
        trie.set_live(live)
        assert trie.live[1:].equal(live[1:]) and not trie.live[0]
        assert_is_the_dictionary(trie, tokens, live)
        assert_moments(trie, tokens, live)
    once = Trie(tokens, sizes, features)
    once.set_live(live)
    for level in range(1, trie.levels + 1):  # the same live set, the same bits, whatever came before
        for one, other in zip(trie.moments(level), once.moments(level), strict=True):
            assert torch.equal(one, other)
    trie.set_live(torch.ones(len(tokens), dtype=torch.bool))
    assert_is_the_dictionary(trie, tokens)
    assert_moments(trie, tokens)


TOKENS = np.array([[-1, -1], [0, 1], [2, 0], [0, 1], [0, 2], [2, 0], [2, 0]])


def make_trie(device="cpu", **settings) -> Trie:
    features = torch.randn(7, 4, generator=torch.Generator().manual_seed(0)).to(device)
    return Trie(TOKENS, (3, 4), features, **settings)


def test_births_and_retirements_do_not_wear_the_sums_out():
    """Large features, many changes: sums in float32 would drift away from the items' own."""
    trie = Trie(TOKENS, (3, 4), 100 * make_trie().features + 1000)
    generator = torch.Generator().manual_seed(1)
    for _ in range(500):
        trie.set_live(torch.rand(7, generator=generator) < 0.5)
    alone = torch.zeros(7, dtype=torch.bool)
    alone[2] = True
    trie.set_live(alone)
    mean, deviation = trie.moments(1)
    node = trie.path[2, 0]
    torch.testing.assert_close(mean[node], trie.features[2], atol=1e-3, rtol=0)
    assert deviation[node].max() < 1e-2


def test_children_by_hand():
    # Level 1: node 0 is (0), node 1 is (2). Level 2: (0, 1), (0, 2), (2, 0). Leaves: 1 3 | 4 | 2 5 6.
    trie = make_trie()
    assert trie.widths == [2, 2, 3]
    assert trie.item.tolist() == [1, 3, 4, 2, 5, 6]
    assert trie.bucket.tolist() == [0, 0, 1, 2, 2, 2]
    node, valid = trie.children(1, torch.tensor([[0, 1]]))
    assert valid.tolist() == [[[True, True], [True, False]]]
    assert node[valid].tolist() == [0, 1, 2]
    assert trie.path[4].tolist() == [0, 1, 2]


def test_fixed_width_pads_to_the_sizes_of_the_levels():
    trie, padded = make_trie(), make_trie(fixed_width=True)
    assert padded.widths == [3, 4, 3]
    for level, nodes in ((0, 1), (1, 2), (2, 3)):
        node, valid = padded.children(level, torch.arange(nodes))
        narrow, narrow_valid = trie.children(level, torch.arange(nodes))
        assert node.shape == (nodes, padded.widths[level])
        assert not valid[:, narrow.shape[1] :].any()
        assert valid[:, : narrow.shape[1]].equal(narrow_valid)
        assert node[valid].equal(narrow[narrow_valid])


def test_a_fork_has_a_live_set_of_its_own():
    trie = make_trie()
    other = trie.fork()
    everyone = torch.ones(7, dtype=torch.bool)
    before = [mean.clone() for mean in trie.moments(2)]
    other.set_live(torch.arange(7) > 4)
    assert_is_the_dictionary(trie, TOKENS)
    assert trie.live[1:].all() and all(a.equal(b) for a, b in zip(before, trie.moments(2), strict=True))
    assert_is_the_dictionary(other, TOKENS, torch.arange(7) > 4)
    trie.set_live(torch.arange(7) == 1)
    assert_is_the_dictionary(other, TOKENS, torch.arange(7) > 4)
    other.set_live(everyone)
    assert_is_the_dictionary(other, TOKENS)


def test_the_given_mask_may_change_afterwards():
    trie, live = make_trie(), torch.arange(7) > 2
    trie.set_live(live)
    live[:] = True
    assert_is_the_dictionary(trie, TOKENS, torch.arange(7) > 2)


def test_the_version_counts_changes_alone():
    trie = make_trie()
    version = trie.version
    trie.set_live(torch.ones(7, dtype=torch.bool))
    assert trie.version == version
    trie.set_live(torch.arange(7) > 1)
    assert trie.version == version + 1


def test_a_catalogue_without_live_items_has_nothing_to_reach():
    trie = make_trie()
    trie.set_live(torch.zeros(7, dtype=torch.bool))
    assert walk(trie) == {(): []}
    assert_moments(trie, TOKENS, torch.zeros(7, dtype=torch.bool))


@pytest.mark.parametrize("fixed_width", [False, True])
def test_every_array_lies_where_the_features_lie(fixed_width):
    """Whatever is made without a device of its own falls on another one here."""
    features = torch.randn(7, 4)
    with torch.device("meta"):
        trie = Trie(TOKENS, (3, 4), features, fixed_width=fixed_width)
        trie.set_live(torch.arange(7, device="cpu") > 2)
        node, valid = trie.children(1, torch.zeros(2, 5, dtype=torch.int64, device="cpu"))
        moments = trie.moments(1)
    arrays = [trie.item, trie.bucket, trie.path, trie.live, *trie._offsets, *trie._sums, *trie.token]
    arrays += [*trie.first, *trie.degree, *trie.count, node, valid, *moments]
    assert {array.device.type for array in arrays} == {"cpu"}


def test_no_array_is_larger_than_the_catalogue():
    items, sizes = 2000, (32, 32, 32)
    rng = np.random.default_rng(0)
    tokens = np.concatenate([np.full((1, 3), -1), rng.integers(0, sizes, (items, 3))])
    features = torch.zeros(items + 1, 2)
    trie = Trie(tokens, sizes, features, fixed_width=True)
    arrays = [trie.item, trie.bucket, trie.path, trie.live, *trie._sums, *trie.token, *trie.first, *trie.degree]
    assert max(len(array) for array in [*arrays, *trie.count]) <= items + 1
    assert trie.nbytes() == sum(a.nbytes for a in [*arrays, *trie.count])


@pytest.mark.parametrize("value", [1e4, math.inf, math.nan])
def test_features_beyond_exact_sums_are_refused(value):
    features = torch.ones(4, 2)
    features[2, 1] = value
    with pytest.raises(UserError, match="standardise"):
        Trie(np.array([[-1], [0], [1], [0]]), (2,), features)
