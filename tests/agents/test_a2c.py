"""A2C and item-wise A2C by hand: items score 1, 0, 2, −1; V(s) = 0.25 now, 0.5 in the targets."""

import math

import pytest
import torch

from envs.errors import UserError
from envs.transition import Observation
from rl_rec.a2c.config import A2CSettings
from rl_rec.a2c.losses import losses, predict
from rl_rec.a2c.policy import A2CPolicy
from rl_rec.item_a2c import losses as item_a2c
from tests.agents.by_hand import Hand, fill, moved_by, transitions

E = math.e
ALL = E + 1 + E**2 + 1 / E
LOG_PROB = torch.tensor(
    [
        [1 - math.log(ALL), -math.log(ALL - E)],
        [2 - math.log(ALL), 1 - math.log(ALL - E**2)],
    ]
)
"""Of slates (1, 2) and (3, 1), drawn without replacement."""


def made(hand, name: str = "a2c", **settings) -> Hand:
    exploration = {"sigma": 0.0, "temperature": 0.5}
    agent = hand(name, mu=(0.5, 0.0), critic_hidden=[], gamma=0.9, exploration=exploration, **settings)
    fill(agent.networks.critic.layers[0], (0.0, 0.0), [0.25])
    fill(agent.targets.critic.layers[0], (0.0, 0.0), [0.5])
    return agent


def predictions(agent: Hand, batch=None):
    return predict(agent.networks, agent.targets, batch or transitions(), agent.world, agent.settings)


def test_predictions(hand):
    p = predictions(made(hand))
    torch.testing.assert_close(p.log_prob, LOG_PROB)
    assert p.valid.all()
    mean = (E * 1 + E**2 * 2 - 1 / E) / ALL
    torch.testing.assert_close(p.entropy, torch.full((2,), math.log(ALL) - mean))
    torch.testing.assert_close(p.value, torch.full((2,), 0.25))
    torch.testing.assert_close(p.future, torch.full((2,), 0.5))


def test_terms(hand):
    """y = 0.45 + 0.9·0.5 and −0.1, A = 0.65 and −0.35; the stored probabilities were half and twice today's."""
    agent = made(hand, policy_weight=2.0, entropy_weight=0.5)
    behaviour = LOG_PROB + torch.tensor([[2.0, 0.5], [1.0, 1.0]]).log()
    batch = transitions(log_prob=behaviour)
    p = predictions(agent, batch)
    terms = losses(p, batch, agent.settings)
    torch.testing.assert_close(terms["td"], torch.tensor((0.65**2 + 0.35**2) / 2))
    weights = torch.tensor([[0.5 * 0.65, 1.0 * 0.65], [-0.35, -0.35]])  # ρ = ½, 2 cut off at 1, 1, 1
    torch.testing.assert_close(terms["policy"], -2 * (weights * LOG_PROB).mean())
    torch.testing.assert_close(terms["entropy"], -0.5 * p.entropy.mean())


def test_no_entropy_without_weight(hand):
    agent = made(hand, entropy_weight=0.0)
    batch = transitions(log_prob=LOG_PROB)
    assert set(losses(predictions(agent, batch), batch, agent.settings)) == {"td", "policy"}


def test_an_item_that_may_not_be_shown_any_more_counts_nowhere(hand):
    """Items 1, 3 and 4 are left: item 2 of the first slate is not, and had no probability when it was shown."""
    agent = made(hand)
    behaviour = LOG_PROB.clone()
    behaviour[0, 1] = -math.inf
    batch = transitions(candidates=torch.tensor([[1, 3, 4]] * 2), log_prob=behaviour)
    p = predictions(agent, batch)
    assert p.valid.tolist() == [[True, False], [True, True]]
    # Row 1: 1 of {1, 3, 4}. Row 2: 3 of them, then 1 of {1, 4}.
    three = ALL - 1
    expected = [[1 - math.log(three), 0.0], [2 - math.log(three), 1 - math.log(E + 1 / E)]]
    torch.testing.assert_close(p.log_prob, torch.tensor(expected))
    mean = (E * 1 + E**2 * 2 - 1 / E) / three
    torch.testing.assert_close(p.entropy, torch.full((2,), math.log(three) - mean))
    terms = losses(p, batch, agent.settings)
    assert all(term.isfinite() for term in terms.values())
    sum(terms.values()).backward()
    gradients = [w.grad for w in agent.networks.parameters() if w.grad is not None]
    assert gradients and all(gradient.isfinite().all() for gradient in gradients)


