"""Beam search against brute force, and draws without replacement against their exact distribution."""

from collections import Counter
from itertools import permutations, product

import pytest
import torch
from scipy.stats import chisquare

from rl_rec.hsrl.search import Excluded, search

HISTORY = torch.tensor([[0, 0, 4, 9, 4], [0, 0, 0, 0, 0], [1, 2, 3, 5, 6]])
"""A repeated item; nobody's; and one of almost half the catalogue."""
USER = torch.tensor([0, 3, 5])


def find(agent, slate=4, width=64, *, user=USER, history=HISTORY, forbid=True, seed=None, by_score=False):
    """Items of ``search`` for some users; ``seed`` ``None`` is beam search."""
    return found_by(agent, slate, width, user, history, forbid, seed, by_score).items


def found_by(agent, slate, width, user, history, forbid, seed, by_score):
    """All that ``search`` returns."""
    policy = agent.networks.policy
    with torch.no_grad():
        state, tables = agent.encode(user, history)
        excluded = None
        if forbid:
            known = policy.follow(state, tables, agent.trie, history)
            excluded = Excluded(history, known.log_joint[-1], agent.trie)
    noise = None if seed is None else torch.Generator().manual_seed(seed)
    return search(policy, state, tables, agent.trie, slate, width, excluded, noise, by_score)


def retire(agent, *items: int) -> set[int]:
    """The items that are left."""
    live = torch.ones(len(agent.features), dtype=torch.bool)
    live[list(items)] = False
    agent.trie.set_live(live)
    return set(range(1, len(live))) - set(items)


@pytest.mark.parametrize("context", ["sampled", "expected", "state"])
@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("forbid", [False, True])
def test_found_items_come_with_their_log_probabilities(make_agent, context, seed, forbid):
    agent = make_agent(items=60, sizes=(2, 3, 2), context=context)
    found = found_by(agent, 4, 6, USER, HISTORY, forbid, seed, False)
    state, tables = agent.encode(USER, HISTORY)
    followed = agent.networks.policy.follow(state, tables, agent.trie, found.items)
    for joint, expected in zip(found.log_joint, followed.log_joint, strict=True):
        torch.testing.assert_close(joint.double(), expected, atol=1e-5, rtol=1e-5)


# --- beam search --------------------------------------------------------------------------------------


@pytest.mark.parametrize("context", ["sampled", "expected", "state"])
@pytest.mark.parametrize("by_score", [False, True])
@pytest.mark.parametrize("retired", [(), (7, 10, 12)])
@pytest.mark.parametrize("forbid", [False, True])
def test_a_beam_as_wide_as_the_tree_finds_the_best(
    make_agent, plain_policy, context, by_score, retired, forbid
):
    agent = make_agent(items=14, sizes=(2, 3, 2), context=context)
    live = retire(agent, *retired)
    state, _ = agent.encode(USER, HISTORY)
    found = find(agent, forbid=forbid, by_score=by_score)
    for row in range(3):
        leaves = plain_policy(agent, state.s[row], live)
        values = {
            item: (leaf.score if by_score else leaf.log_joint[-1]).item() for item, leaf in leaves.items()
        }
        allowed = live - set(HISTORY[row].tolist()) if forbid else live
        assert found[row].tolist() == sorted(allowed, key=values.__getitem__, reverse=True)[:4]


def test_a_beam_keeps_the_best_prefixes_by_what_is_left_of_them(make_agent, probabilities):
    """With one prefix a level: the heaviest one, once excluded items are taken away."""
    agent = make_agent(items=12, sizes=(3,))
    state, _ = agent.encode(USER, HISTORY)
    for forbid in (False, True):
        found = find(agent, slate=1, width=1, forbid=forbid)
        for row in range(3):
            p = probabilities(agent, state.s[row])
            for item in HISTORY[row].tolist() if forbid else []:
                p.pop(item, None)
            mass = Counter()
            for item, value in p.items():
                mass[agent.tokens[item, 0]] += value
            heaviest = max(mass, key=mass.__getitem__)
            inside = [item for item in p if agent.tokens[item, 0] == heaviest]
            assert found[row].tolist() == [max(inside, key=p.__getitem__)]


def test_a_beam_is_never_narrower_than_the_slate(make_agent):
    agent = make_agent(items=12, sizes=(12,), tokens=[[v] for v in range(12)])
    assert torch.equal(find(agent, width=1), find(agent, width=64))


