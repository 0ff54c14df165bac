"""The probability of slates drawn without replacement, against sums over sets of items."""

import math
from itertools import product

import pytest
import torch

from rl_rec.hsrl.likelihood import first_occurrence, slate_log_probs

HISTORY = torch.tensor([[0, 0, 4, 9, 4], [0, 0, 0, 0, 0], [1, 2, 3, 5, 6]])
"""A repeated item; nobody's; and one of almost half the catalogue."""
USER = torch.tensor([0, 3, 5])
SLATE = torch.tensor([[2, 7, 11], [12, 1, 2], [8, 10, 7]])


@pytest.fixture
def agent(make_agent):
    return make_agent(items=12, sizes=(2, 3))


def retire(agent, *items: int) -> set[int]:
    """The items of 12 that are left."""
    live = torch.ones(13, dtype=torch.bool)
    live[list(items)] = False
    agent.trie.set_live(live)
    return set(range(1, 13)) - set(items)


def slots_of(agent, slate=SLATE, excluded=None, candidates=None, **kwargs):
    state, tables = agent.encode(USER, HISTORY)
    return slate_log_probs(
        agent.networks.policy, state, tables, agent.trie, slate, excluded, candidates, **kwargs
    )


def assert_equal(log_prob: torch.Tensor, expected: list[list[float]]) -> None:
    torch.testing.assert_close(log_prob, torch.tensor(expected), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("context", ["sampled", "expected", "state"])
@pytest.mark.parametrize("excluding, earlier", list(product([True, False], [True, False])))
@pytest.mark.parametrize("retired", [(), (6, 9)])
def test_tokens_of_an_open_catalogue(
    make_agent, probabilities, token_log_probs, context, excluding, earlier, retired
):
    agent = make_agent(items=12, sizes=(2, 3), context=context)
    live = retire(agent, *retired)
    state, _ = agent.encode(USER, HISTORY)
    slots = slots_of(agent, excluded=HISTORY if excluding else None, earlier_slots=earlier)
    for row, slate in enumerate(SLATE.tolist()):
        p = probabilities(agent, state.s[row], live)
        left = live - set(HISTORY[row].tolist()) if excluding else live
        opened = [left - set(slate[:k]) if earlier else left for k in range(3)]
        valid = [item in left for item in slate]
        assert slots.valid[row].tolist() == valid
        for k in range(3):
            if valid[k]:
                expected = token_log_probs(agent, p, [slate[k]], [opened[k]])
                assert_equal(slots.log_prob[row, k : k + 1], expected)
                # Plackett–Luce: of what is left, in proportion to p.
                share = p[slate[k]] / sum(p[item] for item in opened[k])
                assert slots.log_prob[row, k].sum().exp().item() == pytest.approx(share, rel=1e-4)


@pytest.mark.parametrize("excluding, earlier", list(product([True, False], [True, False])))
@pytest.mark.parametrize("retired", [(), (10,)])
def test_tokens_of_candidates(agent, probabilities, token_log_probs, excluding, earlier, retired):
    live = retire(agent, *retired)
    candidates = torch.tensor([[7, 2, 4, 11, 2, 8], [12, 1, 2, 3, 10, 10], [8, 10, 7, 1, 2, 12]])
    state, _ = agent.encode(USER, HISTORY)
    excluded = HISTORY if excluding else None
    slots = slots_of(agent, excluded=excluded, candidates=candidates, earlier_slots=earlier)
    for row, slate in enumerate(SLATE.tolist()):
        p = probabilities(agent, state.s[row], live)
        left = live & set(candidates[row].tolist())
        if excluding:
            left -= set(HISTORY[row].tolist())
        opened = [left - set(slate[:k]) if earlier else left for k in range(3)]
        valid = [item in left for item in slate]
        assert slots.valid[row].tolist() == valid
        for k in range(3):
            if valid[k]:
                assert_equal(slots.log_prob[row, k : k + 1], token_log_probs(agent, p, [slate[k]], [opened[k]]))


def test_the_last_item_left_is_certain(agent):
    """Eleven of twelve are excluded: what float32 leaves of the mass is the item's own."""
    history = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]] * 3)
    slots = slots_of(agent, slate=torch.tensor([[12]] * 3), excluded=history)
    torch.testing.assert_close(slots.log_prob.sum(dim=2), torch.zeros(3, 1), atol=1e-3, rtol=0)


