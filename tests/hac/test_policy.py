"""HAC in a rollout: what is shown with and without exploration."""

import math

import pytest
import torch

from envs.transition import Observation
from rl_rec.hac.policy import HACPolicy
from rl_rec.scoring.config import ExplorationSettings


def make_policy(agent, seed: int | None = None, *, slate: int = 3, forbid: bool = False) -> HACPolicy:
    """``seed`` ``None`` is greedy."""
    noise = None if seed is None else torch.Generator().manual_seed(seed)
    return HACPolicy(agent.networks, agent.profiles, agent.features, slate, forbid, agent.settings, noise)


def observe(users: int = 6, **changes) -> Observation:
    """Users with two liked items each."""
    history = torch.zeros(users, 5, dtype=torch.int64)
    history[:, 3], history[:, 4] = 1 + torch.arange(users) % 12, 1 + (torch.arange(users) + 4) % 12
    return Observation(torch.arange(users) % 6, history, **changes)


def allowed_scores(agent, observation: Observation, forbid: bool = False) -> list[dict[int, float]]:
    """Score by item that may be shown, per user, by plain loops."""
    networks = agent.networks
    tables = networks.tables(agent.features)
    mu = networks.hyper_actor(networks.state(tables, agent.profiles[observation.user], observation.history))
    scores = networks.scores(mu, tables)
    return [
        {
            item: scores[row, item].item()
            for item in range(1, len(agent.features))
            if not (forbid and item in observation.history[row])
            and (observation.candidates is None or item in observation.candidates[row])
            and (observation.live is None or observation.live[item])
        }
        for row in range(len(scores))
    ]


@pytest.mark.parametrize("scorer", ["dot", "hyper_network"])
@pytest.mark.parametrize("forbid", [False, True])
@pytest.mark.parametrize("candidates", [None, torch.tensor([[1, 3, 5, 7, 9, 11]] * 6)])
@pytest.mark.parametrize("live", [None, torch.arange(13) > 2])
def test_greedy_shows_the_best_of_what_may_be_shown(make_agent, scorer, forbid, candidates, live):
    agent, observation = make_agent(scorer=scorer), observe(candidates=candidates, live=live)
    slate = make_policy(agent, forbid=forbid).act(observation).slate
    for row, scores in enumerate(allowed_scores(agent, observation, forbid)):
        assert slate[row].tolist() == sorted(scores, key=scores.__getitem__, reverse=True)[:3]


@pytest.mark.parametrize("effect", ["categorical", "topk"])
def test_exploration_stays_inside_what_may_be_shown(make_agent, effect):
    agent = make_agent(exploration={"effect": effect, "sigma": 3.0, "temperature": 5.0})
    observation = observe(candidates=torch.tensor([[1, 3, 5, 7, 9, 11]] * 6), live=torch.arange(13) > 1)
    policy = make_policy(agent, 0, forbid=True)
    for _ in range(50):
        slate = policy.act(observation).slate
        for row in range(6):
            shown, history = set(slate[row].tolist()), set(observation.history[row].tolist())
            assert len(shown) == 3 and shown <= {3, 5, 7, 9, 11} - history


def test_greedy_ignores_how_exploration_is_set(make_agent):
    calm, wild = make_agent(), make_agent(exploration={"sigma": 50.0, "temperature": 50.0})
    observation = observe()
    slates = [make_policy(agent).act(observation).slate for agent in (calm, wild, wild)]
    assert torch.equal(slates[0], slates[1]) and torch.equal(slates[1], slates[2])


@pytest.mark.parametrize("effect", ["categorical", "topk"])
def test_one_seed_one_sequence_of_slates(make_agent, effect):
    agent, observation = make_agent(exploration={"effect": effect, "sigma": 1.0}), observe()

    def slates(seed: int) -> torch.Tensor:
        policy = make_policy(agent, seed)
        return torch.stack([policy.act(observation).slate for _ in range(10)])

    assert torch.equal(slates(1), slates(1))
    assert not torch.equal(slates(1), slates(2))