@pytest.mark.parametrize("width", [1, 2, 5, 64])
@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("by_score", [False, True])
def test_what_may_not_be_shown_never_is(make_agent, width, seed, by_score):
    agent = make_agent(items=30, sizes=(3, 4))
    live = retire(agent, *range(20, 25))
    generator = torch.Generator().manual_seed(1)
    history = torch.randint(31, (40, 5), generator=generator)
    user = torch.arange(40) % 6
    found = find(agent, user=user, history=history, width=width, seed=seed, by_score=by_score)
    for row in range(40):
        shown = found[row].tolist()
        assert len(set(shown)) == 4 and set(shown) <= live - set(history[row].tolist())


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_a_bucket_whose_items_are_all_excluded_is_closed(make_agent, seed):
    """Even where it holds nearly all probability, and rounding leaves something of it."""
    tokens = [[0, 0], [0, 0], [0, 0], [0, 1], [1, 0], [1, 0], [1, 1]]
    agent = make_agent(items=7, sizes=(2, 2), tokens=tokens)
    with torch.no_grad():
        agent.networks.policy.heads[0].bias[0] = 20.0
        agent.networks.policy.heads[1].bias[0] = 20.0
    history = torch.tensor([[0, 1, 3, 2, 3]] * 50)
    found = find(agent, slate=4, width=4, user=torch.arange(50) % 6, history=history, seed=seed)
    assert found.sort(dim=1).values.tolist() == [[4, 5, 6, 7]] * 50
    history = torch.tensor([[1, 2, 3, 4, 3]] * 50)  # and the whole branch
    found = find(agent, slate=3, width=3, user=torch.arange(50) % 6, history=history, seed=seed)
    assert found.sort(dim=1).values.tolist() == [[5, 6, 7]] * 50


def test_excluded_mass_and_number_by_hand(make_agent):
    # Level 1: (0), (1). Level 2: (0, 0) of 1 2, (0, 1) of 3, (1, 0) of 4 5. Item 5 is not live.
    agent = make_agent(items=5, sizes=(2, 2), tokens=[[0, 0], [0, 0], [0, 1], [1, 0], [1, 0]])
    retire(agent, 5)
    items = torch.tensor([[0, 1, 3, 1, 5, 4]])
    log_prob = torch.tensor([[0.9, 0.1, 0.2, 0.1, 0.3, 0.25]]).log()
    excluded = Excluded(items, log_prob, agent.trie)
    mass, number = excluded.below(0, torch.tensor([[0]]), 2)
    torch.testing.assert_close(mass, torch.tensor([[[0.3, 0.25]]]))
    assert number.tolist() == [[[2, 1]]]
    mass, number = excluded.below(1, torch.tensor([[1, 0]]), 2)  # beams in another order
    torch.testing.assert_close(mass, torch.tensor([[[0.25, 0.0], [0.1, 0.2]]]))
    assert number.tolist() == [[[1, 0], [1, 1]]]
    mass, number = excluded.below(1, torch.tensor([[1]]), 2)  # the other prefix is in no beam
    torch.testing.assert_close(mass, torch.tensor([[[0.25, 0.0]]]))
    mass, number = excluded.below(2, torch.tensor([[0]]), 2)
    torch.testing.assert_close(mass, torch.tensor([[[0.1, 0.0]]]))


def test_the_work_of_a_search_does_not_grow_with_the_catalogue(make_agent, largest_tensor, monkeypatch):
    """Nodes have as many children whatever the number of items: nothing is of the size of users by items."""
    monkeypatch.setattr("rl_rec.hsrl.networks._DENSE", 1)  # these trees are small enough for one matmul
    users, largest = 60, []
    for levels in (3, 5):
        codes = list(product(range(4), repeat=levels))
        agent = make_agent(items=len(codes), sizes=(4,) * levels, tokens=codes)
        history = torch.zeros(users, 5, dtype=torch.int64)
        state, tables = agent.encode(torch.zeros(users, dtype=torch.int64), history)
        run = (agent.networks.policy, state, tables, agent.trie, 4, 6)
        largest.append(largest_tensor(lambda run=run: search(*run)))
    assert largest[0] == largest[1] < users * len(codes)


# --- draws without replacement ------------------------------------------------------------------------

DRAWS = 20_000
LEAST_P_VALUE = 1e-4


