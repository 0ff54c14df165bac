"""The catalogue by hand: which items are live when, and that nothing else gets a response or is drawn."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from envs.catalogue import Catalogue, CatalogueSettings
from envs.data.dataset import Dataset, Split
from envs.errors import UserError
from envs.fit import FitSettings
from envs.response import ResponseModel, ResponseSettings
from envs.simulator import Simulator
from envs.slate_env import SlateVectorEnv
from envs.world import World
from envs.world_folder import FittedWorld
from envs.world_settings import WorldSettings

MakeWorld = Callable[..., World]
ALWAYS = 40.0  # logit


def catalogue(items: int = 10, age: torch.Tensor | None = None, **settings: object) -> Catalogue:
    """The newest items are withheld, items being as old as their index is low."""
    chosen = CatalogueSettings.from_mapping({"rule": "newest", **settings})
    return Catalogue(chosen, torch.arange(items + 1) if age is None else age, items, "cpu")


def items_of(mask: torch.Tensor) -> list[int]:
    return mask.nonzero().flatten().tolist()


def live(one: Catalogue, clock: int) -> list[int]:
    return items_of(one.live_at(clock))


def rules(**settings: object) -> WorldSettings:
    values = {"history_length": 3, "start_history": "empty", "catalogue": {"rule": "newest", **settings}}
    return WorldSettings.from_mapping(values)


def test_the_window_by_hand():
    # Six of ten items are live and a quarter of them, 1.5, are replaced at each step: 1, 2, 1, 2 …
    one = catalogue(withheld=0.4, churn=0.25)
    assert live(one, 0) == [1, 2, 3, 4, 5, 6]
    assert live(one, 1) == [2, 3, 4, 5, 6, 7]
    assert live(one, 2) == [4, 5, 6, 7, 8, 9]
    assert live(one, 3) == [5, 6, 7, 8, 9, 10]
    assert live(one, 4) == [1, 2, 7, 8, 9, 10], "the first to retire return"
    assert items_of(one.withheld) == [7, 8, 9, 10]
    assert (one.num_live, one.num_withheld, one.always_all, one.changes) == (6, 4, False, True)


def test_fractions_of_items_are_not_lost():
    # 0.35 items a step: added up as floats, they would not come to whole items when they should.
    one = catalogue(items=50, withheld=0.3, churn=0.01)
    for clock, births in ((2, 0), (3, 1), (20, 7), (1000, 350), (100_000_000, 35_000_000)):
        assert live(one, clock) == sorted((births + step) % 50 + 1 for step in range(35)), clock


def test_a_share_is_the_decimal_that_was_written():
    # As floats, 0.29 · 100 is below 29 and (1 − 0.2) · 0.25 need not be 0.2.
    one = catalogue(items=200, withheld=0.5, churn=0.29)
    assert live(one, 1) == list(range(30, 130))


@pytest.mark.parametrize("rule", ["random", "newest"])
def test_as_many_are_born_as_retire(rule: str):
    one = catalogue(items=37, withheld=0.3, churn=0.08, rule=rule)
    births = 0
    for clock in range(200):
        before, after = set(live(one, clock)), set(live(one, clock + 1))
        assert 0 not in after and len(after) == one.num_live == 26
        assert len(after - before) == len(before - after) in (2, 3)  # 0.08 · 26 = 2.08
        births += len(after - before)
    assert births == 416


def test_the_same_clock_is_the_same_set():
    settings = {"withheld": 0.4, "churn": 0.3, "rule": "random", "seed": 3}
    one, other = catalogue(items=30, **settings), catalogue(items=30, **settings)
    forward = [live(one, clock) for clock in range(50)]
    assert forward == [live(other, clock) for clock in reversed(range(50))][::-1]
    assert forward == [items_of(one.live_at(torch.tensor(clock, dtype=torch.int32))) for clock in range(50)]
    assert forward[0] != live(catalogue(items=30, **{**settings, "seed": 4}), 0)


def test_the_newest_are_withheld_and_the_oldest_retire_first():
    age = torch.tensor([0, 5, 1, 4, 2, 3])  # items from old to new: 2, 4, 5, 3, 1
    one = catalogue(items=5, age=age, withheld=0.4, churn=0.34)
    assert items_of(one.withheld) == [1, 3]
    assert [live(one, clock) for clock in (0, 1, 2)] == [[2, 4, 5], [3, 4, 5], [1, 3, 5]]


def test_what_is_shown_beside_the_live_items():
    assert live(catalogue(withheld=0.4), 7) == [1, 2, 3, 4, 5, 6]
    assert live(catalogue(withheld=0.4, show="withheld"), 7) == [7, 8, 9, 10]
    everything = catalogue(withheld=0.4, show="all")
    assert live(everything, 7) == list(range(1, 11)) and everything.always_all
    assert items_of(everything.withheld) == [7, 8, 9, 10], "still the new ones"
    random = {"withheld": 0.4, "rule": "random"}
    shown, hidden = (set(live(catalogue(show=show, **random), 0)) for show in ("live", "withheld"))
    assert not shown & hidden and shown | hidden == set(range(1, 11))


def test_a_full_catalogue_masks_nothing(small_world: MakeWorld):
    one = catalogue()
    assert one.always_all and not one.changes and not one.withheld.any()
    assert Simulator(small_world(), rules(), 2, seed=0).observation.live is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"show": "all", "withheld": 0.5, "churn": 0.1}, "show=all is a catalogue that stays as it is"),
        ({"show": "withheld"}, "show=withheld needs items that are withheld"),
        ({"churn": 0.1}, "more than the withheld=0 of the catalogue that can be"),
        ({"churn": 0.5, "withheld": 0.2}, "churn=0.5 of the live items are born at a step, more than"),
        ({"withheld": 1.0}, "withheld: expected less than 1, got 1.0"),
        ({"chrun": 0.1}, "did you mean 'catalogue.churn'"),
    ],
)  # fmt: skip
def test_a_schedule_that_cannot_be_is_refused_in_one_line(settings: dict, message: str):
    with pytest.raises(UserError, match=message) as error:
        rules(**settings)
    assert "\n" not in str(error.value) and "{" not in str(error.value)


def test_every_withheld_item_may_be_born_at_once():
    one = catalogue(withheld=0.2, churn=0.25)
    assert (live(one, 0), live(one, 1)) == ([1, 2, 3, 4, 5, 6, 7, 8], [3, 4, 5, 6, 7, 8, 9, 10])


@pytest.mark.parametrize("candidates", [None, 25])
def test_too_few_live_items_are_refused(small_world: MakeWorld, candidates: int | None):
    few = rules(withheld=0.8).model_copy(update={"candidates": candidates})
    with pytest.raises(UserError, match=r"of a catalogue of 30 of which 6 are live: change .* catalogue"):
        Simulator(small_world(), few, 2, seed=0)


def test_items_that_are_not_live_get_no_response(small_world: MakeWorld):
    # Of 30 items 20 are live and two are replaced at a step: item 21 is born at the first, item 1 retires.
    world = small_world(logits=[ALWAYS] * 30)
    simulator = Simulator(world, rules(withheld=0.3333, churn=0.1), num_users=2, seed=0)
    slate = torch.tensor([[1, 21, 20, 31], [22, 2, 23, -1]])
    first = simulator.advance(slate)
    assert first.click.tolist() == [[True, False, True, False], [False, True, False, False]]
    assert first.next_observation.live is not None
    assert items_of(first.next_observation.live) == list(range(3, 23)), "the live items of the next step"
    simulator.history = torch.zeros_like(simulator.history)
    assert simulator.advance(slate).click.tolist() == [[False, True, True, False], [True, False, False, False]]


def test_the_clock_counts_steps_of_the_world(small_world: MakeWorld):
    simulator = Simulator(small_world(), rules(withheld=0.5, churn=0.1), num_users=3, seed=0)
    everybody = torch.ones(3, dtype=torch.bool)
    simulator.restart(everybody)
    simulator.arrive(everybody, torch.arange(3), torch.zeros(3))
    assert simulator.clock == 0
    simulator.step(torch.arange(1, 5).expand(3, -1))
    simulator.advance(torch.arange(1, 5).expand(3, -1), hold=everybody)
    assert simulator.clock == 2


def test_candidates_are_live_when_their_user_arrives(small_world: MakeWorld):
    churning = rules(withheld=0.5, churn=0.2).model_copy(update={"candidates": 15, "max_steps": 1})
    simulator = Simulator(small_world(), churning, num_users=20, seed=0)
    for clock in range(6):
        observation = simulator.observation
        assert observation.candidates is not None and observation.live is not None
        assert observation.candidates.sort(dim=1).values.tolist() == [items_of(observation.live)] * 20
        assert simulator.clock == clock
        simulator.step(observation.candidates[:, :4])


def test_a_restored_world_goes_on_with_its_clock(small_world: MakeWorld):
    churning = rules(withheld=0.5, churn=0.2, rule="random").model_copy(update={"candidates": 8})
    one, other = (Simulator(small_world(), churning, num_users=6, seed=seed) for seed in (1, 2))
    generator = torch.Generator().manual_seed(0)

    def serve(simulator: Simulator, seed: int) -> list[torch.Tensor]:
        generator.manual_seed(seed)
        seen = []
        for _ in range(12):
            draw = torch.rand(6, 8, generator=generator).topk(4, dim=1).indices
            assert simulator.candidates is not None
            transition = simulator.step(simulator.candidates.gather(1, draw))
            observed = (*transition.next_observation, *simulator.observation)
            seen += [transition.click, *(part for part in observed if part is not None)]
        return seen

    serve(one, seed=0)
    state = one.state_dict()
    expected = serve(one, seed=1)
    other.load_state_dict(state)
    assert all(torch.equal(a, b) for a, b in zip(serve(other, seed=1), expected, strict=True))
    assert other.clock == 24
    del state["clock"]
    other.load_state_dict(state)
    assert other.clock == 0, "an earlier release's state"


def test_a_static_catalogue_changes_no_draw(small_world: MakeWorld):
    # The oldest 20 of 30 items: the same users and the same responses as with all of them.
    slate = torch.tensor([[1, 7, 13, 20]] * 9)
    whole, part = (Simulator(small_world(), rules(withheld=share), 9, seed=4) for share in (0.0, 0.33))
    for _ in range(15):
        one, other = whole.step(slate), part.step(slate)
        assert torch.equal(one.click, other.click)
        assert torch.equal(whole.user, part.user)


def test_gymnasium_agents_see_what_is_live(small_world: MakeWorld):
    world = small_world(logits=[ALWAYS] * 30)
    env = SlateVectorEnv(2, world=world, settings=rules(withheld=0.5, churn=0.2))
    assert "live" not in SlateVectorEnv(2, world=world, settings=rules()).reset(seed=0)[0]
    observations, _ = env.reset(seed=0)
    assert observations in env.observation_space
    assert list(observations) == list(env.observation_space)
    assert observations["live"].tolist() == [[1] * 15 + [0] * 15] * 2
    observations, *_, infos = env.step(np.array([[0, 14, 15, 29]] * 2))
    assert infos["clicks"].tolist() == [[True, True, False, False]] * 2
    assert observations["live"].tolist() == [[0] * 3 + [1] * 15 + [0] * 12] * 2
    assert env.reset()[0]["live"][0, 0] == 0 and env.reset(seed=0)[0]["live"][0, 0] == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_schedule_is_the_same_on_a_gpu():
    settings = CatalogueSettings(withheld=0.4, churn=0.3)
    one, other = (Catalogue(settings, torch.arange(31, device=d), 30, d) for d in ("cpu", "cuda"))
    assert other.live_at(3).is_cuda
    assert live(one, 3) == live(other, 3)


def test_a_world_knows_the_age_of_its_items(small_world: MakeWorld, dataset: Dataset):
    aged = replace(small_world(items=10), item_age=torch.tensor([0, *range(10, 0, -1)]))
    assert items_of(Catalogue.of(aged, rules(withheld=0.2).catalogue).withheld) == [1, 2]

    model = ResponseModel(dataset.user_features.shape[1], dataset.item_features.shape[1], ResponseSettings())
    world = FittedWorld(dataset, model, FitSettings()).world([Split.TEST])
    assert world.item_age.tolist() == dataset.item_age.tolist()
    assert world.item_age.sort().values.tolist() == list(range(dataset.items + 1)) != world.item_age.tolist()
