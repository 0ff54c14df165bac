"""TD3 by hand: Q₁ = Z₂, Q₂ = Z₁ now; Q'₁ = 2·Z₁ + 0.5, Q'₂ = Z₁ in the targets; μ(s) = (0.5, 0.1)."""

import torch

from rl_rec.td3.losses import losses, predict, td_target
from tests.agents.by_hand import Hand, fill, transitions

PLAYED = torch.tensor([[0.3, 0.8], [0.1, -0.4]])


def made(hand, **settings) -> Hand:
    agent = hand("td3", item_embedding="own", critic_hidden=[], gamma=0.9, **settings)
    fill(agent.networks.critic.first.layers[0], (0.0, 0.0, 0.0, 1.0), [0.0])
    fill(agent.networks.critic.second.layers[0], (0.0, 0.0, 1.0, 0.0), [0.0])
    fill(agent.targets.critic.first.layers[0], (0.0, 0.0, 2.0, 0.0), [0.5])
    fill(agent.targets.critic.second.layers[0], (0.0, 0.0, 1.0, 0.0), [0.0])
    return agent


def test_target_is_the_lower_of_two_values(hand):
    """0.45 + 0.9·min(1.5, 0.5), and −0.1."""
    agent = made(hand)
    batch = transitions(hyper_action=PLAYED)
    p = predict(agent.networks, agent.targets, batch, agent.world, agent.settings)
    torch.testing.assert_close(p.target, torch.tensor([0.9, -0.1]))


def test_terms(hand):
    """First critic: 0.8 − 0.9, −0.4 + 0.1; second: 0.3 − 0.9, 0.1 + 0.1; the policy asks the first."""
    agent = made(hand, policy_weight=2.0)
    batch = transitions(hyper_action=PLAYED)
    terms = losses(predict(agent.networks, agent.targets, batch, agent.world, agent.settings), agent.settings)
    torch.testing.assert_close(terms["td"], torch.tensor((0.01 + 0.09) / 2 + (0.36 + 0.04) / 2))
    torch.testing.assert_close(terms["policy"], torch.tensor(-2.0 * 0.1))


def futures(hand, mu: float, **settings) -> torch.Tensor:
    """Q'₂ = Z₁ of many noisy target actions, read back from the target."""
    agent = made(hand, **settings)
    with torch.no_grad():
        agent.targets.hyper_actor[0].bias[0] = torch.tensor(mu).atanh()
    rows = torch.zeros(4_000, dtype=torch.int64)
    many = transitions()._replace(
        user=rows,
        next_history=torch.zeros(4_000, 3, dtype=torch.int64),
        reward=torch.zeros(4_000),
        terminated=torch.zeros(4_000, dtype=torch.bool),
    )
    profile = torch.zeros(4_000, 1)
    noise = torch.Generator().manual_seed(0)
    return td_target(agent.targets, many, profile, agent.world, agent.settings, noise) / 0.9


def test_noise_on_the_target_action_is_gaussian_and_cut_off(hand):
    z = futures(hand, 0.2, target_noise=0.1, target_noise_clip=0.25)
    assert abs(z.mean() - 0.2) < 0.01
    assert abs(z.std() - 0.0985) < 0.005  # σ of a Gaussian cut off at 2.5 σ
    assert z.min() >= 0.2 - 0.2501 and z.max() <= 0.2 + 0.2501 and z.max() > 0.4


def test_the_noisy_target_action_stays_within_bounds(hand):
    assert futures(hand, 0.9, target_noise=1.0, target_noise_clip=5.0).max() <= 1.00001


def test_learning_draws_the_noise_of_the_target_action(hand):
    agent = made(hand)
    batch = transitions(hyper_action=PLAYED)
    noise = torch.Generator().manual_seed(0)
    with_noise = predict(agent.networks, agent.targets, batch, agent.world, agent.settings, noise).target
    without = predict(agent.networks, agent.targets, batch, agent.world, agent.settings).target
    assert with_noise[0] != without[0] and with_noise[1] == without[1] == batch.reward[1]
