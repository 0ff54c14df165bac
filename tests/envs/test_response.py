"""The response model: its loss by hand, its padding, and its frozen form."""

from math import log

import pytest
import torch

from envs.fit import response_loss
from envs.response import FrozenResponse, ResponseModel, ResponseSettings
from envs.simulator import Simulator
from envs.world_settings import WorldSettings

ITEMS, USERS, HISTORY = 20, 6, 7


def build(
    heads: int = 2, dropout: float = 0.2, behaviours: int = 1
) -> tuple[ResponseModel, torch.Tensor, torch.Tensor]:
    """A calibrated random model in training mode, profiles (U, P) and item features (N + 1, F)."""
    generator = torch.Generator().manual_seed(heads)
    shape = ResponseSettings(dim=8, heads=heads, hidden=16, dropout=dropout)
    model = ResponseModel(4, 5, shape, behaviours)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.4
    model.scale.copy_(torch.tensor([1.7, 0.6, 1.1])[:behaviours])
    model.shift.copy_(torch.tensor([-0.3, 0.2, -0.9])[:behaviours])
    profiles = torch.randn(USERS, 4, generator=generator)
    features = torch.randn(ITEMS + 1, 5, generator=generator)
    features[0] = 0
    return model, profiles, features


def histories() -> torch.Tensor:
    """(U, H): empty, one item, partly filled, a repeated item, full, and full but for one."""
    history = torch.zeros(USERS, HISTORY, dtype=torch.int64)
    history[1, -1:] = torch.tensor([3])
    history[2, -3:] = torch.tensor([20, 1, 7])
    history[3, -4:] = torch.tensor([5, 5, 2, 5])
    history[4] = torch.arange(1, 8)
    history[5, 1:] = torch.arange(10, 16)
    return history


def frozen_logits(
    frozen: FrozenResponse, user: torch.Tensor, history: torch.Tensor, items: torch.Tensor
) -> torch.Tensor:
    return frozen.logits(frozen.user_vectors(user, history), items)


@pytest.mark.parametrize(("heads", "behaviours"), [(1, 1), (2, 1), (4, 1), (1, 3), (2, 3)])
def test_the_frozen_model_equals_the_module(heads: int, behaviours: int):
    model, profiles, features = build(heads, behaviours=behaviours)
    frozen = FrozenResponse(model, profiles, features)
    user = torch.tensor([5, 0, 0, 2, 1, 3])
    items = torch.randint(1, ITEMS + 1, (USERS, 4), generator=torch.Generator().manual_seed(0))
    expected = model.eval()(profiles[user], histories(), items, features)

    assert expected.shape == (USERS, 4, behaviours)
    assert torch.allclose(frozen_logits(frozen, user, histories(), items), expected, atol=2e-5)
    assert expected.std() > 0.5, "the comparison means something"


def test_many_users_at_once_are_served_as_few_are():
    model, profiles, features = build()
    frozen = FrozenResponse(model, profiles, features)
    few = frozen.user_vectors(torch.arange(USERS), histories())
    many = frozen.user_vectors(torch.arange(USERS).repeat(201), histories().repeat(201, 1))

    assert torch.allclose(many, few.repeat(201, 1), atol=1e-5)


@pytest.mark.parametrize(("heads", "behaviours"), [(1, 1), (4, 1), (2, 3)])
def test_the_whole_catalogue_has_the_logits_of_its_items(heads: int, behaviours: int):
    model, profiles, features = build(heads, behaviours=behaviours)
    frozen = FrozenResponse(model, profiles, features)
    z = frozen.user_vectors(torch.arange(USERS), histories())
    items = torch.arange(ITEMS + 1).expand(USERS, -1)

    assert torch.allclose(frozen.all_logits(z), frozen.logits(z, items).permute(2, 0, 1), atol=1e-5)


def test_calibration_is_folded_into_the_frozen_logits():
    model, profiles, features = build()
    user, items = torch.arange(USERS), torch.arange(1, USERS + 1)[:, None]
    calibrated = frozen_logits(FrozenResponse(model, profiles, features), user, histories(), items)
    model.scale.fill_(1.0)
    model.shift.fill_(0.0)
    plain = frozen_logits(FrozenResponse(model, profiles, features), user, histories(), items)

    assert torch.allclose(calibrated, 1.7 * plain - 0.3, atol=1e-5)


