"""HSRL's losses against numbers worked out by hand, and where each gradient goes."""

import math

import pytest
import torch
from torch import Tensor

from rl_rec.hsrl import losses as hsrl
from rl_rec.hsrl.config import HSRLSettings
from rl_rec.hsrl.losses import Predictions, predict
from rl_rec.policy_gradient import policy_gradient_loss
from rl_rec.transitions import Transitions

ALL_TERMS = {"td", "policy", "entropy", "cloning", "supervision", "consistency"}


def hand_batch(**changes: Tensor) -> Transitions:
    """Two transitions with slates of two; the second user left."""
    batch = Transitions(
        user=torch.tensor([0, 1]),
        history=torch.zeros(2, 5, dtype=torch.int64),
        slate=torch.tensor([[1, 2], [3, 4]]),
        click=torch.tensor([[True, False], [False, False]]),
        reward=torch.tensor([0.45, -0.1]),
        terminated=torch.tensor([False, True]),
        next_history=torch.zeros(2, 5, dtype=torch.int64),
    )
    return batch._replace(**changes)


def hand_predictions(**changes: Tensor) -> Predictions:
    """One transition, two slots, three tokens: values 1, 2, 3 and weights ½, ¼, ¼."""
    predictions = Predictions(
        log_prob=torch.full((1, 2, 3), 0.5).log(),
        values=torch.tensor([[[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]]),
        weights=torch.tensor([0.5, 0.25, 0.25]),
        future=torch.zeros(1),
        entropy=torch.ones(1, 2),
        response_logits=torch.zeros(1, 2),
        gap=torch.zeros(1, 2),
        valid=torch.ones(1, 2, dtype=torch.bool),
    )
    return predictions._replace(**changes)


# --- the target ---------------------------------------------------------------------------------------


def test_target_of_a_slot_is_its_own_response():
    target = hsrl.td_target(hand_batch(), torch.zeros(2), HSRLSettings(gamma=0, credit_unit="slot"))
    torch.testing.assert_close(target, torch.tensor([[1, -0.1], [-0.1, -0.1]]))


def test_target_of_a_slate_is_its_reward_and_the_next_value_unless_the_user_left():
    """Bootstrapping where the user left, and nowhere else, is what the published code does."""
    settings = HSRLSettings(gamma=0.9, credit_unit="slate")
    target = hsrl.td_target(hand_batch(), torch.tensor([2.0, 100.0]), settings)
    torch.testing.assert_close(target, torch.tensor([[0.45 + 1.8, 0.45 + 1.8], [-0.1, -0.1]]))


def test_a_slate_s_mean_response_is_its_reward():
    """What the slots are credited with adds up to the environment's reward."""
    settings = HSRLSettings(gamma=0.0, credit_unit="slot")
    batch = hand_batch()
    assert hsrl.td_target(batch, torch.zeros(2), settings).mean(dim=1).tolist() == pytest.approx([0.45, -0.1])


# --- values by hand -----------------------------------------------------------------------------------

ONE = torch.ones(1, 2)


def test_td_loss_is_the_squared_error_of_the_weighted_sum():
    # V = ½·1 + ¼·2 + ¼·3 = 1.75; the errors of targets 2 and 0.75 are −0.25 and 1.
    p = hand_predictions()
    loss = hsrl.td_loss(p.values, p.weights, torch.tensor([[2.0, 0.75]]), ONE, 0.0)
    assert loss.item() == pytest.approx((0.0625 + 1) / 2)


def test_td_loss_adds_each_level_s_own_regression():
    # (V_l − 2)²: 1, 0, 1, mean 2/3. (V_l − 0.75)²: 0.0625, 1.5625, 5.0625, mean 2.229167.
    p = hand_predictions()
    loss = hsrl.td_loss(p.values, p.weights, torch.tensor([[2.0, 0.75]]), ONE, 0.5)
    assert loss.item() == pytest.approx((0.0625 + 1) / 2 + 0.5 * (2 / 3 + 2.2291667) / 2, rel=1e-6)


def test_one_critic_is_not_trained_twice():
    values, target = torch.tensor([[[1.0], [2.0]]]), torch.tensor([[2.0, 0.0]])
    loss = hsrl.td_loss(values, torch.ones(1), target, ONE, 7.0)
    assert loss.item() == (1 + 4) / 2


def test_td_loss_leaves_out_what_was_not_shown():
    p = hand_predictions()
    loss = hsrl.td_loss(p.values, p.weights, torch.tensor([[99.0, 0.75]]), torch.tensor([[0.0, 1.0]]), 0.0)
    assert loss.item() == pytest.approx(1.0)


def test_weights_learn_through_the_weighted_sum_alone():
    # d(V − y)²/dw_l = 2·(V − y)·V_l, mean over the slots: −0.25·V_l and 1·V_l → 0.75·(1, 2, 3).
    p = hand_predictions()
    for level_weight in (0.0, 1.0):
        weights = p.weights.clone().requires_grad_()
        hsrl.td_loss(p.values, weights, torch.tensor([[2.0, 0.75]]), ONE, level_weight).backward()
        torch.testing.assert_close(weights.grad, 0.75 * torch.tensor([1.0, 2.0, 3.0]))


def test_each_level_is_credited_with_what_it_added_to_the_value_above_it():
    # y = 2 and 0.75: 3·w_l·(y − V_l).
    credit = hsrl.advantages(
        hand_predictions(), torch.tensor([[2.0, 0.75]]), HSRLSettings(credit="level", multi_level_critic=True)
    )
    expected = torch.tensor([[[1.5, 0.0, -0.75], [-0.375, -0.9375, -1.6875]]])
    torch.testing.assert_close(credit, expected)


def test_aggregate_credit_is_the_same_for_every_level():
    credit = hsrl.advantages(hand_predictions(), torch.tensor([[2.0, 0.75]]), HSRLSettings(credit="aggregate"))
    torch.testing.assert_close(credit, torch.tensor([[[0.25] * 3, [-1.0] * 3]]))


def test_one_critic_credits_every_level_with_the_same():
    one = hand_predictions(values=torch.tensor([[[1.0], [3.0]]]), weights=torch.ones(1))
    credit = hsrl.advantages(one, torch.tensor([[2.0, 2.0]]), HSRLSettings(credit="level"))
    torch.testing.assert_close(credit, torch.tensor([[[1.0] * 3, [-1.0] * 3]]))


@pytest.mark.parametrize("level", range(3))
def test_a_level_s_value_changes_its_own_advantage_alone(level):
    target = torch.tensor([[2.0, 0.75]])
    p = hand_predictions()
    values = p.values.clone()
    values[..., level] += 1.0
    for settings, changed in (
        (HSRLSettings(credit="level"), [k == level for k in range(3)]),
        (HSRLSettings(credit="aggregate"), [True] * 3),
    ):
        before = hsrl.advantages(p, target, settings)
        after = hsrl.advantages(p._replace(values=values), target, settings)
        assert ((after != before).all(dim=1))[0].tolist() == changed


def test_advantages_hold_no_gradient():
    p = hand_predictions()
    p = p._replace(values=p.values.requires_grad_(), weights=p.weights.requires_grad_())
    for credit in ("level", "aggregate"):
        assert not hsrl.advantages(p, torch.ones(1, 2), HSRLSettings(credit=credit)).requires_grad


def test_cloning_is_the_mean_over_clicks():
    log_prob = torch.tensor([[[-1.0, -3.0], [-5.0, -7.0], [-2.0, -2.0]]])
    assert hsrl.cloning_loss(log_prob, torch.tensor([[1.0, 0.0, 1.0]])).item() == (2 + 2) / 2
    assert hsrl.cloning_loss(log_prob, torch.zeros(1, 3)).item() == 0.0


def test_supervision_is_the_cross_entropy_of_each_slot_that_was_shown():
    logits = torch.tensor([[0.0, 3.0, -9.0]]).relu().log1p()  # ln 1 → probability ½, ln 4 → ⅘
    click, valid = torch.tensor([[True, False, True]]), torch.tensor([[1.0, 1.0, 0.0]])
    loss = hsrl.supervision_loss(logits, click, valid)
    assert loss.item() == pytest.approx((0.693147 + 1.609438) / 2, abs=1e-6)  # −ln ½, −ln ⅕


def test_supervision_may_be_by_value():
    # ½ + v/8 of 2 and −1: 0.75 and 0.375, at logits ln 3 and 0; softplus(ln 3) = ln 4.
    batch = hand_batch(value=torch.tensor([[2.0, 9.0], [-1.0, 9.0]]), log_prob=torch.zeros(2, 2, 3))
    p = hand_predictions(
        response_logits=torch.tensor([[math.log(3), 5.0], [0.0, 5.0]]),
        valid=torch.tensor([[True, False], [True, False]]),
    )
    settings = HSRLSettings(value_scale=4.0, supervision_weight=2.0, policy_weight=0.0)
    expected = (math.log(4) - 0.75 * math.log(3)) + math.log(2)  # twice their mean
    assert hsrl.losses(p, batch, settings)["supervision"].item() == pytest.approx(expected, abs=1e-6)


def test_a_slot_s_gain_is_the_money_it_moved():
    # A click that cost 0.5, a miss that is worth nothing, a click of 0.5·3 that brought 30.
    batch = hand_batch(value=torch.tensor([[-0.5, 0.0], [28.5, 0.0]]))
    target = hsrl.td_target(batch, torch.zeros(2), HSRLSettings(gamma=0.0, credit_unit="slot"))
    torch.testing.assert_close(target, torch.tensor([[-0.5, 0.0], [28.5, 0.0]]))


def test_consistency_is_the_variance_within_a_slate():
    # (1, 3): 1 and 1. (2, 6) and one that is not valid: 4 and 4.
    gap = torch.tensor([[1.0, 3.0, 0.0], [2.0, 6.0, 50.0]])
    valid = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]])
    assert hsrl.consistency_loss(gap, valid).item() == pytest.approx((1 + 1 + 4 + 4) / 4)


