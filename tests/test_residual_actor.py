"""The actor of two heads."""

import pytest
import torch

from rl_rec.residual_actor import ResidualActor


def test_a_residual_stays_within_its_share_of_what_was_supervised():
    actor, generator = ResidualActor(4, 4, 0.5), torch.Generator().manual_seed(0)
    state = torch.randn(50, 4, generator=generator)
    for scale in (0.01, 1.0, 1e4):
        torch.nn.init.normal_(actor.residual[-1].weight, std=scale, generator=generator)
        base, z = actor.base(state), actor(state, state)
        assert ((z - base).norm(dim=1) <= 0.5 * base.norm(dim=1) * (1 + 1e-5)).all()
    assert torch.allclose((z - base).norm(dim=1), 0.5 * base.norm(dim=1)), "a sure critic goes all the way"


def test_the_residual_by_hand():
    actor = ResidualActor(2, 2, 0.5, hidden=1)
    with torch.no_grad():
        actor.base.weight.copy_(torch.eye(2))
        actor.base.bias.zero_()
        actor.residual[-1].weight.zero_()
        actor.residual[-1].bias.copy_(torch.tensor([0.0, 0.3]))
    # z_c = (3, 4) is 5 long; the step (0, 0.3) is 0.3 long and squashed to tanh(0.3) = 0.291313.
    z = actor(torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2))
    assert z[0].tolist() == pytest.approx([3.0, 4.0 + 0.5 * 5 * 0.291313], abs=1e-5)