def test_noise_is_gaussian_with_mean_zero_on_both_sides(make_agent):
    """Uniform noise on [0, σ), as in the released code, fails every line."""
    sigma = 0.5
    agent = make_agent(critic_action="hyper", policy_action="hyper", exploration={"sigma": sigma})
    observation = observe(5000)
    greedy = make_policy(agent).act(observation).extras["hyper_action"]
    noise = (make_policy(agent, 0).act(observation).extras["hyper_action"] - greedy) / sigma  # 20,000 draws
    assert abs(noise.mean()) < 0.03
    assert noise.std() == pytest.approx(1.0, abs=0.03)
    for deviations in (1.0, 2.0, 3.0):  # shares of a normal distribution
        inside = (noise.abs() < deviations).double().mean().item()
        assert inside == pytest.approx(math.erf(deviations / 2**0.5), abs=0.012)
    # Every component and every user draws their own.
    assert abs(torch.corrcoef(noise.T) - torch.eye(4)).max() < 0.06
    assert noise[0].std() > 0 and not torch.equal(noise[0], noise[1])


@pytest.mark.parametrize("effect, sigma", [("categorical", 0.0), ("topk", 1.0)])
def test_equal_scores_do_not_give_one_slate_for_all(make_agent, effect, sigma):
    agent = make_agent(exploration={"effect": effect, "sigma": sigma})
    with torch.no_grad():
        agent.networks.hyper_actor.weight.zero_()
        agent.networks.hyper_actor.bias.zero_()  # μ = 0: every item scores 0
    slate = make_policy(agent, 0).act(observe(600)).slate
    assert len({tuple(sorted(row)) for row in slate.tolist()}) > 40  # of 220 sets of 3 items
    if effect == "categorical":  # every item equally often: 150 times
        counts = torch.bincount(slate.flatten(), minlength=13)[1:]
        assert counts.min() > 110 and counts.max() < 190


def test_categorical_draws_without_replacement_by_the_softmax_of_the_scores(hand_agent):
    temperature = 0.5
    agent = hand_agent(mu=(0.3, 0.1), exploration={"sigma": 0.0, "temperature": temperature})
    observation = Observation(torch.zeros(20_000, dtype=torch.int64), torch.zeros(20_000, 3, dtype=torch.int64))
    slate = make_policy(agent, 0, slate=2).act(observation).slate
    assert (slate[:, 0] != slate[:, 1]).all()
    p = (torch.tensor([0.3, 0.1, 0.6, -0.4]) / temperature).softmax(dim=0)
    first = torch.bincount(slate[:, 0], minlength=5)[1:] / len(slate)
    torch.testing.assert_close(first, p, atol=0.012, rtol=0)
    # The second is drawn from what is left: P(1 then 3) = p₁·p₃ / (1 − p₁).
    both = ((slate[:, 0] == 1) & (slate[:, 1] == 3)).double().mean()
    assert both.item() == pytest.approx((p[0] * p[2] / (1 - p[0])).item(), abs=0.01)


def test_hyper_action_is_stored_only_where_the_critic_scores_it(make_agent):
    assert make_policy(make_agent(), 0).act(observe()).extras == {}
    played = make_policy(make_agent(critic_action="hyper", policy_action="hyper"), 0).act(observe()).extras
    assert played["hyper_action"].shape == (6, 4)


def test_new_weights_are_used_after_they_are_announced(make_agent):
    agent, observation = make_agent(), observe()
    policy = make_policy(agent)
    policy.act(observation)
    with torch.no_grad():
        agent.networks.item_encoder.linear.weight.neg_()
        agent.networks.encoder.item.weight.neg_()
    policy.weights_changed()
    assert torch.equal(policy.act(observation).slate, make_policy(agent).act(observation).slate)


@pytest.mark.parametrize(
    "user_steps, sigma", [(0, 1.0), (50, 0.6), (100, 0.2), (1_000, 0.2)], ids=["start", "half", "end", "after"]
)
def test_sigma_falls_linearly(user_steps, sigma):
    schedule = ExplorationSettings(sigma=1.0, sigma_final=0.2, sigma_steps=100)
    assert schedule.sigma_at(user_steps) == pytest.approx(sigma)


def test_sigma_stays_without_a_schedule():
    assert ExplorationSettings(sigma=0.3).sigma_at(10**6) == 0.3