def both(model: ResponseModel, profiles: torch.Tensor, features: torch.Tensor, history: torch.Tensor):
    """Logits of items 1 … 4 for every user, from the module and from its frozen form."""
    user, items = torch.arange(USERS), torch.arange(1, 5).expand(USERS, -1)
    yield model.eval()(profiles, history, items, features)
    yield frozen_logits(FrozenResponse(model, profiles, features), user, history, items)


def test_what_the_padding_holds_does_not_matter():
    model, profiles, features = build()
    garbage = features.clone()
    garbage[0] = 1e3

    before, after = (list(both(model, profiles, f, histories())) for f in (features, garbage))
    for one, other in zip(before, after, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_more_padding_changes_nothing():
    model, profiles, features = build()
    longer = torch.cat([torch.zeros(USERS, 9, dtype=torch.int64), histories()], dim=1)

    before, after = (list(both(model, profiles, features, h)) for h in (histories(), longer))
    for one, other in zip(before, after, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_the_history_and_the_profile_both_count():
    model, profiles, features = build()
    for logits in both(model, profiles[:1].expand(USERS, -1), features, histories()):
        assert len(logits[:, 0].detach().round(decimals=3).unique()) == USERS
    for logits in both(model, profiles, features, histories()[4:5].expand(USERS, -1)):
        assert len(logits[:, 0].detach().round(decimals=3).unique()) == USERS


def test_dropout_is_on_while_fitting_and_off_in_the_frozen_model():
    model, profiles, features = build(dropout=0.8)
    user, items = torch.arange(USERS), torch.arange(1, 5).expand(USERS, -1)
    expected = model.eval()(profiles, histories(), items, features)
    model.train()
    assert not torch.allclose(model(profiles, histories(), items, features), expected, atol=0.1)

    frozen = FrozenResponse(model, profiles, features)  # from a model that was left in training mode
    first, second = (frozen_logits(frozen, user, histories(), items) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.allclose(first, expected, atol=2e-5)


def test_the_simulator_responds_without_dropout(small_world):
    simulator = Simulator(small_world(), WorldSettings(history_length=6), num_users=8, seed=0)
    assert torch.equal(simulator.probabilities(), simulator.probabilities())


def test_the_loss_by_hand():
    # P = 1/2 observed 1, P = 3/4 observed 0, P = 1/4 observed 1, and an empty slot.
    logits = torch.tensor([[0.0, log(3)], [-log(3), 5.0]])
    feedback, shown = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    loss = response_loss(logits[..., None], feedback[..., None], shown[..., None])

    assert float(loss) == pytest.approx((log(2) + log(4) + log(4)) / 3)


def test_empty_slots_carry_no_loss_and_no_gradient():
    logits = torch.tensor([[0.3, -2.0], [100.0, 1.0]], requires_grad=True)
    items = torch.tensor([[4, 2], [0, 7]])
    response_loss(logits, torch.tensor([[1.0, 0.0], [0.0, 1.0]]), items).backward()
    assert logits.grad is not None

    assert logits.grad[1, 0] == 0
    assert (logits.grad != 0).sum() == 3


def test_the_loss_is_least_at_what_was_observed():
    # 29 of 100 responses positive; with a second sigmoid the least loss would be at a prediction of 0.
    feedback = (torch.arange(100) < 29).float()[:, None]
    logit = torch.tensor(log(0.29 / 0.71), requires_grad=True)
    response_loss(logit.expand(100, 1), feedback, torch.ones(100, 1, dtype=torch.int64)).backward()
    assert logit.grad is not None

    assert float(logit.grad) == pytest.approx(0.0, abs=1e-6)


def test_the_loss_of_two_behaviours_by_hand():
    # Clicks: P = 1/2 observed 1, P = 3/4 observed 0. Conversions, asked after the click: P = 1/4 observed 1.
    logits = torch.tensor([[[0.0, -log(3)], [log(3), 7.0]]])
    feedback = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    asked = torch.tensor([[[1.0, 1.0], [1.0, 0.0]]])

    expected = (log(2) + log(4) + log(4)) / 2  # per shown item
    assert float(response_loss(logits, feedback, asked)) == pytest.approx(expected)
