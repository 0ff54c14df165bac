"""Every algorithm: it solves a small world, serves what it saved, and shows only what may be shown."""

from typing import Any

import pytest
import torch

from envs.simulator import Simulator
from envs.transition import Observation
from envs.world import World
from envs.world_settings import WorldSettings
from rl_rec.agents import AGENTS, find_agent
from rl_rec.replay import Replay
from rl_rec.rollout import Rollout
from rl_rec.transitions import Transitions
from tests.agents.by_hand import RULES, SMALL, make_module, moved_by, reached, train

pytestmark = pytest.mark.ray  # no session, but the import

SOLVES: dict[str, dict[str, Any]] = {
    "hac": {},
    "hsrl": {"sid_levels": 2, "sid_codebook": 4},
    "ddpg": {},
    "ddpg-ra": {},
    "td3": {},
    "wolpertinger": {"neighbours": 16},
    "slateq": {},
    "a2c": {},
    "item-a2c": {},
    "supervised": {},
}


def test_every_algorithm_is_here():
    assert set(SOLVES) == set(AGENTS) - {"supervised-offline"}  # which has logs to learn from, not a world


@pytest.mark.learning
@pytest.mark.parametrize("name", SOLVES)
def test_it_tells_two_kinds_of_users_apart(two_kinds, name):
    module = make_module(name, two_kinds, **SOLVES[name])
    assert reached(two_kinds, module.rollout_policy(two_kinds, RULES, None)) < 0.7  # it did not know before
    assert reached(two_kinds, train(module, two_kinds, RULES, 300)) > 0.8


def far_sighted(name: str) -> dict[str, Any]:
    """Settings with which what follows counts."""
    return {"gamma": 0.9, **({"credit_unit": "slate"} if name == "hsrl" else {})}


@pytest.mark.parametrize("name", SOLVES)
@pytest.mark.parametrize("explores", [False, True])
def test_it_shows_only_what_may_be_shown(small_world, name, explores):
    rules = WorldSettings(
        history_length=6, max_steps=5, candidates=9, catalogue={"withheld": 0.3, "churn": 0.1}
    )
    world = small_world(items=30, users=20)
    noise = torch.Generator().manual_seed(0) if explores else None
    policy = make_module(name, world, rules, **SOLVES[name]).rollout_policy(world, rules, noise)
    simulator = Simulator(world, rules, 16, seed=0)
    for _ in range(8):
        policy.weights_changed()
        seen = simulator.observation
        slate = policy.act(seen).slate
        assert slate.shape == (16, 4)
        # Candidates can be used up, but not before five are left.
        left = [
            (set(seen.candidates[row].tolist()) - set(seen.history[row].tolist()))
            & set(seen.live.nonzero().flatten().tolist())
            for row in range(16)
        ]
        for row, allowed in enumerate(left):
            shown = slate[row].tolist()
            assert len(set(shown) & allowed) == min(len(allowed), 4)
        simulator.step(slate)


@pytest.mark.parametrize("name", SOLVES)
def test_what_was_saved_serves_the_same_slates(small_world, name):
    rules = WorldSettings(history_length=6, max_steps=5)
    world = small_world(items=30, users=20)
    module = make_module(name, world, rules, **SOLVES[name])
    seen = Observation(torch.arange(20), torch.zeros(20, 6, dtype=torch.int64))
    expected = module.rollout_policy(world, rules, None).act(seen).slate
    weights = {key: value.numpy() for key, value in module.state_dict().items()}
    served = find_agent(name).load_policy(weights, world, rules, module.settings)
    assert torch.equal(served.act(seen).slate, expected)
    other = make_module(name, world, rules, seed=1, **SOLVES[name])
    assert not torch.equal(other.rollout_policy(world, rules, None).act(seen).slate, expected)


@pytest.mark.parametrize("name", SOLVES)
@pytest.mark.parametrize("catalogue", [{}, {"withheld": 0.3, "churn": 0.1}])
def test_losses_are_finite_and_move_every_weight(small_world, name, catalogue):
    """Also where items that were shown have been retired since."""
    rules = WorldSettings(history_length=6, max_steps=5, catalogue=catalogue)
    world = small_world(items=30, users=20)
    module = make_module(name, world, rules, **SOLVES[name])
    policy = module.rollout_policy(world, rules, torch.Generator().manual_seed(0))
    replay = Replay(400, 0)
    replay.add(Rollout(Simulator(world, rules, 16, 0), policy).collect(20))
    batch = Transitions(**replay.sample(64))
    terms, watched = module.loss_terms(module.predict(batch), batch)
    assert all(value.isfinite() for value in {**terms, **watched}.values())
    torch.stack(list(terms.values())).sum().backward()
    groups = module.parameter_groups()
    grouped = {id(weight) for weights, _ in groups.values() for weight in weights}
    assert grouped == {id(weight) for weight in module.networks.parameters()}
    still = [
        key
        for key, weight in module.networks.named_parameters()
        if weight.grad is None or not weight.grad.any()
    ]
    assert [key for key in still if not _may_be_still(name, key)] == []