def test_consistency_is_zero_where_log_probability_and_score_differ_by_a_constant():
    valid = torch.ones(2, 3)
    assert hsrl.consistency_loss(torch.tensor([[-2.0] * 3, [5.0] * 3]), valid).item() == 0.0
    assert hsrl.consistency_loss(torch.zeros(2, 3), torch.zeros(2, 3)).item() == 0.0


# --- the terms ----------------------------------------------------------------------------------------


def test_weights_scale_their_terms(make_agent, make_batch):
    batch = make_batch()
    scales = {
        "policy_weight": 0.5,
        "entropy_weight": 0.25,
        "cloning_weight": 2.0,
        "supervision_weight": 3.0,
        "consistency_weight": 4.0,
    }
    agent = make_agent(temperature=0.5, level_value_weight=0.7, **scales)
    p = agent.predict(batch)
    valid, settings = p.valid.float(), agent.settings
    terms = hsrl.losses(p, batch, settings)
    assert set(terms) == ALL_TERMS
    target = hsrl.td_target(batch, p.future, settings)
    credit = hsrl.advantages(p, target, settings)
    tokens = valid[..., None].expand_as(credit)
    expected = {
        "td": hsrl.td_loss(p.values, p.weights, target, valid, 0.7),
        "policy": 0.5 * policy_gradient_loss(p.log_prob, batch.log_prob, credit, tokens, 1.0),
        "entropy": -0.25 * p.entropy[p.valid].mean(),
        "cloning": 2 * hsrl.cloning_loss(p.log_prob, batch.click * valid),
        "supervision": 3 * hsrl.supervision_loss(p.response_logits, batch.click, valid),
        "consistency": 4 * hsrl.consistency_loss(0.5 * p.gap, valid),
    }
    for name, term in terms.items():
        torch.testing.assert_close(term, expected[name])


