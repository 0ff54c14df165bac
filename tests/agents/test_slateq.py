"""SlateQ by hand: p = ½ for every item; Q̄ of a click is x₁ + 0.5 (1.5, 0.5, 2.5, −0.5), of a miss −0.5."""

import pytest
import torch

from envs.transition import Observation
from rl_rec.slateq.losses import losses, predict
from rl_rec.slateq.policy import SlateQPolicy
from tests.agents.by_hand import Hand, fill, transitions


def made(hand, mu: tuple[float, float] = (0.0, 0.0), **settings) -> Hand:
    agent = hand("slateq", mu=mu, gamma=0.9, **settings)
    for networks in (agent.networks, agent.targets):
        with torch.no_grad():
            networks.value_encoder.linear.weight.copy_(torch.eye(2))
            networks.value_encoder.linear.bias.zero_()
        fill(networks.value_head, (0.0, 0.0), (1.0, 0.0))
        fill(networks.levels, (0.0, 0.0), (0.5, -0.5))
    return agent


def test_what_an_item_adds(hand):
    agent = made(hand)
    tables = agent.networks.tables(agent.world.item_features)
    state = torch.zeros(1, 2)
    gains = agent.networks.gains(state, agent.networks.hyper_actor(state), tables)
    torch.testing.assert_close(gains[0, 1:], torch.tensor([1.0, 0.5, 1.5, 0.0]))


def test_target_is_the_value_of_the_best_slate(hand):
    """V'(s') = −0.5 + (1.5 + 1)/2 = 0.75; the second user left."""
    agent = made(hand)
    p = predict(agent.networks, agent.targets, transitions(), agent.world, agent.settings)
    expected = torch.tensor([[1 + 0.9 * 0.75, -0.1 + 0.9 * 0.75], [-0.1, -0.1]])
    torch.testing.assert_close(p.target, expected)


def test_a_used_up_candidate_is_a_miss(hand):
    """Only item 3 is left for the next slate: V'(s') = −0.5 + 1.5/2."""
    agent = made(hand)
    world = agent.world._replace(forbid_repeats=True)
    batch = transitions(candidates=torch.tensor([[1, 2, 3]] * 2), next_history=torch.tensor([[0, 1, 2]] * 2))
    p = predict(agent.networks, agent.targets, batch, world, agent.settings)
    assert p.target[0, 0].item() == pytest.approx(1 + 0.9 * 0.25)


def test_terms(hand):
    """A clicked slot's value is its item's, another's is a miss'."""
    agent = made(hand, choice_weight=2.0)
    p = predict(agent.networks, agent.targets, transitions(), agent.world, agent.settings)
    torch.testing.assert_close(p.value, torch.tensor([[1.5, -0.5], [-0.5, -0.5]]))
    terms = losses(p, transitions(), agent.settings)
    errors = torch.tensor([1.5 - 1.675, -0.5 - 0.575, -0.4, -0.4])
    torch.testing.assert_close(terms["td"], errors.square().mean())
    torch.testing.assert_close(terms["choice"], 2 * torch.tensor(2.0).log())


def test_the_slate_of_highest_value_is_shown(hand):
    def shown(**settings) -> list[int]:
        agent = made(hand, **settings)
        data = agent.world.profiles, agent.world.item_features
        policy = SlateQPolicy(agent.networks, *data, 2, False, agent.settings)
        seen = Observation(torch.tensor([0]), torch.zeros(1, 3, dtype=torch.int64))
        return policy.act(seen).slate[0].tolist()

    assert shown() == [3, 1]
    # p of items 1 to 4 is now 0.5, 0.95, 0.5, 0.05: item 2 adds 0.95 · 1.
    assert shown(mu=(0.0, 3.0)) == [3, 1]
    assert shown(mu=(-3.0, 3.0)) == [2, 1]  # 0.05 · 2, 0.95, 0.002 · 3, 0.5 · 0