def test_slots_that_could_not_be_shown_are_not_valid_and_finite(agent):
    retire(agent, 3)
    slate = torch.tensor([[3, 5, 5], [4, 9, 1], [0, 7, 0]])  # retired, repeated, in the history, padding
    candidates = torch.tensor([[3, 5, 6], [4, 1, 2], [7, 1, 2]])
    expected = [[False, True, False], [False, False, True], [False, True, False]]
    history = torch.tensor([[0, 0], [4, 9], [0, 0]])
    for given in (None, candidates):
        agent.networks.zero_grad()
        slots = slots_of(agent, slate=slate, excluded=history, candidates=given)
        assert slots.valid.tolist() == expected
        assert slots.log_prob.isfinite().all()
        (slots.log_prob.sum(dim=-1) * slots.valid).sum().backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in agent.networks.parameters())


def test_an_item_of_no_use_takes_nothing_away(agent):
    """Padding, what is not live, and what stands there twice."""
    retire(agent, 3)
    with_all = slots_of(agent, excluded=torch.tensor([[0, 3, 4, 4, 9]] * 3))
    plain = slots_of(agent, excluded=torch.tensor([[4, 9]] * 3))
    torch.testing.assert_close(with_all.log_prob, plain.log_prob)


def test_a_slot_does_not_take_its_own_or_later_mass(agent):
    slate = torch.tensor([[2, 7, 11]] * 3)
    first = slots_of(agent, slate=slate[:, :1])
    both = slots_of(agent, slate=slate)
    torch.testing.assert_close(first.log_prob, both.log_prob[:, :1])
    joint = torch.stack(first.paths.log_joint, dim=-1)
    torch.testing.assert_close(first.log_prob, joint.diff(dim=-1).float())


def test_details_are_of_the_slots_alone(agent):
    slots = slots_of(agent, excluded=HISTORY)
    assert {x.shape[1] for x in slots.paths.log_joint} == {x.shape[1] for x in slots.paths.context} == {3}
    assert slots.paths.score.shape == (3, 3) and slots.log_prob.shape == (3, 3, 3)


def test_gradients_agree_with_differences_where_little_is_left(agent):
    """d log p / dθ of the masses themselves: by central differences of the bias of the first token's head."""
    bias = agent.networks.policy.heads[0].bias

    def value() -> torch.Tensor:
        return slots_of(agent, excluded=HISTORY).log_prob.sum()

    agent.networks.zero_grad()
    value().backward()
    with torch.no_grad():
        bias[0] += 0.01
        high = value()
        bias[0] -= 0.02
        low = value()
    assert bias.grad[0].item() == pytest.approx(((high - low) / 0.02).item(), rel=0.02, abs=2e-3)


def test_items_far_behind_the_excluded_ones_keep_their_proportions(make_agent):
    """One bucket, so that p is the softmax of the scores; what is excluded has nearly all of it."""
    agent = make_agent(items=12, sizes=(1,), temperature=0.1)
    state, tables = agent.encode(USER, HISTORY)
    everything = torch.arange(1, 13).expand(3, 12)
    scores = agent.networks.policy.follow(state, tables, agent.trie, everything).score.double()
    order = scores.argsort(dim=1, descending=True)
    ahead, slate = order[:, :1] + 1, order[:, [3, 1]] + 1
    left = scores.gather(1, order[:, 1:]).logsumexp(dim=1) - scores.gather(1, order[:, :1]).squeeze(1)
    assert (left < math.log(1e-6)).any(), "the test needs one that float32 could not tell"
    slots = slots_of(agent, slate=slate, excluded=ahead)
    for row in range(3):
        opened = set(order[row, 1:].tolist())
        for slot, item in enumerate((slate[row] - 1).tolist()):
            expected = scores[row, item] - scores[row, sorted(opened)].logsumexp(dim=0)
            assert slots.log_prob[row, slot].sum().item() == pytest.approx(expected.item(), rel=1e-3, abs=1e-3)
            opened.remove(item)


def test_first_occurrence():
    items = torch.tensor([[3, 1, 3, 0, 0, 1, 2]])
    assert first_occurrence(items).tolist() == [[True, True, False, True, False, False, True]]