@pytest.mark.parametrize("name", sorted(ALL_TERMS - {"td"}))
def test_a_weight_of_zero_removes_its_term(make_agent, make_batch, name):
    agent, batch = make_agent(**{f"{name}_weight": 0.0}), make_batch()
    assert set(hsrl.losses(agent.predict(batch), batch, agent.settings)) == ALL_TERMS - {name}


def test_without_a_policy_gradient_no_stored_probabilities_are_needed(make_agent, make_batch):
    agent, batch = make_agent(policy_weight=0.0), make_batch()._replace(log_prob=None)
    assert "policy" not in hsrl.losses(agent.predict(batch), batch, agent.settings)


def test_more_entropy_is_a_smaller_loss():
    batch = hand_batch(slate=torch.ones(1, 2), click=torch.zeros(1, 2, dtype=torch.bool))
    batch = Transitions(*(x[:1] if isinstance(x, Tensor) else x for x in batch))
    batch = batch._replace(log_prob=torch.zeros(1, 2, 3))
    settings = HSRLSettings(entropy_weight=0.1)
    p = hand_predictions(entropy=torch.tensor([[1.0, 3.0]]), valid=torch.tensor([[True, False]]))
    assert hsrl.losses(p, batch, settings)["entropy"].item() == pytest.approx(-0.1)


# --- where gradients go -------------------------------------------------------------------------------

