"""HSRL in a rollout: what is shown with and without exploration, what is stored, what a saved run serves."""

import numpy as np
import pytest
import torch

from envs.errors import UserError
from envs.simulator import Simulator
from envs.world_settings import WorldSettings
from rl_rec.hsrl.config import HSRLSettings
from rl_rec.hsrl.networks import HSRLNetworks
from rl_rec.hsrl.policy import HSRLPolicy
from rl_rec.rollout import Rollout
from rl_rec.sids.codebook import Codebook, SidSettings, fit_codebook
from rl_rec.sids.trie import Trie
from rl_rec.transitions import Transitions

CANDIDATES = torch.tensor([[1, 3, 5, 7, 9, 11, 3]] * 6)
LIVE = torch.arange(13) > 1


def with_next(observation, decision) -> Transitions:
    """What a learner would read of one step."""
    users, slots = decision.slate.shape
    return Transitions(
        user=observation.user,
        history=observation.history,
        slate=decision.slate.int(),
        click=torch.zeros(users, slots, dtype=torch.bool),
        reward=torch.zeros(users),
        terminated=torch.zeros(users, dtype=torch.bool),
        next_history=observation.history,
        candidates=observation.candidates,
        log_prob=decision.extras["log_prob"],
    )


@pytest.mark.parametrize("rank", ["score", "probability"])
@pytest.mark.parametrize("forbid", [False, True])
@pytest.mark.parametrize("candidates", [None, CANDIDATES])
@pytest.mark.parametrize("live", [None, LIVE])
def test_greedy_shows_the_best_of_what_may_be_shown(
    make_agent, observe, plain_policy, rank, forbid, candidates, live
):
    agent, observation = make_agent(rank=rank), observe(candidates=candidates, live=live)
    decision = agent.policy(forbid=forbid).act(observation)
    assert decision.extras == {}
    alive = set(range(1, 13)) if live is None else set(range(2, 13))
    agent.trie.set_live(LIVE if live is not None else torch.ones(13, dtype=torch.bool))
    state, _ = agent.encode(observation.user, observation.history)
    for row in range(6):
        leaves = plain_policy(agent, state.s[row], alive)
        values = {i: (f.score if rank == "score" else f.log_joint[-1]).item() for i, f in leaves.items()}
        allowed = alive if candidates is None else alive & set(candidates[row].tolist())
        allowed = allowed - set(observation.history[row].tolist()) if forbid else allowed
        assert decision.slate[row].tolist() == sorted(allowed, key=values.__getitem__, reverse=True)[:3]


def test_greedy_is_deterministic(make_agent, observe):
    policy, observation = make_agent().policy(), observe()
    assert torch.equal(policy.act(observation).slate, policy.act(observation).slate)


def test_repeats_are_shown_where_they_are_allowed(make_agent, observe):
    agent, observation = make_agent(), observe()
    best = agent.policy(slate=1).act(observation).slate
    observation.history[:, 4] = best[:, 0]
    policy = agent.policy(slate=12)  # everything, in some order
    assert (policy.act(observation).slate == observation.history[:, 4:]).any(dim=1).all()
    forbidding = agent.policy(slate=10, forbid=True).act(observation).slate
    assert not (forbidding[:, :, None] == observation.history[:, None, :]).any()


def test_exploration_stays_inside_what_may_be_shown(make_agent, observe):
    agent = make_agent(spread=0.1)
    for candidates, allowed in ((CANDIDATES, {3, 5, 7, 9, 11}), (None, set(range(2, 13)))):
        observation = observe(candidates=candidates, live=LIVE)
        policy = agent.policy(0, forbid=True)
        for _ in range(20):
            slate = policy.act(observation).slate
            for row in range(6):
                shown, history = set(slate[row].tolist()), set(observation.history[row].tolist())
                assert len(shown) == 3 and shown <= allowed - history


def test_one_seed_one_sequence_of_slates(make_agent, observe):
    agent, observation = make_agent(spread=0.1), observe()

    def slates(seed: int) -> torch.Tensor:
        policy = agent.policy(seed)
        return torch.stack([policy.act(observation).slate for _ in range(5)])

    assert torch.equal(slates(1), slates(1))
    assert not torch.equal(slates(1), slates(2))