@pytest.fixture(scope="module", params=["sampled", "expected"])
def drawn(request, make_agent, probabilities):
    """Many slates of 3 for one user, and the exact p of the 7 of 10 items that may be shown."""
    agent = make_agent(items=10, sizes=(2, 3), context=request.param, spread=0.2, temperature=4.0, seed=1)
    live = retire(agent, 6)
    user = torch.tensor([1])
    history = torch.tensor([[0, 3, 8, 3, 6]])  # one twice, and one that is not live
    state, _ = agent.encode(user, history)
    p = probabilities(agent, state.s[0], live)
    left = {item: value for item, value in p.items() if item not in (3, 8)}
    total = sum(left.values())
    assert len(left) == 7 and total < 0.95
    slates = find(agent, 3, 3, user=user.expand(DRAWS), history=history.expand(DRAWS, -1), seed=5)
    return slates, {item: value / total for item, value in left.items()}


def test_the_first_slot_is_drawn_in_proportion(drawn):
    slates, p = drawn
    assert set(slates.flatten().tolist()) == set(p)
    counts = Counter(slates[:, 0].tolist())
    items = list(p)
    result = chisquare([counts[i] for i in items], [DRAWS * p[i] for i in items], sum_check=False)
    assert result.pvalue > LEAST_P_VALUE


def test_pairs_follow_plackett_luce(drawn):
    slates, p = drawn
    counts = Counter(map(tuple, slates[:, :2].tolist()))
    pairs = list(permutations(p, 2))
    expected = [DRAWS * p[a] * p[b] / (1 - p[a]) for a, b in pairs]
    assert min(expected) > 5
    assert chisquare([counts[pair] for pair in pairs], expected, sum_check=False).pvalue > LEAST_P_VALUE


def test_triples_and_inclusion_follow_plackett_luce(drawn):
    slates, p = drawn
    chance = {(a, b, c): p[a] * p[b] / (1 - p[a]) * p[c] / (1 - p[a] - p[b]) for a, b, c in permutations(p, 3)}
    counts = Counter(map(tuple, slates.tolist()))
    rare = [triple for triple in chance if DRAWS * chance[triple] < 5]
    common = [triple for triple in chance if triple not in rare]
    seen = [counts[t] for t in common] + [sum(counts[t] for t in rare)]
    expected = [DRAWS * chance[t] for t in common] + [DRAWS * sum(chance[t] for t in rare)]
    if expected[-1] < 5:
        seen, expected = seen[:-1], expected[:-1]
    assert chisquare(seen, expected, sum_check=False).pvalue > LEAST_P_VALUE
    for item in p:
        share = sum(value for triple, value in chance.items() if item in triple)
        found = (slates == item).any(dim=1).double().mean().item()
        assert found == pytest.approx(share, abs=4 * (share * (1 - share) / DRAWS) ** 0.5 + 1e-4)


def test_users_draw_apart_and_one_seed_gives_one_slate(make_agent):
    agent = make_agent(spread=0.1)
    user, history = torch.zeros(200, dtype=torch.int64), torch.zeros(200, 5, dtype=torch.int64)
    slates = [find(agent, user=user, history=history, seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(slates[0], slates[1]) and not torch.equal(slates[0], slates[2])
    assert len({tuple(row) for row in slates[0].tolist()}) > 100


def test_draws_are_exact_whatever_the_beam(make_agent):
    """The leaves with the K largest keys lie below the K best prefixes: a wider beam draws alike."""
    agent = make_agent(items=10, sizes=(3, 2), spread=0.3, temperature=1.5)
    user, history = torch.zeros(20_000, dtype=torch.int64), torch.zeros(20_000, 5, dtype=torch.int64)
    shares = [
        torch.bincount(find(agent, 2, width, user=user, history=history, seed=width).flatten(), minlength=11)
        for width in (2, 6)
    ]
    assert ((shares[0] - shares[1]).abs() / 20_000).max() < 0.02


def test_very_improbable_items_are_drawn_without_nan(make_agent):
    agent = make_agent(items=12, sizes=(3, 2))
    with torch.no_grad():
        agent.networks.policy.heads[0].bias.copy_(torch.tensor([0.0, -200.0, 200.0]))
    found = find(agent, slate=5, width=5, seed=0)
    for row in range(3):
        assert len(set(found[row].tolist())) == 5
        assert not set(found[row].tolist()) & set(HISTORY[row].tolist())
