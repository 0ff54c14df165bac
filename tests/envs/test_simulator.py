"""The simulator by hand: who arrives, what may be shown, what is remembered, how an episode ends."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from envs.data.behaviours import Behaviour
from envs.data.dataset import Dataset, Split
from envs.errors import UserError
from envs.fit import FitSettings
from envs.history import append_clicked
from envs.response import ResponseModel, ResponseSettings
from envs.simulator import Simulator
from envs.transition import Transition
from envs.world import Population, World
from envs.world_folder import FittedWorld
from envs.world_settings import WorldSettings

MakeWorld = Callable[..., World]
ALWAYS, NEVER = 40.0, -40.0  # logits


def draw_slates(simulator: Simulator, generator: torch.Generator) -> torch.Tensor:
    shape = (simulator.num_users, simulator.world.num_items)
    scores = torch.rand(shape, generator=generator)
    return scores.topk(simulator.world.slate_size, dim=1).indices + 1


def serve(simulator: Simulator, steps: int, seed: int = 0) -> list[Transition]:
    generator = torch.Generator().manual_seed(seed)
    return [simulator.step(draw_slates(simulator, generator)) for _ in range(steps)]


def same(one: list[Transition], other: list[Transition]) -> bool:
    def flat(steps: list[Transition]) -> list[torch.Tensor]:
        return [t for step in steps for t in (*step[:5], *step.next_observation) if t is not None]

    return all(torch.equal(a, b) for a, b in zip(flat(one), flat(other), strict=True))


@pytest.fixture
def fitted(dataset: Dataset) -> FittedWorld:
    """A world of the synthetic dataset with a response model of random weights."""
    model = ResponseModel(
        dataset.user_features.shape[1], dataset.item_features.shape[1], ResponseSettings(dim=8)
    )
    return FittedWorld(dataset, model, FitSettings())


RULES = WorldSettings(history_length=8)


@pytest.mark.parametrize("rules", [RULES, RULES.model_copy(update={"candidates": 12})])
def test_the_seed_decides_everything(small_world: MakeWorld, rules: WorldSettings):
    runs = [
        serve(Simulator(small_world(), rules, num_users=6, seed=seed, stream=stream), steps=30)
        for seed, stream in ((1, 0), (1, 0), (2, 0), (1, 1))
    ]

    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])
    assert not same(runs[0], runs[3])


def test_users_and_responses_both_differ_between_streams(small_world: MakeWorld):
    world = small_world(logits=[0.0] * 30)
    slate = torch.arange(1, 5).expand(50, -1)
    first, second = (Simulator(world, RULES, num_users=50, seed=1, stream=stream) for stream in (0, 1))
    assert not torch.equal(first.user, second.user)
    second.user, second.history = first.user, first.history
    assert not torch.equal(first.advance(slate).click, second.advance(slate).click)


def test_responses_do_not_depend_on_arrivals(small_world: MakeWorld):
    busy, quiet = (Simulator(small_world(), RULES, num_users=6, seed=1) for _ in range(2))
    slate = draw_slates(quiet, torch.Generator().manual_seed(0))
    busy.restart(torch.zeros(6, dtype=torch.bool))  # nobody arrives, yet the draws are made

    assert torch.equal(busy.advance(slate).click, quiet.advance(slate).click)


def test_a_user_arrives_alike_whatever_was_shown(small_world: MakeWorld):
    # Arrivals and responses have generators of their own: other slates, the same next users.
    worlds = (small_world(logits=[ALWAYS] * 30), small_world(logits=[NEVER] * 30))
    rules = RULES.model_copy(update={"max_steps": 1})
    users = []
    for world in worlds:
        simulator = Simulator(world, rules, num_users=5, seed=3)
        serve(simulator, steps=4)
        users.append(simulator.observation)

    assert torch.equal(users[0].user, users[1].user)
    assert torch.equal(users[0].history, users[1].history)


@pytest.mark.parametrize("rules", [RULES, RULES.model_copy(update={"candidates": 12})])
def test_a_restored_simulator_goes_on_bit_equal(small_world: MakeWorld, rules: WorldSettings):
    one = Simulator(small_world(), rules, num_users=6, seed=1)
    serve(one, steps=7)
    state = one.state_dict()
    expected = serve(one, steps=25, seed=9)
    other = Simulator(small_world(), rules, num_users=6, seed=77)
    other.load_state_dict(state)

    assert same(serve(other, steps=25, seed=9), expected)
    one.load_state_dict(state)  # the state did not change with the simulator it came from
    assert same(serve(one, steps=25, seed=9), expected)


def test_append_clicked_by_hand():
    history = torch.tensor([[0, 0, 0, 7], [1, 2, 3, 4], [1, 2, 3, 4], [0, 0, 0, 0], [1, 2, 3, 4]])
    slate = torch.tensor([[5, 6, 8, 9, 10]] * 5)
    click = torch.tensor([[1, 0, 1, 0, 0], [0, 0, 0, 0, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [0, 1, 1, 1, 0]])
    after = append_clicked(history, slate, click.bool(), torch.arange(4))

    assert after.tolist() == [[0, 7, 5, 8], [2, 3, 4, 10], [6, 8, 9, 10], [0, 0, 0, 0], [4, 6, 8, 9]]


def test_clicked_items_join_the_history_and_others_do_not(small_world: MakeWorld):
    logits = [ALWAYS if item % 2 else NEVER for item in range(1, 31)]
    rules = WorldSettings(history_length=3, start_history="empty")
    simulator = Simulator(small_world(logits=logits), rules, num_users=2, seed=0)
    slate = torch.tensor([[1, 2, 3, 4], [8, 6, 4, 9]])
    transition = simulator.advance(slate)

    assert transition.click.tolist() == [[True, False, True, False], [False, False, False, True]]
    assert simulator.history.tolist() == [[0, 1, 3], [0, 0, 9]]
    assert transition.reward.tolist() == pytest.approx([(2 - 0.2) / 4, (1 - 0.3) / 4])


def test_start_histories_are_those_of_the_dataset(dataset: Dataset, fitted: FittedWorld):
    length = 7
    simulator = Simulator(
        fitted.world(list(Split)), WorldSettings(history_length=length), num_users=dataset.users, seed=0
    )
    everybody, user = torch.ones(dataset.users, dtype=torch.bool), torch.arange(dataset.users)
    # The draw (s + 1/2) / n chooses the session s of a user's n.
    first = torch.from_numpy(np.searchsorted(dataset.session_user, user.numpy()))
    last = torch.from_numpy(np.searchsorted(dataset.session_user, user.numpy(), side="right"))
    for place in range(4):
        session = torch.minimum(first + place, last - 1)
        simulator.arrive(everybody, user, (session - first + 0.5) / (last - first))
        assert simulator.history.tolist() == dataset.history(session.numpy(), length).tolist()
        assert simulator.user.tolist() == user.tolist()
    assert (simulator.history[:, -1] > 0).any()


def test_an_empty_start_history_is_empty(small_world: MakeWorld):
    rules = WorldSettings(history_length=5, start_history="empty", max_steps=1)
    simulator = Simulator(small_world(), rules, num_users=9, seed=0)
    assert not simulator.history.any()
    serve(simulator, steps=3)
    assert not simulator.history.any()


def test_leaving_and_the_step_limit_are_apart(small_world: MakeWorld):
    # Four misses cost 5.4 of patience: 20 → 14.6 → 9.2 → 3.8 → −1.6, gone after the fourth step.
    slates = torch.arange(1, 5).expand(3, -1)
    on, left, cut = (False, False), (True, False), (False, True)
    for limit, ends in ((5, [on, on, on, left]), (3, [on, on, cut])):
        rules = WorldSettings(history_length=8, max_steps=limit)
        simulator = Simulator(small_world(logits=[NEVER] * 30), rules, num_users=3, seed=0)
        for terminated, truncated in ends:
            transition = simulator.step(slates)
            assert transition.terminated.tolist() == [terminated] * 3
            assert transition.truncated.tolist() == [truncated] * 3


def test_leaving_at_the_step_limit_is_leaving(small_world: MakeWorld):
    rules = WorldSettings(history_length=8, max_steps=4)
    simulator = Simulator(small_world(logits=[NEVER] * 30), rules, num_users=1, seed=0)
    for _ in range(4):
        transition = simulator.advance(torch.arange(1, 5)[None])

    assert (transition.terminated.item(), transition.truncated.item()) == (True, False)


def test_both_ends_occur_and_never_together(small_world: MakeWorld):
    rules = RULES.model_copy(update={"max_steps": 6})
    steps = serve(Simulator(small_world(), rules, num_users=32, seed=0), steps=40)
    terminated = torch.stack([step.terminated for step in steps])
    truncated = torch.stack([step.truncated for step in steps])

    assert terminated.any() and truncated.any()
    assert not (terminated & truncated).any()


def test_a_finished_users_next_observation_is_their_own(small_world: MakeWorld):
    # Everybody clicks everything and is cut off at each step, so that every slot changes hands.
    rules = WorldSettings(history_length=6, max_steps=1)
    simulator = Simulator(small_world(logits=[ALWAYS] * 30), rules, num_users=12, seed=0)
    before = simulator.observation
    slate = torch.arange(27, 31).expand(12, -1)
    remembered = simulator.history = before.history.clamp(max=26)  # nothing of the slate is in it
    transition = simulator.step(slate)
    own, new = transition.next_observation, simulator.observation

    assert transition.truncated.all()
    assert torch.equal(own.user, before.user)
    assert torch.equal(own.history, torch.cat([remembered[:, -2:], slate], dim=1))
    assert not torch.equal(new.user, own.user)
    assert not (new.history[:, -1] == 30).all()
    assert simulator.steps.tolist() == [0] * 12
    assert simulator.patience.tolist() == [20_000] * 12


def test_only_finished_users_are_replaced(small_world: MakeWorld):
    simulator = Simulator(small_world(), RULES, num_users=6, seed=0)
    before = simulator.observation
    finished = torch.tensor([True, False, False, True, False, False])
    simulator.steps = simulator.steps + 3
    simulator.restart(finished)

    assert torch.equal(simulator.user[~finished], before.user[~finished])
    assert torch.equal(simulator.history[~finished], before.history[~finished])
    assert simulator.steps.tolist() == [0, 3, 3, 0, 3, 3]


def test_users_on_hold_do_not_change(small_world: MakeWorld):
    world, hold = small_world(), torch.tensor([True, False, True, False])
    held, free = (Simulator(world, RULES, num_users=4, seed=5) for _ in range(2))
    before = {name: held.state_dict()[name] for name in ("history", "patience", "steps")}
    slate = draw_slates(held, torch.Generator().manual_seed(0))
    one, other = held.advance(slate, hold=hold), free.advance(slate)

    for name, value in before.items():
        assert torch.equal(getattr(held, name)[hold], value[hold]), name
        assert torch.equal(getattr(held, name)[~hold], getattr(free, name)[~hold]), name
    assert held.steps.tolist() == [0, 1, 0, 1]
    assert torch.equal(one.click[~hold], other.click[~hold]), "the draws do not depend on who is held"


def test_what_is_in_the_history_gets_no_response_unless_allowed(small_world: MakeWorld):
    clicks = {}
    for repeats in ("forbid", "allow"):
        rules = WorldSettings(history_length=5, repeats=repeats, start_history="empty")
        simulator = Simulator(small_world(logits=[ALWAYS] * 30), rules, num_users=2, seed=0)
        simulator.history = torch.tensor([[0, 0, 3, 9, 2], [0, 0, 0, 0, 0]])
        clicks[repeats] = simulator.advance(torch.tensor([[1, 2, 3, 4]] * 2)).click.tolist()

    assert clicks["forbid"] == [[True, False, False, True], [True] * 4]
    assert clicks["allow"] == [[True] * 4] * 2


def test_only_the_first_of_equal_items_gets_a_response(small_world: MakeWorld):
    rules = WorldSettings(history_length=5, start_history="empty")
    simulator = Simulator(small_world(logits=[ALWAYS] * 30), rules, num_users=2, seed=0)
    transition = simulator.advance(torch.tensor([[7, 7, 8, 7], [6, 5, 5, 6]]))

    assert transition.click.tolist() == [[True, False, True, False], [True, True, False, False]]
    assert simulator.history.tolist() == [[0, 0, 0, 7, 8], [0, 0, 0, 6, 5]]


@pytest.mark.parametrize("repeats", ["forbid", "allow"])
def test_padding_and_unknown_items_get_no_response(small_world: MakeWorld, repeats: str):
    rules = WorldSettings(history_length=5, repeats=repeats, start_history="empty")
    simulator = Simulator(small_world(logits=[ALWAYS] * 30), rules, num_users=2, seed=0)
    simulator.world.response.item_bias[0] = ALWAYS  # whatever the padding's row holds
    transition = simulator.advance(torch.tensor([[0, 1, 30, 31], [-1, 0, 10**9, 5]]))

    assert transition.click.tolist() == [[False, True, True, False], [False, False, False, True]]
    assert simulator.history.tolist() == [[0, 0, 0, 1, 30], [0, 0, 0, 0, 5]]


def test_candidates_are_distinct_items_outside_the_history(small_world: MakeWorld):
    rules = WorldSettings(history_length=8, candidates=10)
    simulator = Simulator(small_world(), rules, num_users=64, seed=0)
    observation = simulator.observation
    assert observation.candidates is not None and observation.candidates.shape == (64, 10)

    assert observation.candidates.min() >= 1 and observation.candidates.max() <= 30
    for candidates, history in zip(observation.candidates.tolist(), observation.history.tolist(), strict=True):
        assert len(set(candidates)) == 10
        assert not set(candidates) & set(history)
    assert len(observation.candidates.unique()) == 30, "every item is a candidate for somebody"


def test_the_padding_is_never_a_candidate(small_world: MakeWorld):
    rules = WorldSettings(history_length=8, candidates=30, repeats="allow")
    simulator = Simulator(small_world(), rules, num_users=20, seed=0)
    assert simulator.candidates is not None

    assert simulator.candidates.sort(dim=1).values.tolist() == [list(range(1, 31))] * 20


def test_only_candidates_get_a_response(small_world: MakeWorld):
    rules = WorldSettings(history_length=5, candidates=4, start_history="empty")
    simulator = Simulator(small_world(logits=[ALWAYS] * 30), rules, num_users=2, seed=0)
    simulator.candidates = torch.tensor([[1, 2, 3, 4], [9, 8, 7, 6]])

    assert simulator.advance(torch.tensor([[4, 5, 6, 1]] * 2)).click.tolist() == [
        [True, False, False, True],
        [False, False, True, False],
    ]


def test_candidates_change_with_the_user_alone(small_world: MakeWorld):
    rules = WorldSettings(history_length=5, candidates=10, max_steps=2)
    simulator = Simulator(small_world(logits=[ALWAYS] * 30), rules, num_users=20, seed=0)
    assert simulator.candidates is not None
    before = simulator.candidates
    serve(simulator, steps=1)
    assert torch.equal(simulator.candidates, before)
    serve(simulator, steps=1)
    assert (simulator.candidates != before).any(dim=1).all()


@pytest.mark.parametrize("splits", [[Split.TRAIN], [Split.TEST], [Split.VALIDATION, Split.TEST]])
def test_users_of_other_splits_never_arrive(dataset: Dataset, fitted: FittedWorld, splits: list[Split]):
    rules = WorldSettings(history_length=8, max_steps=1)
    simulator = Simulator(fitted.world(splits), rules, num_users=200, seed=0)
    arrived = set(simulator.user.tolist())
    for transition in serve(simulator, steps=5):
        arrived |= set(transition.next_observation.user.tolist())
    expected = {int(user) for split in splits for user in dataset.users_in(split)}

    assert arrived == expected


def test_users_arrive_uniformly(small_world: MakeWorld):
    simulator = Simulator(small_world(users=10), RULES, num_users=10_000, seed=0)
    count = torch.bincount(simulator.user, minlength=10)

    assert ((count - 1000).abs() < 4 * 30).all(), "four standard deviations of a binomial"


def test_responses_come_with_their_probability(small_world: MakeWorld):
    # One item with P = 0.2 for everybody: 20,000 draws are within four standard deviations of 0.0028.
    rules = WorldSettings(history_length=1, start_history="empty")
    world = small_world(logits=[-1.3863] * 30)
    simulator = Simulator(world, rules, num_users=5000, seed=0)
    click = simulator.advance(torch.arange(1, 5).expand(5000, -1)).click

    assert click.double().mean().item() == pytest.approx(0.2, abs=4 * 0.0028)
    assert simulator.probabilities()[:, 1:].mean().item() == pytest.approx(0.2, abs=1e-4)


def test_a_user_without_any_like_can_arrive(small_world: MakeWorld):
    world = small_world(users=3)
    nothing = Population(
        users=torch.arange(3),
        likes=torch.zeros(1, dtype=torch.int64),
        like_offsets=torch.zeros(4, dtype=torch.int64),
        session_offsets=torch.arange(4),
        likes_before=torch.zeros(3, dtype=torch.int64),
    )
    simulator = Simulator(replace(world, population=nothing), RULES, num_users=6, seed=0)

    assert not simulator.history.any()
    assert simulator.probabilities().isfinite().all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"candidates": 3}, "need at least 4 items to choose from, there are 3 of a catalogue of 30"),
        ({"candidates": 31}, "there are 31 of a catalogue of 30"),
        ({"history_length": 27}, "need at least 31 items to choose from, there are 30"),
    ],
)
def test_a_world_that_cannot_fill_a_slate_is_refused(small_world: MakeWorld, values: dict, message: str):
    with pytest.raises(UserError, match=message):
        Simulator(small_world(), WorldSettings(**values), num_users=2, seed=0)


def test_a_window_longer_than_the_catalogue_is_fine_where_repeats_are_allowed(small_world: MakeWorld):
    Simulator(small_world(), WorldSettings(history_length=50, repeats="allow"), num_users=2, seed=0)


@pytest.mark.parametrize("candidates", [None, 12])
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_all_tensors_stay_on_the_worlds_device(fitted: FittedWorld, candidates: int | None):
    device = torch.device("cuda", 0)
    rules = WorldSettings(history_length=8, candidates=candidates)
    simulator = Simulator(fitted.world([Split.TRAIN], device), rules, num_users=6, seed=0)
    slates = torch.arange(1, 6, device=device).expand(6, -1)
    for _ in range(3):
        transition = simulator.step(slates)
        flat = [*transition[:4], *transition.next_observation, *simulator.observation]
        assert {tensor.device for tensor in flat if tensor is not None} == {device}
    assert fitted.world([Split.TRAIN]).device == torch.device("cpu")


def two_behaviours(small_world: MakeWorld, click: float, buy: float) -> World:
    """Every item is clicked with the logit ``click`` and, given that, bought with ``buy``."""
    world = small_world(items=20, slate=4)
    response = world.response
    response.behaviours = 2
    response.items.zero_()
    response.outputs = response.outputs.repeat(1, 1, 2)
    response.history_offset, response.user_offset = (
        response.history_offset.repeat(2),
        response.user_offset.repeat(1, 2),
    )
    response.item_bias = torch.tensor([click, buy]).repeat(21, 1)
    return replace(world, behaviours=(Behaviour("click"), Behaviour("buy", after="click")))


def test_what_needs_a_click_does_not_happen_without(small_world: MakeWorld):
    world = two_behaviours(small_world, click=0.0, buy=1.0)
    rules = WorldSettings(history_length=8, repeats="allow", weights={"click": 0.25, "buy": 2.0})
    steps = serve(Simulator(world, rules, num_users=200, seed=0), steps=20)
    response = torch.stack([step.response for step in steps])
    clicked, bought = response[..., 0], response[..., 1]

    assert not (bought & ~clicked).any()
    assert clicked.float().mean().item() == pytest.approx(0.5, abs=0.015)
    assert bought[clicked].float().mean().item() == pytest.approx(0.731, abs=0.015)
    values = torch.stack([step.value for step in steps])
    assert torch.allclose(values, 0.25 * clicked + 2.0 * bought - 0.1 * ~clicked)
    rewards = torch.stack([step.reward for step in steps])
    assert torch.allclose(rewards, values.mean(dim=-1))


def test_expected_values_are_what_slots_earn(small_world: MakeWorld):
    world = two_behaviours(small_world, click=0.0, buy=1.0)
    rules = WorldSettings(history_length=8, weights={"click": 0.25, "buy": 2.0})
    simulator = Simulator(world, rules, num_users=3, seed=0)

    assert torch.allclose(simulator.probabilities(), torch.tensor(0.5))
    # 0.5 · 0.25 + 0.5 · 0.731 · 2 − 0.5 · 0.1
    assert torch.allclose(simulator.expected_values(), torch.tensor(0.8061), atol=1e-4)


@pytest.mark.parametrize(
    ("weights", "message"), [({"sale": 1.0}, "has click, buy"), ({"buy": 0.0005}, "expected thousandths")]
)
def test_weights_that_mean_nothing_are_refused(small_world: MakeWorld, weights: dict[str, float], message: str):
    rules = WorldSettings(history_length=8, weights=weights)
    with pytest.raises(UserError, match=message):
        Simulator(two_behaviours(small_world, 0.0, 0.0), rules, num_users=3, seed=0)