def test_candidates_are_drawn_without_replacement_in_proportion(make_agent, observe, probabilities):
    agent = make_agent(spread=0.2, temperature=3.0)
    users = 10_000
    observation = observe(users, candidates=CANDIDATES[:1].expand(users, -1))._replace(
        user=torch.zeros(users, dtype=torch.int64), history=torch.tensor([[0, 0, 0, 0, 5]]).expand(users, -1)
    )
    state, _ = agent.encode(observation.user[:1], observation.history[:1])
    p = probabilities(agent, state.s[0])
    slate = agent.policy(0, forbid=True).act(observation).slate
    allowed = [1, 3, 7, 9, 11]
    total = sum(p[i] for i in allowed)
    for item in allowed:
        share = (slate[:, 0] == item).double().mean().item()
        assert share == pytest.approx(p[item] / total, abs=0.025)


@pytest.mark.parametrize("exclusions", ["slots", "history", "off"])
@pytest.mark.parametrize("forbid", [False, True])
@pytest.mark.parametrize("candidates", [None, CANDIDATES])
@pytest.mark.parametrize("context", ["sampled", "expected"])
def test_what_is_stored_is_what_unchanged_weights_recompute(
    make_agent, observe, exclusions, forbid, candidates, context
):
    """The importance ratio of a policy against itself is one."""
    agent = make_agent(exclusions=exclusions, context=context, temperature=2.0)
    observation = observe(candidates=candidates, live=LIVE)
    agent.trie.set_live(LIVE)
    decision = agent.policy(3, forbid=forbid).act(observation)
    assert decision.extras["log_prob"].shape == (6, 3, 3)
    predictions = agent.predict(with_next(observation, decision), forbid)
    assert predictions.valid.all()
    ratio = (predictions.log_prob - decision.extras["log_prob"]).exp()
    torch.testing.assert_close(ratio, torch.ones_like(ratio), atol=1e-4, rtol=0)


@pytest.mark.parametrize("forbid", [False, True])
@pytest.mark.parametrize("bias", [0.0, 30.0, 60.0])
def test_what_is_stored_is_recomputed_where_one_token_has_nearly_all(make_agent, observe, forbid, bias):
    agent, observation = make_agent(items=24, temperature=0.3), observe()
    with torch.no_grad():
        agent.networks.policy.heads[0].bias[0] += bias
    decision = agent.policy(3, slate=14, forbid=forbid).act(observation)
    stored = decision.extras["log_prob"]
    assert stored.isfinite().all() and stored.max() < 0.01  # as far as LEAST leaves more than there is
    predictions = agent.predict(with_next(observation, decision), forbid)
    torch.testing.assert_close(predictions.log_prob, stored, atol=1e-2, rtol=0)


@pytest.mark.parametrize("candidates", [None, CANDIDATES])
def test_draws_do_not_depend_on_how_greedy_slates_are_ordered(make_agent, observe, candidates):
    observation = observe(candidates=candidates)
    one, other = (
        make_agent(rank=rank, temperature=3.0).policy(3).act(observation) for rank in ("score", "probability")
    )
    assert torch.equal(one.slate, other.slate)


def test_stored_log_probabilities_sum_to_plackett_luce(make_agent, observe, probabilities):
    agent, observation = make_agent(temperature=2.0), observe(live=LIVE)
    agent.trie.set_live(LIVE)
    decision = agent.policy(3, forbid=True).act(observation)
    state, _ = agent.encode(observation.user, observation.history)
    for row in range(6):
        p = probabilities(agent, state.s[row], range(2, 13))
        left = set(p) - set(observation.history[row].tolist())
        for slot, item in enumerate(decision.slate[row].tolist()):
            share = p[item] / sum(p[i] for i in left)
            stored = decision.extras["log_prob"][row, slot].sum().exp().item()
            assert stored == pytest.approx(share, rel=1e-3)
            left.remove(item)


def test_new_weights_are_used_after_they_are_announced(make_agent, observe):
    agent, observation = make_agent(rank="score"), observe()
    policy = agent.policy()
    before = policy.act(observation).slate
    with torch.no_grad():
        agent.networks.policy.item_encoder.linear.weight.neg_()
        agent.networks.policy.encoder.item.weight.neg_()
    policy.weights_changed()
    after = policy.act(observation).slate
    assert torch.equal(after, agent.policy().act(observation).slate) and not torch.equal(after, before)


def test_tables_follow_the_live_items(make_agent, observe):
    agent = make_agent(rank="probability")
    policy = agent.policy()
    first = policy.act(observe(live=LIVE)).slate
    for live in (torch.arange(13) % 2 == 1, torch.arange(13) < 7, LIVE):
        observation = observe(live=live)
        slate = policy.act(observation).slate
        assert live[slate].all()
        assert torch.equal(slate, agent.policy().act(observation).slate)  # one that saw nothing else
    assert torch.equal(slate, first)


