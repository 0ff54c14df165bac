"""HAC's networks: shapes, two ways to the same score, and what is saved."""

import io

import pytest
import torch

from envs.transition import Observation
from rl_rec.hac.networks import HyperNetworkScorer
from rl_rec.hac.policy import HACPolicy
from rl_rec.item_encoder import ItemEncoder
from rl_rec.scoring.networks import Critic


@pytest.mark.parametrize("scorer", ["dot", "hyper_network"])
@pytest.mark.parametrize("hidden", [0, 3])
def test_shapes(make_agent, scorer, hidden):
    agent = make_agent(items=9, scorer=scorer, item_hidden=hidden)
    networks = agent.networks
    tables = networks.tables(agent.features)
    assert tables.tokens.shape == tables.phi.shape == (10, 4)
    state = networks.state(tables, agent.profiles, torch.zeros(6, 5, dtype=torch.int64))
    assert state.shape == (6, 4)
    z = networks.hyper_actor(state)
    assert networks.scores(z, tables).shape == (6, 10)
    assert networks.slot_scores(z, tables.phi[torch.ones(6, 3, dtype=torch.int64)]).shape == (6, 3)
    assert networks.critic(state, z).shape == (6,)


@pytest.mark.parametrize("scorer", ["dot", "hyper_network"])
def test_slot_scores_are_the_catalogue_s_gathered(make_agent, make_batch, scorer):
    agent, slate = make_agent(scorer=scorer), make_batch().slate
    tables = agent.networks.tables(agent.features)
    z = torch.randn(len(slate), 4, generator=torch.Generator().manual_seed(1))
    gathered = agent.networks.scores(z, tables).gather(1, slate)
    torch.testing.assert_close(agent.networks.slot_scores(z, tables.phi[slate]), gathered)


def test_hyper_network_scores_as_its_formula_says():
    scorer, generator = HyperNetworkScorer(2, 3), torch.Generator().manual_seed(0)
    z, phi = torch.randn(4, 2, generator=generator), torch.randn(5, 2, generator=generator)
    for user in range(4):
        first, bias, second = scorer.first(z[user]).view(3, 2), scorer.bias(z[user]), scorer.second(z[user])
        expected = torch.stack([second @ (first @ x + bias).relu() + z[user] @ x for x in phi])
        torch.testing.assert_close(scorer.catalogue(z, phi)[user], expected)


def test_hyper_network_without_second_weights_is_the_dot_product():
    scorer, generator = HyperNetworkScorer(4, 3), torch.Generator().manual_seed(0)
    torch.nn.init.zeros_(scorer.second.weight)
    torch.nn.init.zeros_(scorer.second.bias)
    z, phi = torch.randn(6, 4, generator=generator), torch.randn(9, 4, generator=generator)
    torch.testing.assert_close(scorer.catalogue(z, phi), z @ phi.T)


@pytest.mark.parametrize("hidden", [0, 3])
def test_padding_embeds_to_zero(hidden):
    encoder = ItemEncoder(5, 4, hidden)
    features = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    phi = encoder(features)
    assert not phi[0].any()
    assert phi[1:].any(dim=1).all()


def test_item_encoder_treats_each_item_alone():
    encoder, generator = ItemEncoder(5, 4, 3), torch.Generator().manual_seed(0)
    features = torch.randn(7, 5, generator=generator)
    other = features.clone()
    other[3] += 1.0
    changed = (encoder(features) != encoder(other)).any(dim=1)
    assert changed.tolist() == [False, False, False, True, False, False, False]


def test_a_frozen_critic_passes_gradients_through_and_keeps_none():
    critic, generator = Critic(8, (5,)), torch.Generator().manual_seed(0)
    state = torch.randn(3, 4, generator=generator)
    action = torch.randn(3, 4, generator=generator).requires_grad_()
    value = critic(state, action, frozen=True)
    torch.testing.assert_close(value, critic(state, action))
    value.sum().backward()
    assert action.grad is not None and action.grad.any()
    assert all(parameter.grad is None for parameter in critic.parameters())


@pytest.mark.parametrize("scorer", ["dot", "hyper_network"])
def test_saved_weights_serve_the_same_slates(make_agent, scorer):
    saved, other = make_agent(scorer=scorer), make_agent(scorer=scorer, seed=5)
    observation = Observation(torch.arange(6), torch.arange(30).view(6, 5) % 13)

    def slates(networks) -> torch.Tensor:
        policy = HACPolicy(networks, saved.profiles, saved.features, 3, True, saved.settings)
        return policy.act(observation).slate

    before = slates(saved.networks)
    assert not torch.equal(slates(other.networks), before)
    file = io.BytesIO()
    torch.save(saved.networks.state_dict(), file)
    file.seek(0)
    other.networks.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(slates(other.networks), before)


def test_scoring_a_catalogue_of_any_size_needs_no_tensor_per_user_and_item(make_agent, largest_tensor):
    users, dim = 6, 4
    for items in (100, 1000):
        for scorer in ("dot", "hyper_network"):
            agent = make_agent(items=items, scorer=scorer)
            policy = HACPolicy(agent.networks, agent.profiles, agent.features, 3, True, agent.settings)
            observation = Observation(torch.arange(users), torch.zeros(users, 5, dtype=torch.int64))
            largest = largest_tensor(lambda policy=policy, o=observation: policy.act(o))
            assert largest == users * (items + 1) < users * items * dim
