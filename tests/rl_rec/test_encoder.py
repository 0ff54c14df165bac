"""The state encoder's short ways against ``nn.TransformerEncoderLayer``, and what padding may not do."""

import pytest
import torch
from torch import nn

from envs.randomness import seeded_weights
from rl_rec import attention
from rl_rec.encoder import EncoderLayer, StateEncoder

B, H, D = 5, 7, 8
HEADS = (1, 2, 4, 8)


def encoder(heads: int = 2, layers: int = 2) -> StateEncoder:
    with seeded_weights(0):
        made = StateEncoder(
            3, 4, history_length=H, dim=D, heads=heads, layers=layers, feedforward=16, dropout=0.0
        )
        for parameter in made.parameters():  # biases and norms begin at values that hide mistakes
            nn.init.normal_(parameter, std=0.3)
    return made


def padded_histories() -> torch.Tensor:
    """(B, H): full, padded by 1, 3 and 6, and empty."""
    history = torch.randint(1, 12, (B, H), generator=torch.Generator().manual_seed(1))
    for row, padding in enumerate((0, 1, 3, H - 1, H)):
        history[row, :padding] = 0
    return history


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(12, 4, generator=generator)
    features[0] = 0.0
    return features, torch.randn(B, 3, generator=generator)


def by_the_parent(layer: EncoderLayer, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return nn.TransformerEncoderLayer.forward(layer, x, mask.expand(-1, layer.heads, -1, -1).flatten(0, 1))


def gradients(layer: EncoderLayer, output: torch.Tensor, x: torch.Tensor) -> list[torch.Tensor]:
    weight = torch.randn(output.shape, generator=torch.Generator().manual_seed(4))
    return list(torch.autograd.grad((output * weight).sum(), [x, *layer.parameters()]))


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("in_cache", [1, 200, 10**9])  # one user at a time, some, all
@pytest.mark.parametrize("lanes", [1, 3, 16])  # two equal blocks of queries, two unequal ones, one
def test_all_positions_equal_the_transformer_layer(heads, in_cache, lanes, monkeypatch):
    monkeypatch.setattr(attention, "_SCORES_IN_CACHE", in_cache)
    monkeypatch.setattr(attention, "_LANES", lanes)
    model = encoder(heads)
    layer, history = model.layers[0], padded_histories()
    assert isinstance(layer, EncoderLayer)
    mask = model.attention_mask(model.padding_mask(history))
    x = torch.randn(B, H + 1, D, generator=torch.Generator().manual_seed(3), requires_grad=True)
    ours, theirs = layer.all_positions(x, mask), by_the_parent(layer, x, mask)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    for mine, parents in zip(gradients(layer, ours, x), gradients(layer, theirs, x), strict=True):
        torch.testing.assert_close(mine, parents, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("heads", HEADS)
def test_last_position_equals_the_transformer_layer(heads):
    model = encoder(heads)
    layer, padding = model.layers[0], model.padding_mask(padded_histories())
    assert isinstance(layer, EncoderLayer)
    x = torch.randn(B, H + 1, D, generator=torch.Generator().manual_seed(3), requires_grad=True)
    ours = layer.last_position(x, padding[:, None])
    theirs = by_the_parent(layer, x, model.attention_mask(padding))[:, -1]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    for mine, parents in zip(gradients(layer, ours, x), gradients(layer, theirs, x), strict=True):
        torch.testing.assert_close(mine, parents, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_padding_changes_nothing(layers):
    # A long window that is mostly padding, and a short one without any, with the same positions.
    model, (features, profile) = encoder(layers=layers), inputs()
    history = padded_histories()[3:4]  # one item
    short = encoder(layers=layers)
    short.load_state_dict(model.state_dict())
    short.position = nn.Parameter(model.position[-2:].detach())
    short.future = model.future[-2:, -2:]
    tokens = model.item_tokens(features)
    long_state = model(tokens, profile[:1], history)
    torch.testing.assert_close(long_state, short(tokens, profile[:1], history[:, -1:]))


def test_the_features_of_item_0_are_never_read():
    model, (features, profile) = encoder(), inputs()
    state = model(model.item_tokens(features), profile, padded_histories())
    features[0] = 1e3
    torch.testing.assert_close(model(model.item_tokens(features), profile, padded_histories()), state)


def test_padding_does_not_read_the_last_item():
    model, (features, profile) = encoder(), inputs()
    history = padded_histories()
    history[history == 11] = 10
    state = model(model.item_tokens(features), profile, history)
    features[-1] = 1e3
    torch.testing.assert_close(model(model.item_tokens(features), profile, history), state)


def test_an_empty_history_is_the_profile_alone():
    model, (features, profile) = encoder(), inputs()
    profile = profile[:2]
    empty = torch.zeros(2, H, dtype=torch.int64)
    state = model(model.item_tokens(features), profile, empty)
    assert torch.isfinite(state).all()
    assert not torch.allclose(state[0], state[1])
    state.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert not model.item.weight.grad.any()


def test_the_future_is_not_seen():
    model, (features, profile) = encoder(), inputs()
    layer = model.layers[0]
    assert isinstance(layer, EncoderLayer)
    history = padded_histories()
    mask = model.attention_mask(model.padding_mask(history))
    x = model.tokens(model.item_tokens(features), profile, history)
    changed = x.clone()
    changed[:, 4] += 1.0
    before, after = layer.all_positions(x, mask), layer.all_positions(changed, mask)
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert not torch.allclose(before[0, 5:], after[0, 5:])


def test_the_weights_are_those_of_the_transformer_layer():
    parent = nn.TransformerEncoderLayer(D, 2, 16, 0.0, batch_first=True)
    assert parent.state_dict().keys() == EncoderLayer(D, 2, 16, 0.0).state_dict().keys()