VARIANTS = [
    {},
    {"context": "expected"},
    {"context": "state", "node_scores": False},
    {"multi_level_critic": False},
    {"credit": "aggregate", "credit_unit": "slate"},
]


def moved(agent, batch: Transitions, term: str, forbid: bool = False) -> set[str]:
    """Parts of the networks that the gradient of one term reaches."""
    agent.networks.zero_grad(set_to_none=True)
    hsrl.losses(agent.predict(batch, forbid), batch, agent.settings)[term].backward()
    names = set()
    for name, parameter in agent.networks.named_parameters():
        if parameter.grad is not None and parameter.grad.abs().max() > 1e-9:
            part, _, rest = name.partition(".")
            names.add(rest.partition(".")[0] if part == "policy" or rest == "omega" else part)
    return names


CRITIC = {"critic", "omega"}
TREE = {"encoder", "mu", "nu", "item_encoder", "item_score", "node_encoder", "heads", "free", "centre_maps"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_td_reaches_the_critic_only(make_agent, make_batch, variant):
    agent = make_agent(**variant)
    several = agent.settings.multi_level_critic
    assert moved(agent, make_batch(), "td") == (CRITIC if several else {"critic"})


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("term", sorted(ALL_TERMS - {"td"}))
def test_no_other_term_reaches_critic_or_omega(make_agent, make_batch, variant, term):
    reached = moved(make_agent(**variant), make_batch(), term)
    assert reached and not reached & CRITIC


@pytest.mark.parametrize("term", ["policy", "entropy", "cloning"])
def test_the_policy_s_terms_reach_all_of_the_tree(make_agent, make_batch, term):
    assert moved(make_agent(), make_batch(), term) == TREE | {"norms"}


def test_supervision_reaches_what_items_are_scored_with(make_agent, make_batch):
    expected = {"encoder", "mu", "item_encoder", "item_score", "response_level"}
    assert moved(make_agent(), make_batch(), "supervision") == expected


@pytest.mark.parametrize("context", ["sampled", "expected", "state"])
def test_consistency_moves_what_nodes_have_besides_their_items(make_agent, make_batch, context):
    reached = moved(make_agent(context=context), make_batch(), "consistency")
    norms = set() if context == "state" else {"norms"}
    assert reached == {"node_encoder", "nu", "heads", "free", "centre_maps"} | norms


def test_two_heads_learn_from_one_loss_each(make_agent, make_batch):
    def heads(term: str) -> set[str]:
        agent, batch = make_agent(residual=0.5), make_batch()
        hsrl.losses(agent.predict(batch), batch, agent.settings)[term].backward()
        names = agent.networks.named_parameters()
        return {name.rpartition(".")[0] for name, p in names if p.grad is not None and p.grad.any()}

    for term in ("policy", "entropy"):
        assert heads(term) == {"policy.mu.residual.0", "policy.mu.residual.2"}
    for term in ("supervision", "consistency"):
        assert not any(name.startswith("policy.mu.residual") for name in heads(term))
    assert "policy.mu.base" in heads("supervision")


def test_two_heads_supervise_the_first_and_draw_by_both(make_agent, make_batch):
    """Δ moves what is drawn and not what supervision sees."""
    agent, batch = make_agent(residual=0.5), make_batch()
    actor = agent.networks.policy.mu
    with torch.no_grad():
        actor.residual[-1].weight.zero_()
        actor.residual[-1].bias.zero_()
    nothing = agent.predict(batch)
    with torch.no_grad():
        actor.residual[-1].bias.fill_(1.0)
    something = agent.predict(batch)
    assert torch.equal(nothing.response_logits, something.response_logits)
    assert (nothing.log_prob != something.log_prob).any()


def test_targets_never_get_gradients(make_agent, make_batch):
    agent, batch = make_agent(), make_batch()
    agent.targets.requires_grad_(True)  # even if somebody forgot to freeze them
    sum(hsrl.losses(agent.predict(batch), batch, agent.settings).values()).backward()
    assert all(parameter.grad is None for parameter in agent.targets.parameters())


def test_every_parameter_learns(make_agent, make_batch):
    agent, batch = make_agent(), make_batch(32)
    sum(hsrl.losses(agent.predict(batch), batch, agent.settings).values()).backward()
    idle = [name for name, p in agent.networks.named_parameters() if p.grad is None or not p.grad.any()]
    # The last level's context is read by its critic alone, and that without a gradient.
    assert idle == ["policy.norms.1.weight", "policy.norms.1.bias"]


# --- predictions --------------------------------------------------------------------------------------


def test_values_are_those_of_each_slot_s_own_contexts(make_agent, make_batch, plain_policy):
    agent, batch = make_agent(), make_batch()
    p = agent.predict(batch)
    state, _ = agent.encode(batch.user, batch.history)
    for row in range(3):
        leaves = plain_policy(agent, state.s[row])
        for slot, item in enumerate(batch.slate[row].tolist()):
            for level, context in enumerate(leaves[item].contexts):
                value = agent.networks.critic.values[level](context.float())
                torch.testing.assert_close(p.values[row, slot, level], value[0], atol=1e-4, rtol=1e-4)


def test_one_critic_has_one_value_for_all_slots(make_agent, make_batch):
    agent, batch = make_agent(multi_level_critic=False), make_batch()
    p = agent.predict(batch)
    state, _ = agent.encode(batch.user, batch.history)
    assert p.values.shape == (8, 3, 1) and p.weights.tolist() == [1.0]
    value = agent.networks.critic.values[0](state.s)
    torch.testing.assert_close(p.values[..., 0], value.expand(-1, 3))


@pytest.mark.parametrize("several", [True, False])
def test_future_is_the_target_s_value_of_the_same_user_s_next_state(
    make_agent, make_batch, plain_policy, several
):
    """Also where the user left: ``td_target`` leaves it out there, and there alone."""
    agent, batch = make_agent(multi_level_critic=several), make_batch()
    targets = agent._replace(networks=agent.targets)
    state, _ = targets.encode(batch.user, batch.next_history)
    future = agent.predict(batch).future
    for row in range(8):
        # Greedy from the root: the most probable token of each level.
        leaves = list(plain_policy(targets, state.s[row]).values())
        for level in (1, 2):
            best = max(float(leaf.log_joint[level]) for leaf in leaves)
            leaves = [leaf for leaf in leaves if float(leaf.log_joint[level]) == best]
        contexts = [context.float() for context in leaves[0].contexts]
        values = [value(c) for value, c in zip(agent.targets.critic.values, contexts, strict=False)]
        expected = (torch.cat(values) * agent.targets.critic.weights).sum()
        torch.testing.assert_close(future[row], expected, atol=1e-4, rtol=1e-4)


def test_nothing_is_bootstrapped_without_a_future(make_agent, make_batch):
    assert not make_agent(gamma=0.0).predict(make_batch()).future.any()


def test_states_are_encoded_with_today_s_weights_of_the_stored_user(make_agent, make_batch):
    agent, batch = make_agent(multi_level_critic=False), make_batch()
    before = agent.predict(batch)
    with torch.no_grad():
        agent.networks.policy.encoder.item.weight += 1.0
    after = agent.predict(batch)
    assert (before.values != after.values).any() and torch.equal(before.future, after.future)
    other = agent.predict(batch._replace(user=(batch.user + 1) % 6))
    assert (other.future != after.future).all()


def test_supervision_reads_the_scores_and_the_level(make_agent, make_batch, plain_policy):
    agent, batch = make_agent(temperature=0.5), make_batch()
    logits = agent.predict(batch).response_logits
    state, _ = agent.encode(batch.user, batch.history)
    level = agent.networks.policy.response_level(state.s)
    for row in range(3):
        leaves = plain_policy(agent, state.s[row])
        for slot, item in enumerate(batch.slate[row].tolist()):
            expected = 0.5 * leaves[item].score.item() + level[row].item()
            assert logits[row, slot].item() == pytest.approx(expected, abs=1e-4)


def test_gap_is_log_probability_less_score(make_agent, make_batch, plain_policy):
    agent, batch = make_agent(), make_batch()
    gap = agent.predict(batch, forbid_repeats=True).gap  # exclusions do not matter
    state, _ = agent.encode(batch.user, batch.history)
    for row in range(3):
        leaves = plain_policy(agent, state.s[row])
        for slot, item in enumerate(batch.slate[row].tolist()):
            expected = leaves[item].log_joint[-1] - leaves[item].score
            assert gap[row, slot].item() == pytest.approx(expected.item(), abs=1e-4)


def test_entropy_is_the_mean_over_the_levels_passed(make_agent, make_batch, plain_policy):
    agent, batch = make_agent(), make_batch()
    entropy = agent.predict(batch).entropy
    state, _ = agent.encode(batch.user, batch.history)
    for row in range(3):
        leaves = plain_policy(agent, state.s[row])
        for slot, item in enumerate(batch.slate[row].tolist()):
            expected = torch.stack(leaves[item].entropy).mean().item()
            assert entropy[row, slot].item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("exclusions", ["slots", "history", "off"])
def test_the_normaliser_leaves_out_what_the_settings_say(
    make_agent, make_batch, probabilities, token_log_probs, exclusions
):
    agent, batch = make_agent(exclusions=exclusions, temperature=4.0), make_batch()
    p = agent.predict(batch, forbid_repeats=True)
    state, _ = agent.encode(batch.user, batch.history)
    everything = set(range(1, 13))
    for row in range(4):
        slate, chance = batch.slate[row].tolist(), probabilities(agent, state.s[row])
        left = everything if exclusions == "off" else everything - set(batch.history[row].tolist())
        for slot, item in enumerate(slate):
            opened = left - set(slate[:slot]) if exclusions == "slots" else left
            assert bool(p.valid[row, slot]) == (item in left)
            if item in left:
                expected = token_log_probs(agent, chance, [item], [opened])[0]
                torch.testing.assert_close(p.log_prob[row, slot], torch.tensor(expected), atol=1e-3, rtol=1e-3)


def test_padding_reads_no_item(make_agent, make_batch):
    """Index −1 in place of 0 would read the last item, and an unmasked 0 the padding row."""
    agent, batch = make_agent(tokens=[[0, 0]] * 6 + [[1, 1]] * 6), make_batch()
    empty = torch.zeros_like(batch.history)
    empty[:, -1] = 3
    batch = batch._replace(history=empty, next_history=empty)

    def values() -> Tensor:
        agent.features[0] += 5.0
        return agent.encode(batch.user, batch.history)[0].s

    before = values()
    agent.features[-1] += 5.0
    assert torch.equal(values(), before)
    agent.features[3] += 5.0
    assert not torch.equal(values(), before)


def test_no_intermediate_of_an_update_is_as_large_as_batch_times_catalogue_times_width(
    make_agent, make_batch, largest_tensor
):
    items, rows, dim = 600, 32, 4
    for variant in VARIANTS:
        agent, batch = make_agent(items=items, sizes=(8, 8), **variant), make_batch(rows, items=items)

        def update(agent=agent, batch=batch) -> None:
            sum(hsrl.losses(agent.predict(batch, True), batch, agent.settings).values()).backward()

        assert largest_tensor(update) <= 2 * rows * (items + 1) < rows * items * dim


def test_no_term_reads_a_slot_that_is_not_valid():
    settings = HSRLSettings(gamma=0.0, credit_unit="slot", entropy_weight=1, cloning_weight=1, policy_weight=1)
    batch = Transitions(
        user=torch.zeros(1, dtype=torch.int64),
        history=torch.zeros(1, 5, dtype=torch.int64),
        slate=torch.tensor([[1, 2, 3]]),
        click=torch.ones(1, 3, dtype=torch.bool),
        reward=torch.ones(1),
        terminated=torch.tensor([False]),
        next_history=torch.zeros(1, 5, dtype=torch.int64),
        log_prob=torch.zeros(1, 3, 2),
    )
    x = torch.arange(6.0).view(1, 3, 2)
    parts = {
        "log_prob": -x,
        "values": x,
        "entropy": x[..., 0],
        "response_logits": x[..., 1],
        "gap": x[..., 0].square(),
    }
    fixed = {
        "weights": torch.tensor([0.5, 0.5]),
        "future": torch.zeros(1),
        "valid": torch.tensor([[True, True, False]]),
    }
    moved = {name: part.clone() for name, part in parts.items()}
    for part in moved.values():
        part[:, 2] -= 7.0
    one, other = (hsrl.losses(Predictions(**of, **fixed), batch, settings) for of in (parts, moved))
    assert len(one) == 6 and one == other


def test_dropout_is_on_while_learning_alone(make_agent, make_batch):
    agent = make_agent(encoder={"dim": 4, "heads": 2, "layers": 1, "feedforward": 4, "dropout": 0.5})
    batch = make_batch()

    def values(seed: int | None) -> Tensor:
        noise = None if seed is None else torch.Generator().manual_seed(seed)
        arguments = batch, agent.profiles, agent.trie, False, agent.settings, noise
        return predict(agent.networks, agent.targets, *arguments).values

    assert torch.equal(values(None), values(None)) and torch.equal(values(1), values(1))
    assert not torch.equal(values(1), values(2)) and not torch.equal(values(1), values(None))