@pytest.mark.parametrize("name", SOLVES)
def test_losses_are_finite_where_budgets_leave_nothing_to_show(small_world, name):
    rules = WorldSettings(
        history_length=6,
        max_steps=5,
        leaving="never",
        candidates=9,
        candidates_per="request",
        retrieval=1.0,
        budgets={"clicks": 1.0, "day": 1000},
    )
    world = small_world(items=30, users=20, logits=[2.0] * 30)
    module = make_module(name, world, rules, **SOLVES[name])
    policy = module.rollout_policy(world, rules, torch.Generator().manual_seed(0))
    columns = Rollout(Simulator(world, rules, 16, 0), policy).collect(6)
    assert not columns["candidates"][-16:].any(), "every item has been clicked"
    batch = Transitions(**columns)
    terms, watched = module.loss_terms(module.predict(batch), batch)
    assert all(value.isfinite() for value in {**terms, **watched}.values())
    torch.stack(list(terms.values())).sum().backward()
    grads = [weight.grad for weight in module.networks.parameters() if weight.grad is not None]
    assert all(grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize("name", SOLVES)
def test_signals_are_read_now_and_afterwards(small_world, name):
    """What came before a slate moves the predictions about it, what came after it the targets alone."""
    rules = WorldSettings(history_length=6, max_steps=5, signals=True)
    world = small_world(items=30, users=20)
    settings = {**SOLVES[name], **({} if name.startswith("supervised") else far_sighted(name))}
    module = make_module(name, world, rules, **settings)
    policy = module.rollout_policy(world, rules, torch.Generator().manual_seed(0))
    batch = Transitions(**Rollout(Simulator(world, rules, 16, 0), policy).collect(6))
    assert batch.signals is not None and batch.next_signals is not None

    def moved(changed: Transitions) -> set[str]:
        with torch.no_grad():
            before, after = module.predict(batch)._asdict(), module.predict(changed)._asdict()
        return {
            key
            for key, value in before.items()
            if isinstance(value, torch.Tensor) and not torch.equal(value, after[key])
        }

    by_now = moved(batch._replace(signals=batch.signals + 1.0))
    by_then = moved(batch._replace(next_signals=batch.next_signals + 1.0))
    assert by_now
    assert bool(by_then) != name.startswith("supervised")
    if name != "ddpg-ra":  # its action is inferred from both states
        assert not by_now & by_then


def _may_be_still(name: str, key: str) -> bool:
    """HSRL's last context is read by critics alone, past a ``detach``; DDPG's items are a random projection."""
    return key.startswith({"hsrl": "policy.norms.1.", "ddpg": "item_encoder."}.get(name, "-"))


def with_batch(name: str, world: World, rules: WorldSettings, **settings: Any) -> tuple[Any, Transitions]:
    """A module, and transitions that it made while exploring."""
    module = make_module(name, world, rules, **{**SOLVES[name], **settings})
    policy = module.rollout_policy(world, rules, torch.Generator().manual_seed(0))
    return module, Transitions(**Rollout(Simulator(world, rules, 16, 0), policy).collect(6))


def target(module: Any, batch: Transitions) -> torch.Tensor:
    """What a batch is to be worth: y, or the value of what follows."""
    predictions = module.predict(batch)
    predictions = getattr(predictions, "ddpg", predictions)
    return predictions.future if hasattr(predictions, "future") else predictions.target


CRITICS = sorted(set(SOLVES) - {"supervised"})


@pytest.mark.parametrize("name", CRITICS)
def test_targets_are_those_of_the_target_networks_in_the_next_state(small_world, name):
    rules = WorldSettings(history_length=6, max_steps=5)
    module, batch = with_batch(name, small_world(items=30, users=20), rules, **far_sighted(name))
    y = target(module, batch)
    assert not y.requires_grad
    assert torch.equal(target(module, batch._replace(history=batch.history.flip(0))), y)
    assert not torch.equal(target(module, batch._replace(next_history=batch.next_history.flip(0))), y)
    with torch.no_grad():
        for weight in module.networks.parameters():
            weight.add_(0.1)
    assert torch.equal(target(module, batch), y)
    with torch.no_grad():
        for weight in module.targets.parameters():
            weight.add_(0.1)
    assert not torch.equal(target(module, batch), y)


SHAPED_BY_VALUES = {
    "slateq": {"encoder", "levels", "value_encoder", "value_head"},
    "wolpertinger": {"item_encoder"},
}
"""What TD learning moves besides critics."""


@pytest.mark.parametrize("name", sorted(set(CRITICS) - {"hsrl"}))
def test_td_learning_moves_critics_and_policies_leave_them(small_world, name):
    rules = WorldSettings(history_length=6, max_steps=5)
    module, batch = with_batch(name, small_world(items=30, users=20), rules)

    def moved(term: str) -> set[str]:
        terms, _ = module.loss_terms(module.predict(batch), batch)
        return moved_by(module, terms[term])

    assert moved("td") == SHAPED_BY_VALUES.get(name, set()) | ({"critic"} if name != "slateq" else set())
    if name != "slateq":
        assert "critic" not in moved("policy") and "encoder" in moved("policy")
        # The policy's gradient reaches the state through the action alone.
        actor = module.networks.hyper_actor
        with torch.no_grad():
            (actor[0] if isinstance(actor, torch.nn.Sequential) else actor).weight.zero_()
        assert "encoder" not in moved("policy") and "hyper_actor" in moved("policy")


def test_representations_come_from_both_states_and_shape_neither(small_world):
    rules = WorldSettings(history_length=6, max_steps=5)
    module, batch = with_batch("ddpg-ra", small_world(items=30, users=20), rules)
    told = module.predict(batch).slate_log_prob
    for name in ("history", "next_history"):
        other = batch._replace(**{name: getattr(batch, name).flip(0)})
        assert not torch.equal(module.predict(other).slate_log_prob, told)
    terms, _ = module.loss_terms(module.predict(batch), batch)
    assert moved_by(module, terms["representation"]) == {"inverse_model", "item_encoder"}


@pytest.mark.parametrize("name", SOLVES)
def test_dropout_drops_in_learning_alone(small_world, name):
    rules = WorldSettings(history_length=6, max_steps=5)
    encoder = {**SMALL["encoder"], "dropout": 0.5}
    module, batch = with_batch(name, small_world(items=30, users=20), rules, encoder=encoder)

    def loss() -> list[float]:
        terms, _ = module.loss_terms(module.predict(batch), batch)
        return [float(term.detach()) for term in terms.values()]

    without = loss()
    assert loss() == without
    module.noise = torch.Generator().manual_seed(0)
    assert loss() != without


@pytest.mark.parametrize("name", ["a2c", "item-a2c", "ddpg-ra"])
def test_what_was_liked_already_takes_no_mass(small_world, name):
    rules = WorldSettings(history_length=6, max_steps=5)
    module, batch = with_batch(name, small_world(items=30, users=20), rules)
    assert module.forbid_repeats
    predictions = module.predict(batch)
    module.forbid_repeats = False
    everything = module.predict(batch)
    key = "slate_log_prob" if name == "ddpg-ra" else "log_prob"
    liked = (batch.history > 0).any(dim=1)
    assert (getattr(predictions, key)[liked, 0] > getattr(everything, key)[liked, 0]).all()


@pytest.mark.parametrize("name", SOLVES)
def test_used_up_candidates_break_nothing(small_world, name):
    """Five candidates for slates of four: after a few clicks there are too few."""
    rules = WorldSettings(history_length=6, max_steps=8, candidates=5)
    module, batch = with_batch(name, small_world(items=30, users=20, logits=[3.0] * 30), rules)
    terms, watched = module.loss_terms(module.predict(batch), batch)
    assert all(value.isfinite() for value in {**terms, **watched}.values())
    torch.stack(list(terms.values())).sum().backward()
    gradients = [weight.grad for weight in module.networks.parameters() if weight.grad is not None]
    assert gradients and all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("name", SOLVES)
def test_nothing_is_of_the_size_of_users_times_items_times_width(small_world, name, largest_tensor):
    users, items, width = 16, 6_000, 8
    rules = WorldSettings(history_length=6, max_steps=5)
    world = small_world(items=items, users=20)
    module = make_module(name, world, rules, **SOLVES[name])
    policy = module.rollout_policy(world, rules, torch.Generator().manual_seed(0))
    rollout = Rollout(Simulator(world, rules, users, 0), policy)
    batch = Transitions(**rollout.collect(1))

    def update() -> None:
        terms, _ = module.loss_terms(module.predict(batch), batch)
        torch.stack(list(terms.values())).sum().backward()

    for call in (update, lambda: policy.act(rollout.simulator.observation)):
        assert largest_tensor(call) < users * items * width / 2
