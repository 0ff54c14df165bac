"""Long-term effects by hand: trust, satiation, drift; and what may be observed of an episode."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from envs.data.behaviours import Behaviour
from envs.dynamics import Dynamics, item_trait
from envs.errors import UserError
from envs.signals import DECAYS, Signals, width
from envs.simulator import Simulator
from envs.world import World
from envs.world_settings import WorldSettings

MakeWorld = Callable[..., World]
ALWAYS = 40.0
NAMES = ("year", "genre=Action", "genre=Comedy", "genre=Drama")


@pytest.fixture
def films(small_world: MakeWorld) -> World:
    """Four films: action, action and comedy, drama, and one of no genre."""
    world = small_world(items=4, slate=2, item_features=4, logits=[0.5, -0.5, 1.0, 0.0])
    features = torch.tensor(
        [[0.0, 0, 0, 0], [3, 1, 0, 0], [1, 1, 1, 0], [2, 0, 0, 1], [7, 0, 0, 0]], dtype=torch.float32
    )
    return replace(world, item_features=features, item_feature_names=NAMES)


def rules(**dynamics: object) -> WorldSettings:
    return WorldSettings.from_mapping(
        {"history_length": 3, "repeats": "allow", "max_steps": 5, "dynamics": dynamics}
    )


def test_the_trait_by_hand(films: World):
    trait = item_trait(films, ("+genre=Action", "-genre=Drama"))

    # Per film: 1/1, 1/2, -1/1, 0 over one at least: mean 0.125, deviation sqrt(0.546875).
    assert trait.tolist() == pytest.approx([0, 1.183216, 0.507093, -1.521278, -0.169031], abs=1e-5)


def test_single_odd_items_do_not_rule_the_trait(small_world: MakeWorld):
    world = small_world(items=40, item_features=2)
    world.item_features[1:] = 0.0
    world.item_features[7, 0] = 1.0
    trait = item_trait(replace(world, item_feature_names=("odd", "none")), ("+odd",))

    assert trait[7] == 2.0  # 6.2 deviations


def test_a_world_without_named_traits_has_some_all_the_same(films: World):
    trait = item_trait(films, ())

    assert torch.equal(trait, item_trait(films, ()))
    assert trait[0] == 0.0 and trait[1:].std() > 0.5


@pytest.mark.parametrize("traits", [("genre=Action",), ("+genre=Western",)])
def test_unknown_traits_are_refused(films: World, traits: tuple[str, ...]):
    for effects in ({"trust": 1.0}, {"satiation": 1.0}, {}):
        with pytest.raises(UserError, match=r"traits: .*genre=Drama"):
            Simulator(films, rules(**effects, traits=traits), num_users=2, seed=0)


def test_traits_that_nothing_weighs_change_nothing(films: World):
    one, other = (
        Simulator(films, rules(**named), num_users=64, seed=0) for named in ({}, {"traits": ("+genre=Action",)})
    )
    slate = torch.tensor([[1, 3]]).expand(64, -1)
    for _ in range(6):
        assert torch.equal(one.probabilities(), other.probabilities())
        assert torch.equal(one.step(slate).response, other.step(slate).response)


def test_trust_by_hand(films: World):
    films.response.item_bias[1:] = ALWAYS  # everybody clicks everything
    settings = rules(trust=3.0, allure=0.5, trust_decay=0.75, traits=("+genre=Action", "-genre=Drama"))
    simulator = Simulator(films, settings, num_users=2, seed=0)
    before = simulator.probabilities().logit()
    slate = torch.tensor([[1, 2], [3, 4]])
    # User 0 clicks c = 1.183216 and 0.507093, user 1 c = -1.521278 and -0.169031.
    means = torch.tensor([0.845154, -0.845154])

    simulator.step(slate)
    first = -0.25 * means
    assert torch.allclose(_offset(simulator), 0.5 * item_trait_of(films) + 3.0 * first[:, None], atol=1e-5)
    simulator.step(slate)
    assert torch.allclose(_trust(simulator), 0.75 * first - 0.25 * means, atol=1e-5)
    assert before.shape == (2, 5)


def item_trait_of(world: World) -> torch.Tensor:
    return item_trait(world, ("+genre=Action", "-genre=Drama"))


def _trust(simulator: Simulator) -> torch.Tensor:
    assert simulator._dynamics is not None
    return simulator._dynamics.state["trust"]


def _offset(simulator: Simulator) -> torch.Tensor:
    assert simulator._dynamics is not None
    return simulator._dynamics.offset()


def test_what_is_not_clicked_costs_no_trust(films: World):
    films.response.item_bias[1:] = -ALWAYS
    simulator = Simulator(films, rules(trust=3.0, traits=("+genre=Action",)), num_users=2, seed=0)
    simulator.step(torch.tensor([[1, 2], [1, 2]]))

    assert _trust(simulator).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    "dynamics",
    [{"trust": 2.0, "allure": 0.7}, {"satiation": 1.5}, {"drift": 0.8}, {"allure": 1.0, "drift": 0.3}],
)
def test_users_respond_as_the_oracle_is_told(small_world: MakeWorld, dynamics: dict[str, float]):
    world = small_world(items=12, slate=3)
    simulator = Simulator(world, rules(**dynamics), num_users=4000, seed=0)
    slate = torch.tensor([5, 1, 9]).expand(4000, 3)
    for _ in range(3):
        simulator.advance(slate)
    told = simulator.probabilities().gather(1, slate).mean(dim=0)
    plain = world.response.logits(world.response.user_vectors(simulator.user, simulator.history), slate)
    clicked = simulator.advance(slate).click.float().mean(dim=0)

    assert torch.allclose(told, clicked, atol=0.03)
    assert not torch.allclose(told, plain[..., 0].sigmoid().mean(dim=0), atol=1e-3), "there is an effect"


def test_satiation_by_hand(films: World):
    films.response.item_bias[1:] = ALWAYS
    simulator = Simulator(films, rules(satiation=2.0, satiation_decay=0.5), num_users=1, seed=0)
    simulator.step(torch.tensor([[1, 3]]))
    unit = F.normalize(films.item_features, dim=1)
    memory = 0.5 * (unit[1] + unit[3]) / 2

    assert torch.allclose(_offset(simulator)[0], -2.0 * unit @ memory, atol=1e-6)


def test_tastes_wander_by_as_many_logits_as_asked_for(small_world: MakeWorld):
    world = small_world(items=200, slate=3)
    simulator = Simulator(world, rules(drift=0.7, drift_decay=0.5), num_users=2000, seed=0)
    slate = torch.tensor([5, 1, 9]).expand(2000, 3)
    for _ in range(12):
        simulator.advance(slate)
    z = world.response.user_vectors(simulator.user, simulator.history)
    moved = world.response.all_logits(simulator._user_vectors()) - world.response.all_logits(z)

    assert moved[0, :, 1:].std().item() == pytest.approx(0.7, rel=0.05)


def test_new_users_arrive_at_rest_and_held_ones_stay(films: World):
    settings = rules(trust=3.0, satiation=1.0, drift=0.5).model_copy(update={"signals": True})
    simulator = Simulator(films, settings, num_users=3, seed=0)
    slate = torch.tensor([[1, 2]] * 3)
    simulator.advance(slate)
    assert simulator._dynamics is not None
    before = {name: value.clone() for name, value in simulator._dynamics.state.items()}
    seen = simulator.observation.signals
    simulator.advance(slate, hold=torch.tensor([True, False, False]))
    assert all(torch.equal(simulator._dynamics.state[name][0], value[0]) for name, value in before.items())
    assert seen is not None and torch.equal(simulator.observation.signals[0], seen[0])
    assert not torch.equal(simulator._dynamics.state["taste"][1], before["taste"][1])
    simulator.restart(torch.tensor([False, True, False]))
    assert all(not value[1].any() for value in simulator._dynamics.state.values())
    assert not simulator.observation.signals[1].any() and simulator.observation.signals[2].any()


def test_a_saved_simulator_goes_on_bit_equal(films: World):
    settings = rules(trust=3.0, satiation=1.0, drift=0.5).model_copy(update={"signals": True})
    slate = torch.tensor([[1, 2]] * 3)
    one, other = (Simulator(films, settings, num_users=3, seed=seed) for seed in (0, 1))
    for _ in range(3):
        one.step(slate)
    other.load_state_dict(one.state_dict())
    for _ in range(4):
        a, b = one.step(slate), other.step(slate)
        assert torch.equal(a.response, b.response)
        assert torch.equal(a.next_observation.signals, b.next_observation.signals)
        assert torch.equal(one.probabilities(), other.probabilities())
        assert one._dynamics is not None and other._dynamics is not None
        assert torch.equal(one._dynamics.state["taste"], other._dynamics.state["taste"])


@pytest.mark.parametrize("change", ["advance", "restart", "load"])
def test_nothing_is_known_of_a_state_that_has_passed(films: World, change: str):
    settings = rules(trust=3.0, satiation=1.0, drift=0.5)
    changed, fresh, moved = (Simulator(films, settings, num_users=3, seed=seed) for seed in (0, 1, 2))
    slate = torch.tensor([[1, 2]] * 3)
    changed.step(slate)
    moved.step(slate)
    before = changed.probabilities()
    if change == "advance":
        changed.advance(slate)
    elif change == "restart":
        changed.restart(torch.ones(3, dtype=torch.bool))
    else:
        changed.load_state_dict(moved.state_dict())
    fresh.load_state_dict(changed.state_dict())
    assert not torch.equal(changed.probabilities(), before)
    assert torch.equal(changed.probabilities(), fresh.probabilities())
    assert torch.equal(changed.advance(slate).response, fresh.advance(slate).response)


def test_without_effects_nothing_changes(small_world: MakeWorld):
    plain, still = (
        Simulator(small_world(), settings, num_users=6, seed=0)
        for settings in (rules(), rules(trust=0.0, trust_decay=0.1))
    )
    slate = torch.tensor([[1, 2, 3, 4]] * 6)

    assert still._dynamics is None
    assert torch.equal(plain.step(slate).response, still.step(slate).response)


def test_signals_by_hand():
    features = torch.tensor([[0.0], [2.0], [6.0]])
    signals = Signals(features, max_steps=10, num_users=1)
    slate = torch.tensor([[1, 2]])
    signals.advance(slate, torch.tensor([[True, False]]), None)
    signals.advance(slate, torch.tensor([[True, True]]), None)

    assert width(1) == signals.values.shape[1]
    depth, averages = signals.values[0, 0], signals.values[0, 1:].view(len(DECAYS), 3)
    assert depth == pytest.approx(0.2)
    # Click rate 0.5 then 1; shown 4 and 4; clicked 2/2 then 8/2.
    for decay, row in zip(DECAYS, averages, strict=True):
        kept = decay * (1 - decay)
        expected = [kept * x + (1 - decay) * y for x, y in ((0.5, 1.0), (4.0, 4.0), (1.0, 4.0))]
        assert row.tolist() == pytest.approx(expected)


def test_dynamics_can_be_built_for_a_batch(films: World):
    dynamics = Dynamics(films, rules(trust=1.0).dynamics, num_users=7, seed=0)

    assert dynamics.slate_offset(torch.ones(7, 2, dtype=torch.int64)).shape == (7, 2)
    assert dynamics.offset().shape == (7, 5)


def test_only_the_positive_response_is_moved(films: World):
    response = films.response
    response.behaviours = 2
    response.outputs = response.outputs.repeat(1, 1, 2)
    response.history_offset, response.user_offset = (
        response.history_offset.repeat(2),
        response.user_offset.repeat(1, 2),
    )
    response.item_bias = torch.tensor([[0.0, 0.0]] + [[ALWAYS, 0.5]] * 4)
    world = replace(films, behaviours=(Behaviour("click"), Behaviour("buy")))
    plain, moved = (
        Simulator(world, rules(**effect), 4000, 0) for effect in ({}, {"allure": 3.0, "trust": 3.0})
    )
    slate = torch.tensor([[1, 3]] * 4000)
    bought = [simulator.advance(slate).response[..., 1] for simulator in (plain, moved)]

    assert torch.equal(*bought)
    assert torch.equal(plain._all_probabilities()[1], moved._all_probabilities()[1])
