"""Wolpertinger by hand: proto-action (0.5, 0.1); Q'(s, a) = 2·a₁ + 0.5, so 2.5, 0.5, 4.5 and −1.5 by item."""

import pytest
import torch

from envs.transition import Observation
from rl_rec.wolpertinger.losses import losses, predict
from rl_rec.wolpertinger.networks import nearness
from rl_rec.wolpertinger.policy import WolpertingerPolicy
from tests.agents.by_hand import Hand, fill, moved_by, transitions


def made(hand, **settings) -> Hand:
    agent = hand("wolpertinger", critic_hidden=[], gamma=0.9, **settings)
    fill(agent.networks.critic.layers[0], (0.0, 0.0, 0.0, 1.0), [0.0])
    fill(agent.targets.critic.layers[0], (0.0, 0.0, 2.0, 0.0), [0.5])
    return agent


def test_nearness_orders_by_distance():
    z = torch.tensor([[0.5, 0.1]])
    phi = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0], [-1.0, -1.0]])
    distance = torch.tensor([[0.26, 1.06, 2.26, 3.46]])
    torch.testing.assert_close(nearness(z, phi), z.square().sum() - distance)


@pytest.mark.parametrize(("neighbours", "future"), [(2, (2.5 + 0.5) / 2), (3, (4.5 + 2.5) / 2), (50, 3.5)])
def test_target_is_the_value_of_the_best_neighbours(hand, neighbours, future):
    """y_k = g_k + 0.9·future, and g_k where the user left."""
    agent = made(hand, neighbours=neighbours)
    p = predict(agent.networks, agent.targets, transitions(), agent.world, agent.settings)
    expected = torch.tensor([[1.0, -0.1], [-0.1, -0.1]])
    expected[0] += 0.9 * future
    torch.testing.assert_close(p.target, expected)


def test_terms(hand):
    """Q(s, a) = a₂: items 1, 2, 3, 1 have 0, 1, 0, 0; the proto-action has 0.1."""
    agent = made(hand, neighbours=2, policy_weight=2.0)
    p = predict(agent.networks, agent.targets, transitions(), agent.world, agent.settings)
    torch.testing.assert_close(p.q, torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
    terms = losses(p, agent.settings)
    errors = torch.tensor([0 - 2.35, 1 - 1.25, 0.1, 0.1])
    torch.testing.assert_close(terms["td"], errors.square().mean())
    torch.testing.assert_close(terms["policy"], torch.tensor(-0.2))


def test_values_move_critic_and_items_and_the_policy_its_own(hand):
    agent = made(hand)
    with torch.no_grad():
        agent.networks.hyper_actor[0].weight.fill_(0.1)

    p = predict(agent.networks, agent.targets, transitions(), agent.world, agent.settings)
    terms = losses(p, agent.settings)
    assert moved_by(agent, terms["td"]) == {"critic", "item_encoder"}
    assert moved_by(agent, terms["policy"]) == {"encoder", "hyper_actor"}


def served(agent: Hand, noise=None, **observation) -> torch.Tensor:
    policy = WolpertingerPolicy(
        agent.targets, agent.world.profiles, agent.world.item_features, 2, True, agent.settings, noise
    )
    history = observation.pop("history", torch.zeros(1, 3, dtype=torch.int64))
    return policy.act(Observation(torch.tensor([0]), history, **observation)).slate


def test_the_critic_orders_the_neighbours(hand):
    assert served(made(hand, neighbours=2)).tolist() == [[1, 2]]
    assert served(made(hand, neighbours=3)).tolist() == [[3, 1]]


def test_fewer_neighbours_than_slots_are_made_up(hand):
    assert served(made(hand, neighbours=1)).tolist() == [[1, 2]]


def test_neighbours_may_be_shown(hand):
    """Item 1 was liked already: the nearest two of the others are 2 and 3."""
    history = torch.tensor([[0, 0, 1]])
    assert served(made(hand, neighbours=2), history=history).tolist() == [[3, 2]]
    explored = served(made(hand, neighbours=2), torch.Generator().manual_seed(0), history=history)
    assert set(explored[0].tolist()) == {2, 3}
