"""DDPG by hand: Q(s, Z) = Z₂ now, Q'(s, Z) = 2·Z₁ + 0.5 in the targets, μ(s) = (0.5, 0.1)."""

import torch

from envs.transition import Observation
from rl_rec.ddpg.losses import losses, predict
from rl_rec.ddpg.policy import DDPGPolicy
from tests.agents.by_hand import Hand, fill, moved_by, transitions

PLAYED = torch.tensor([[0.3, 0.8], [0.1, -0.4]])


def made(hand, **settings) -> Hand:
    agent = hand("ddpg", item_embedding="own", **settings)
    fill(agent.networks.critic.layers[0], (0.0, 0.0, 0.0, 1.0), [0.0])
    fill(agent.targets.critic.layers[0], (0.0, 0.0, 2.0, 0.0), [0.5])
    return agent


def predictions(agent: Hand):
    batch = transitions(hyper_action=PLAYED)
    return predict(agent.networks, agent.targets, batch, agent.world, agent.settings)


def test_target_bootstraps_from_the_target_actor_unless_the_user_left(hand):
    """0.45 + 0.9·(2·0.5 + 0.5), and −0.1."""
    agent = made(hand, critic_hidden=[], gamma=0.9)
    torch.testing.assert_close(predictions(agent).target, torch.tensor([1.8, -0.1]))


def test_terms(hand):
    """The critic scores what was played: (0.8 − 1.8)² and (−0.4 + 0.1)²; the policy is asked about μ(s)."""
    agent = made(hand, critic_hidden=[], gamma=0.9, policy_weight=3.0)
    terms = losses(predictions(agent), agent.settings)
    assert set(terms) == {"td", "policy"}
    torch.testing.assert_close(terms["td"], torch.tensor((1.0 + 0.09) / 2))
    torch.testing.assert_close(terms["policy"], torch.tensor(-3.0 * 0.1))


def test_each_term_moves_its_own(hand):
    agent = made(hand, critic_hidden=[], gamma=0.9)
    assert moved_by(agent, losses(predictions(agent), agent.settings)["td"]) == {"critic"}
    with torch.no_grad():
        agent.networks.hyper_actor[0].weight.fill_(0.1)  # a policy that looks at the state
    terms = losses(predictions(agent), agent.settings)
    assert moved_by(agent, terms["policy"]) == {"encoder", "hyper_actor"}


def test_hyper_actions_are_bounded_also_with_noise(hand):
    agent = made(hand, critic_hidden=[], exploration={"sigma": 3.0})
    z = agent.networks.hyper_actor(1e3 * torch.randn(50, 2, generator=torch.Generator().manual_seed(0)))
    assert z.abs().max() <= 1
    noise = torch.Generator().manual_seed(0)
    data = agent.world.profiles, agent.world.item_features
    policy = DDPGPolicy(agent.networks, *data, 2, False, agent.settings, noise)
    users = torch.zeros(200, dtype=torch.int64)
    played = policy.act(Observation(users, torch.zeros(200, 3, dtype=torch.int64))).extras["hyper_action"]
    assert played.min() == -1 and played.max() == 1 and ((played > -1) & (played < 1)).any()


def test_tokens_as_item_embeddings_leave_out_the_bias(hand):
    from rl_rec.ddpg.config import DDPGSettings
    from rl_rec.ddpg.networks import DDPGNetworks

    networks = DDPGNetworks(1, 2, 3, DDPGSettings(item_embedding="tokens"))
    assert not hasattr(networks, "item_encoder")
    features = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    tables = networks.tables(features)
    torch.testing.assert_close(tables.phi, features @ networks.encoder.item.weight.T)
    torch.testing.assert_close(tables.tokens, networks.encoder.item(features))