@pytest.mark.parametrize("repeats", ["allow", "forbid"])
def test_a_rollout_stores_what_a_learner_reads(small_world, repeats):
    world = small_world(items=30, users=16, slate=3, profile_features=3, item_features=5)
    rules = WorldSettings.from_mapping(
        {"repeats": repeats, "history_length": 5, "catalogue": {"withheld": 0.2, "churn": 0.1}}
    )
    _, policy = saved(world, rules)
    policy.noise = torch.Generator().manual_seed(0)
    simulator = Simulator(world, rules, 8, seed=0)
    columns = Rollout(simulator, policy).collect(4)
    batch = Transitions(**columns)
    assert batch.log_prob.shape == (32, 3, 3) and batch.log_prob.dtype == torch.float32
    assert (batch.log_prob.sum(dim=-1) < 1e-4).all() and batch.clock is not None


# --- saved runs ---------------------------------------------------------------------------------------

RULES = WorldSettings(repeats="allow", history_length=5)
SAVED = HSRLSettings.from_mapping(
    {"encoder": {"dim": 4, "heads": 2, "layers": 1, "feedforward": 4}, "item_hidden": 3, "rank": "probability"}
)


def saved(world, rules=RULES, settings=SAVED) -> tuple[dict[str, np.ndarray], HSRLPolicy]:
    """A run's arrays by name, as the RLModule saves them, and the greedy policy that it served."""
    codebook, tokens = fit_codebook(world.item_features[1:].numpy(), SidSettings(levels=2, codebook_size=4))
    tokens = np.concatenate([np.full((1, 2), -1, np.int32), tokens])
    centres = [torch.from_numpy(c) for c in codebook.centres]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        networks = HSRLNetworks(world.profiles.shape[1], 5, rules.history_length, centres, settings)
        with torch.no_grad():
            for weight in networks.parameters():
                weight += 0.3 * torch.randn_like(weight)
    weights = {f"networks.{name}": value.numpy() for name, value in networks.state_dict().items()}
    weights |= {"sid_tokens": tokens, "sid_mean": codebook.mean, "sid_scale": codebook.scale, "sid_beam": 1}
    trie = Trie(tokens, codebook.sizes, world.item_features)
    forbid = rules.repeats == "forbid"
    return weights, HSRLPolicy(networks, world.profiles, trie, world.slate_size, forbid, settings)


@pytest.fixture
def make_world(small_world):
    def make(items: int = 20, features: int = 5, **more):
        return small_world(items=items, slate=3, profile_features=3, item_features=features, **more)

    return make


@pytest.mark.parametrize("repeats", ["allow", "forbid"])
def test_a_saved_run_serves_the_same_slates(make_world, repeats):
    world, rules = make_world(), WorldSettings(repeats=repeats, history_length=5)
    weights, policy = saved(world, rules)
    loaded = HSRLPolicy.load(weights, world, rules, SAVED)
    observation = Simulator(world, rules, 16, seed=0).observation
    slate = loaded.act(observation).slate
    assert torch.equal(slate, policy.act(observation).slate)
    assert not loaded.networks.training and loaded.forbid_repeats == (repeats == "forbid")
    weights["networks.policy.mu.bias"] = -weights["networks.policy.mu.bias"] - 1
    assert not torch.equal(HSRLPolicy.load(weights, world, rules, SAVED).act(observation).slate, slate)


def test_items_that_came_later_are_encoded_and_can_be_shown(make_world):
    world = make_world(20)
    weights, _ = saved(world)
    grown = make_world(22)
    grown.item_features[:21] = world.item_features
    grown.item_features[21], grown.item_features[22] = world.item_features[7], world.item_features[3]
    loaded = HSRLPolicy.load(weights, grown, RULES, SAVED)
    assert loaded.trie.num_items == 22
    for new, twin in ((21, 7), (22, 3)):  # what looks the same has the same ID
        assert torch.equal(loaded.trie.path[new, :-1], loaded.trie.path[twin, :-1])
    observation = Simulator(grown, RULES, 16, seed=0).observation
    everything = HSRLPolicy(loaded.networks, grown.profiles, loaded.trie, 22, False, SAVED)
    assert everything.act(observation).slate.sort(dim=1).values.tolist() == [list(range(1, 23))] * 16
    # The old ones keep the tokens that were saved, whatever their features would be encoded to now.
    weights["sid_tokens"] = weights["sid_tokens"].copy()
    weights["sid_tokens"][1] = (weights["sid_tokens"][1] + 1) % 4
    moved = HSRLPolicy.load(weights, grown, RULES, SAVED).trie
    assert moved.token[1][moved.path[1, 0]] == weights["sid_tokens"][1, 0]


