"""The policy gradient on replayed data, by hand."""

import pytest
import torch

from rl_rec.policy_gradient import masked_mean, policy_gradient_loss


def test_policy_loss_weighs_by_the_ratio_and_cuts_it_off():
    # π = ½, ½, ¼; π_b = 1, ¼, ¼: ρ = ½, 2, 1. A = 1, −2, 4.
    log_prob = torch.tensor([[[0.5, 0.5, 0.25]]]).log().requires_grad_()
    behaviour = torch.tensor([[[1.0, 0.25, 0.25]]]).log()
    credit, valid, ln2 = torch.tensor([[[1.0, -2.0, 4.0]]]), torch.ones(1, 1, 3), 0.6931472
    cut = {0.25: (0.25, 0.25, 0.25), 1.0: (0.5, 1, 1), 1.5: (0.5, 1.5, 1), 9.0: (0.5, 2, 1)}
    for ratio_max, ratios in cut.items():
        log_prob.grad = None
        loss = policy_gradient_loss(log_prob, behaviour, credit, valid, ratio_max)
        a, b, c = ratios
        assert loss.item() == pytest.approx((a * 1 * ln2 - b * 2 * ln2 + c * 4 * 2 * ln2) / 3, rel=1e-5)
        loss.backward()  # the ratio itself holds no gradient
        torch.testing.assert_close(log_prob.grad, -torch.tensor([[[a * 1, -b * 2.0, c * 4.0]]]) / 3)


def test_policy_loss_leaves_out_what_was_not_shown():
    log_prob, credit = torch.tensor([[[-1.0, -1.0], [-5.0, -5.0]]]), torch.ones(1, 2, 2)
    loss = policy_gradient_loss(log_prob, log_prob, credit, torch.tensor([[[1.0, 1.0], [0.0, 0.0]]]), 1.0)
    assert loss.item() == pytest.approx(1.0)


def test_a_mean_over_nothing_is_zero():
    assert masked_mean(torch.tensor([3.0, 5.0]), torch.zeros(2)).item() == 0.0


def test_what_does_not_count_may_be_anything():
    log_prob = torch.tensor([-1.0, -2.0, -3.0], requires_grad=True)
    behaviour = torch.tensor([-1.0, -torch.inf, torch.nan])
    loss = policy_gradient_loss(log_prob, behaviour, torch.ones(3), torch.tensor([1.0, 0.0, 0.0]), 1.0)
    assert loss.item() == 1.0
    loss.backward()
    assert log_prob.grad is not None and log_prob.grad.tolist() == [-1.0, 0.0, 0.0]
