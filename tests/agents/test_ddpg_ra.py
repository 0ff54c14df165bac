"""DDPG-RA by hand: g(s, s') = (1, 0), so that items score 1, 0, 2, −1."""

import math

import torch

from envs.transition import Observation
from rl_rec.ddpg_ra.losses import losses, predict, representation_loss, slate_log_probs
from tests.agents.by_hand import Hand, fill, moved_by, transitions

PLAYED = torch.tensor([[0.3, 0.8], [0.1, -0.4]])
E = math.e


def made(hand) -> Hand:
    agent = hand("ddpg-ra", critic_hidden=[], inverse_hidden=[2], representation_weight=0.5)
    fill(agent.networks.inverse_model.layers[-1], (0.0, 0.0), (1.0, 0.0))
    return agent


def test_log_probabilities_of_what_was_shown(hand):
    agent = made(hand)
    everything = math.log(E + 1 + E**2 + 1 / E)
    expected = torch.tensor([[1.0, 0.0], [2.0, 1.0]]) - everything
    torch.testing.assert_close(slate_log_probs(agent.networks, transitions(), agent.world), expected)


def test_what_could_not_be_shown_takes_no_mass(hand):
    """Candidates 1, 2 and 4 for the first user; 1 and 3 for the second."""
    agent = made(hand)
    batch = transitions(candidates=torch.tensor([[1, 2, 4], [1, 3, 1]]))
    expected = torch.tensor([[1.0, 0.0], [2.0, 1.0]])
    expected -= torch.tensor([[math.log(E + 1 + 1 / E)], [math.log(E + E**2)]])
    torch.testing.assert_close(slate_log_probs(agent.networks, batch, agent.world), expected)


def test_terms_are_ddpg_s_and_the_representation_s(hand):
    agent = made(hand)
    batch = transitions(hyper_action=PLAYED)
    p = predict(agent.networks, agent.targets, batch, agent.world, agent.settings)
    terms = losses(p, agent.settings)
    assert set(terms) == {"td", "policy", "representation"}
    torch.testing.assert_close(terms["representation"], -0.5 * p.slate_log_prob.mean())
    assert representation_loss(torch.tensor([[-1.0, -3.0]])).item() == 2.0


def test_the_representation_moves_inverse_model_and_items_alone(hand):
    agent = made(hand)
    batch = transitions(hyper_action=PLAYED)
    p = predict(agent.networks, agent.targets, batch, agent.world, agent.settings)
    term = losses(p, agent.settings)["representation"]
    assert moved_by(agent, term) == {"inverse_model", "item_encoder"}


def test_an_item_that_was_retired_since_keeps_the_loss_finite(hand):
    agent = made(hand)
    live = torch.tensor([False, True, False, True, True])
    world = agent.world

    class Retired(type(world)):
        def observations(self, batch):
            seen = Observation(batch.user, batch.history, None, live)
            return seen, seen

    log_p = slate_log_probs(agent.networks, transitions(), Retired(*world))
    assert log_p.isfinite().all()