def test_later_items_are_encoded_with_the_beam_of_the_codebook(make_world):
    world, grown = make_world(20), make_world(80)
    grown.item_features[:21] = world.item_features
    weights, _ = saved(world)
    centres = tuple(weights[f"networks.policy.centres_{level}"] for level in range(2))
    encoded = {}
    for beam in (1, 4):
        trie = HSRLPolicy.load(weights | {"sid_beam": np.array(beam)}, grown, RULES, SAVED).trie
        found = [trie.token[level + 1][trie.path[21:, level]] for level in range(2)]
        encoded[beam] = torch.stack(found, dim=1).tolist()
        codebook = Codebook(weights["sid_mean"], weights["sid_scale"], centres, beam)
        assert encoded[beam] == codebook.encode(grown.item_features[21:].numpy()).tolist()
    assert encoded[1] != encoded[4]


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda w: w.pop("sid_mean"), r"hold no sid_mean: they are not those of hsrl$"),
        (lambda w: w.pop("sid_tokens"), r"hold no sid_tokens: they are not those of hsrl$"),
        (lambda w: w.clear(), r"they are not those of hsrl$"),
        (lambda w: w.pop("networks.policy.mu.weight"), r"do not fit this simulator's features or history_len"),
    ],
)
def test_weights_of_another_algorithm_are_refused_in_one_line(make_world, spoil, message):
    world = make_world()
    weights, _ = saved(world)
    spoil(weights)
    with pytest.raises(UserError, match=message) as caught:
        HSRLPolicy.load(weights, world, RULES, SAVED)
    assert "\n" not in str(caught.value)


def test_weights_of_hac_are_refused_in_one_line(make_world):
    world = make_world()
    weights = {"networks.item_encoder.linear.weight": np.zeros((4, 5)), "networks.response_bias": np.zeros(())}
    with pytest.raises(UserError, match="they are not those of hsrl") as caught:
        HSRLPolicy.load(weights, world, RULES, SAVED)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", [{"items": 19}, {"features": 6}])
def test_a_world_that_does_not_fit_is_refused_in_one_line(make_world, change):
    weights, _ = saved(make_world())
    with pytest.raises(UserError) as caught:
        HSRLPolicy.load(weights, make_world(**change), RULES, SAVED)
    assert "\n" not in str(caught.value)


def test_another_history_length_is_refused_in_one_line(make_world):
    world = make_world()
    weights, _ = saved(world)
    with pytest.raises(UserError, match="history_length=7") as caught:
        HSRLPolicy.load(weights, world, WorldSettings(repeats="allow", history_length=7), SAVED)
    assert "\n" not in str(caught.value)


def test_noise_on_the_query_is_part_of_what_is_stored(make_agent, observe):
    """E_b[π/b] = 1 for every token: the draws of the noisy policy are a proposal for the one that learns."""
    agent = make_agent(sigma=0.5, exclusions="off")
    observation = observe()
    observation = observation._replace(
        user=observation.user.repeat(700), history=observation.history.repeat(700, 1)
    )
    decision = agent.policy(seed=0, slate=1).act(observation)
    predictions = agent.predict(with_next(observation, decision))
    ratio = (predictions.log_prob - decision.extras["log_prob"]).sum(dim=-1).exp()
    assert ratio.std() > 0.1, "another policy than the one that learns"
    assert ratio.mean().item() == pytest.approx(1.0, abs=0.03)


def test_slots_of_a_slate_share_one_noise_and_greedy_slates_have_none(make_agent, observe):
    """In one bucket, with noise beyond all scores and no chance in the draws, it is a random query's best."""
    agent = make_agent(sigma=1e3, temperature=1e-2, rank="score", sizes=(1, 1))
    observation = observe()
    still = agent._replace(settings=agent.settings.model_copy(update={"sigma": 0.0}))
    assert torch.equal(agent.policy().act(observation).slate, still.policy().act(observation).slate)
    policy, noise = agent.policy(seed=3), torch.Generator().manual_seed(3)
    state, tables = agent.encode(observation.user, observation.history)
    query = state.mu + 1e3 * torch.randn(state.mu.shape, generator=noise)
    best = agent.networks.policy.scores(query, tables, agent.trie, torch.arange(1, 13).expand(6, -1))
    assert torch.equal(policy.act(observation).slate, best.topk(3, dim=1).indices + 1)