def test_value_moves_the_critic_and_the_policy_the_rest(hand):
    agent = made(hand)
    with torch.no_grad():
        agent.networks.hyper_actor.weight.fill_(0.1)
    batch = transitions(log_prob=LOG_PROB)

    terms = losses(predictions(agent, batch), batch, agent.settings)
    assert moved_by(agent, terms["td"]) == {"critic"}
    for term in ("policy", "entropy"):
        terms = losses(predictions(agent, batch), batch, agent.settings)
        assert moved_by(agent, terms[term]) == {"encoder", "hyper_actor", "item_encoder"}


def test_stored_probabilities_are_those_of_the_losses(hand):
    agent = made(hand)
    noise = torch.Generator().manual_seed(0)
    data = agent.world.profiles, agent.world.item_features
    policy = A2CPolicy(agent.networks, *data, 2, False, agent.settings, noise)
    seen = Observation(torch.tensor([0, 1]), torch.zeros(2, 3, dtype=torch.int64))
    decision = policy.act(seen)
    p = predictions(agent, transitions(slate=decision.slate))
    torch.testing.assert_close(decision.extras["log_prob"], p.log_prob)
    greedy = A2CPolicy(agent.networks, *data, 2, False, agent.settings).act(seen)
    assert greedy.slate[0].tolist() == [3, 1] and greedy.extras == {}


@pytest.mark.parametrize("exploration", [{"sigma": 0.1}, {"sigma": 0.0, "effect": "topk"}])
def test_exploration_whose_probabilities_are_not_the_softmax_s_is_refused(exploration):
    with pytest.raises(UserError, match=r"set agent\.exploration\.sigma=0"):
        A2CSettings.from_mapping({"exploration": exploration})


# --- item by item -------------------------------------------------------------------------------------


def test_weights_of_the_future():
    click = torch.tensor([[True, False, True, False], [False] * 4])
    equal = torch.full((2, 4), 0.25)
    torch.testing.assert_close(item_a2c.future_weights(click, 0.0), equal)
    clicked = torch.tensor([[0.5, 0.0, 0.5, 0.0], [0.25] * 4])
    torch.testing.assert_close(item_a2c.future_weights(click, 1.0), clicked)
    torch.testing.assert_close(item_a2c.future_weights(click, 0.5), (equal + clicked) / 2)


@pytest.mark.parametrize(("alpha", "expected"), [(0.0, [1.2, 0.1]), (1.0, [1.65, -0.35])])
def test_advantages_have_the_slate_s_as_their_mean(hand, alpha, expected):
    """A_k = g_k + 0.9·2·w_k·0.5 − 0.25; the slate's own is 0.65. Who left has no future: −0.35 each."""
    agent = made(hand, "item-a2c", future_by_reward=alpha)
    credit = item_a2c.advantages(predictions(agent), transitions(), agent.world, agent.settings)
    torch.testing.assert_close(credit, torch.tensor([expected, [-0.35, -0.35]]))
    assert credit[0].mean().item() == pytest.approx(0.65)


def test_each_item_s_own_advantage_is_used(hand):
    agent = made(hand, "item-a2c", policy_weight=1.0)
    batch = transitions(log_prob=LOG_PROB)
    terms = item_a2c.losses(predictions(agent), batch, agent.world, agent.settings)
    weights = torch.tensor([[1.2, 0.1], [-0.35, -0.35]])
    torch.testing.assert_close(terms["policy"], -(weights * LOG_PROB).mean())
    torch.testing.assert_close(terms["td"], torch.tensor((0.65**2 + 0.35**2) / 2))


def test_where_a_slot_does_not_know_its_share_the_slate_s_reward_counts(hand):
    """y = r + 0.9·0.5 for every slot of the first slate: A = 0.45 + 0.45 − 0.25; the second: −0.35."""
    agent = made(hand, "item-a2c")
    world = agent.world._replace(reward="sweet_point")
    credit = item_a2c.advantages(predictions(agent), transitions(), world, agent.settings)
    torch.testing.assert_close(credit, torch.tensor([[0.65, 0.65], [-0.35, -0.35]]))
