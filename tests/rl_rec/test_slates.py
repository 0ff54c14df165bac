"""Masks, top-K, and draws without replacement against their exact probabilities."""

from itertools import permutations

import pytest
import torch

from envs.transition import Observation
from rl_rec.slates import mask_scores, plackett_luce_log_probs, sample_without_replacement, top_k

INF = float("inf")
OBSERVATION = Observation(user=torch.tensor([0, 1]), history=torch.tensor([[0, 2, 2], [0, 0, 0]]))


def test_masks_by_hand():
    free = mask_scores(torch.zeros(2, 5), OBSERVATION, forbid_repeats=False)
    forbid = mask_scores(torch.zeros(2, 5), OBSERVATION, forbid_repeats=True)

    assert free.tolist() == [[-INF, 0, 0, 0, 0]] * 2
    assert forbid.tolist() == [[-INF, 0, -INF, 0, 0], [-INF, 0, 0, 0, 0]]


def test_candidates_keep_their_scores_and_others_lose_theirs():
    scores = torch.arange(10.0).reshape(2, 5)
    masked = mask_scores(
        scores, OBSERVATION._replace(candidates=torch.tensor([[1, 2], [4, 3]])), forbid_repeats=True
    )

    assert masked.tolist() == [[-INF, 1, -INF, -INF, -INF], [-INF, -INF, -INF, 8, 9]]


def test_only_live_items_keep_their_scores():
    live = torch.tensor([False, True, False, True, True])
    masked = mask_scores(torch.zeros(2, 5), OBSERVATION._replace(live=live), forbid_repeats=True)

    assert masked.isinf().tolist() == [[True, False, True, False, False]] * 2
    assert live.tolist() == [False, True, False, True, True]


def test_compact_ids_are_masked_alike():
    # Replay stores int32.
    compact = Observation(*(column.int() for column in OBSERVATION[:2]), torch.tensor([[1, 2], [4, 3]]).int())
    wide = Observation(*(column.long() for column in compact[:3]))

    assert torch.equal(*(mask_scores(torch.ones(2, 5), o, True) for o in (compact, wide)))


def test_top_k_is_best_first():
    assert top_k(torch.tensor([[-INF, 0.1, 0.7, 0.3], [-INF, 3.0, 1.0, 2.0]]), 2).tolist() == [[2, 3], [1, 3]]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_sequential_softmax(temperature: float):
    # Two of items 1 … 3, in order: P(i, j) = p_i · p_j / (1 − p_i); item 4 is forbidden.
    draws = 40_000
    scores = torch.tensor([-INF, 0.0, 1.0, -0.5, -INF])
    p = torch.softmax(scores / temperature, dim=0).tolist()
    slates = sample_without_replacement(
        scores.expand(draws, -1), 2, temperature, torch.Generator().manual_seed(0)
    )
    count = torch.bincount(slates[:, 0] * 5 + slates[:, 1], minlength=25).tolist()

    assert sum(count[5 * i + j] for i, j in permutations((1, 2, 3), 2)) == draws
    for i, j in permutations((1, 2, 3), 2):
        expected = p[i] * p[j] / (1 - p[i])
        deviation = (expected * (1 - expected) / draws) ** 0.5
        assert count[5 * i + j] / draws == pytest.approx(expected, abs=4 * deviation), (i, j)


def test_no_item_is_drawn_twice_and_no_forbidden_one_at_all():
    scores = torch.randn(500, 12, generator=torch.Generator().manual_seed(0))
    scores[:, 0] = scores[:, 3] = scores[:, 7] = -INF
    slates = sample_without_replacement(scores, 9, 3.0, torch.Generator().manual_seed(1))

    assert slates.sort(dim=1).values.tolist() == [[1, 2, 4, 5, 6, 8, 9, 10, 11]] * 500


def test_a_small_temperature_is_top_k():
    scores = torch.randn(50, 12, generator=torch.Generator().manual_seed(0))
    slates = sample_without_replacement(scores, 4, 1e-6, torch.Generator().manual_seed(1))

    assert torch.equal(slates, top_k(scores, 4))


def test_the_generator_decides_the_draws():
    scores = torch.zeros(20, 12)
    slates = [sample_without_replacement(scores, 4, 1.0, torch.Generator().manual_seed(s)) for s in (0, 0, 1)]

    assert torch.equal(slates[0], slates[1]) and not torch.equal(slates[0], slates[2])


def test_probabilities_of_draws_without_replacement_add_up():
    scores = torch.tensor([[-INF, 0.3, -0.2, 1.0, -INF, 0.5]])
    total = 0.0
    for slate in permutations([1, 2, 3, 5], 2):
        log_p = plackett_luce_log_probs(scores, torch.tensor([slate]))
        p = scores.exp()[0]
        first, second = slate
        expected = [(p[first] / p.sum()).log(), (p[second] / (p.sum() - p[first])).log()]
        torch.testing.assert_close(log_p[0], torch.stack(expected))
        total += float(log_p.sum().exp())
    assert total == pytest.approx(1.0)


def test_a_slate_that_takes_nearly_all_the_mass_loses_no_digits():
    """Two items 60 above the rest: after them one of two equal items remains."""
    scores = torch.tensor([[-INF, 60.0, 60.0, 0.0, 0.0]], requires_grad=True)
    log_p = plackett_luce_log_probs(scores, torch.tensor([[1, 2, 3]]))
    torch.testing.assert_close(log_p, torch.tensor([[0.5, 1.0, 0.5]]).log())
    log_p.sum().backward()
    assert scores.grad is not None and scores.grad.isfinite().all()


def test_the_last_of_all_items_is_certain():
    log_p = plackett_luce_log_probs(torch.tensor([[-INF, 0.0, 1.0]]), torch.tensor([[2, 1]], dtype=torch.int32))
    assert log_p[0, 1].item() == 0.0


def test_what_may_not_be_shown_has_no_probability():
    """Candidates may be used up: two items for three slots."""
    log_p = plackett_luce_log_probs(torch.tensor([[-INF, 0.0, 1.0, -INF]]), torch.tensor([[2, 1, 3]]))
    assert log_p[0, 1].item() == 0.0 and log_p[0, 2].item() == -INF
