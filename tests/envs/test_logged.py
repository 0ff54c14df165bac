"""The logs as transitions: every logged slate once each time round, with what its user had liked before."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from envs import world_folder
from envs.data.dataset import Dataset, Split
from envs.data.sessions import Origin
from envs.errors import UserError
from envs.fit import FitSettings
from envs.logged import LoggedSlates
from envs.response import ResponseModel
from envs.signals import width
from envs.world import World
from envs.world_settings import WorldSettings

H = 5


@pytest.fixture(scope="module")
def logs(simulator: Path) -> tuple[Dataset, World]:
    fitted = world_folder.load(simulator)
    return fitted.dataset, fitted.world([Split.TRAIN])


def make(logs, seed: int = 0, **rules) -> LoggedSlates:
    return LoggedSlates(*logs, WorldSettings(history_length=H, **rules), seed)


def test_each_slate_once_each_time_round(logs):
    dataset, _ = logs
    slates = make(logs)
    mine = dataset.sessions_in(Split.TRAIN)
    assert len(slates) == len(mine)
    first, second = slates.take(len(slates)), slates.take(len(slates))
    expected = sorted(map(tuple, dataset.session_items[mine].tolist()))
    for rows in (first, second):
        assert sorted(map(tuple, rows["slate"].tolist())) == expected
    assert not torch.equal(first["slate"], second["slate"])  # in another order


def test_rows_are_what_the_logs_hold(logs):
    dataset, _ = logs
    rows = make(logs, reward="mean_with_cost").take(40)
    key = {(user, *slate): row for row, (user, slate) in enumerate(
        zip(dataset.session_user.tolist(), dataset.session_items.tolist(), strict=True)
    )}  # fmt: skip
    for row in range(40):
        user, slate = int(rows["user"][row]), rows["slate"][row].tolist()
        session = key[(user, *slate)]
        click = dataset.session_feedback[session]
        assert rows["click"][row].tolist() == (click == 1).tolist()
        assert float(rows["reward"][row]) == pytest.approx(np.where(click == 1, 1.0, -0.1).mean(), abs=1e-6)
        mine = np.flatnonzero(dataset.session_user == user)
        liked: list[int] = []
        for earlier in mine[mine < session]:
            liked += dataset.session_items[earlier][dataset.session_feedback[earlier] == 1].tolist()
        padded = [0] * H + liked
        assert rows["history"][row].tolist() == padded[-H:]
        after = padded + [item for item, response in zip(slate, click, strict=True) if response == 1]
        assert rows["next_history"][row].tolist() == after[-H:]
    assert not rows["terminated"].any()


def test_slots_are_worth_their_items_money(logs):
    dataset, world = logs
    money = torch.arange(len(world.item_features))[:, None] / 4  # item i moves i/4
    rows = make((dataset, replace(world, item_money=money)), miss=-0.5).take(40)
    expected = torch.where(rows["click"], rows["slate"] / 4, -0.5)
    assert torch.allclose(rows["value"], expected) and rows["click"].any()
    assert torch.allclose(rows["reward"], expected.mean(dim=1))
    assert "value" in make(logs, miss=0.0).take(1) and "value" not in make(logs).take(1)


def test_any_number_of_rows_can_be_taken(logs):
    slates = make(logs)
    assert len(slates.take(3 * len(slates) + 1)["user"]) == 3 * len(slates) + 1
    assert len(slates.take(1)["user"]) == 1


def test_the_seed_decides_the_order(logs):
    assert torch.equal(make(logs, 1).take(50)["slate"], make(logs, 1).take(50)["slate"])
    assert not torch.equal(make(logs, 1).take(50)["slate"], make(logs, 2).take(50)["slate"])


def test_a_restored_reader_goes_on_where_it_was(logs):
    one, other = make(logs), make(logs, seed=9)
    one.take(len(one) - 3)
    state = one.state_dict()
    expected = one.take(len(one))
    other.load_state_dict(state)
    again = other.take(len(one))
    assert all(torch.equal(again[name], expected[name]) for name in expected)


def test_only_the_users_of_the_world_are_read(simulator):
    fitted = world_folder.load(simulator)
    slates = LoggedSlates(fitted.dataset, fitted.world([Split.VALIDATION]), WorldSettings(history_length=H), 0)
    users = set(slates.take(len(slates))["user"].tolist())
    assert users <= set(fitted.dataset.users_in(Split.VALIDATION).tolist()) and users


def test_withheld_items_are_not_met(logs):
    """Nor their responses: what learns from the logs knows as little of them as what learns in the world."""
    from envs.catalogue import Catalogue

    rules = WorldSettings(history_length=H, catalogue={"withheld": 0.3, "rule": "newest"})
    slates = LoggedSlates(*logs, rules, 0)
    rows = slates.take(len(slates))
    live = Catalogue.of(logs[1], rules.catalogue).live_at(0)
    shown = rows["slate"].long()
    assert (live[shown] | (shown == 0)).all() and (shown == 0).any() and (shown > 0).any()
    assert not rows["click"][shown == 0].any()


@pytest.fixture
def half_empty(logs) -> tuple[Dataset, World]:
    """The logs with the last two of every slate's slots left empty, and the first slate of all empty."""
    dataset, world = logs
    items, feedback = dataset.session_items.copy(), dataset.session_feedback.copy()
    items[:, -2:], feedback[:, -2:] = 0, 0
    first = dataset.sessions_in(Split.TRAIN)[0]
    items[first], feedback[first] = 0, 0
    return replace(dataset, session_items=items, session_feedback=feedback), world


@pytest.mark.parametrize("reward", ["mean_with_cost", "sweet_point"])
def test_empty_slots_count_for_nothing(half_empty, reward):
    slates = make(half_empty, reward=reward, signals=True)
    assert len(slates) == len(half_empty[0].sessions_in(Split.TRAIN)) - 1
    rows = slates.take(len(slates))
    filled = rows["slate"] > 0
    assert (filled.sum(dim=1) == filled.shape[1] - 2).all()
    values = torch.where(rows["click"], 1.0, -0.1)[:, :-2]
    mean = values.mean(dim=1)
    assert torch.allclose(rows["reward"], mean if reward == "mean_with_cost" else 1 - (mean - 0.9).abs())
    assert torch.allclose(rows["value"][:, :-2], values) and not rows["value"][:, -2:].any()
    assert torch.allclose(rows["next_signals"][:, 1], rows["click"][:, :-2].float().mean(dim=1))
    features = half_empty[1].item_features[rows["slate"].long()][:, :-2]  # (M, K - 2, F)
    shown = rows["next_signals"][:, 2 : 2 + features.shape[2]]
    assert torch.allclose(shown, features.mean(dim=1), atol=1e-6)


def test_logs_of_which_nothing_is_live_are_refused(logs):
    dataset, world = logs
    nothing = replace(
        dataset,
        session_items=np.zeros_like(dataset.session_items),
        session_feedback=np.zeros_like(dataset.session_feedback),
    )
    with pytest.raises(UserError, match="no logged slate"):
        make((nothing, world))


def test_only_logged_slates_are_taken_and_histories_are_their_own(logs):
    dataset, _ = logs
    fitted_origin = np.array([Origin.HISTORY, Origin.RANDOM, Origin.LOGGED], np.int8)
    origin = fitted_origin[np.arange(len(dataset.session_user)) % 3]
    mixed = replace(dataset, session_origin=origin)
    world = world_folder.FittedWorld(mixed, _model(mixed), FitSettings()).world([Split.TRAIN])
    rows = LoggedSlates(mixed, world, WorldSettings(history_length=H), 0).take(
        len(mixed.sessions_in(Split.TRAIN))
    )
    sessions = mixed.sessions_in(Split.TRAIN)
    expected = sorted(zip(map(tuple, mixed.session_items[sessions].tolist()),
                          map(tuple, mixed.history(sessions, H).tolist()), strict=True))  # fmt: skip
    taken = zip(map(tuple, rows["slate"].tolist()), map(tuple, rows["history"].tolist()), strict=True)

    assert sorted(taken) == expected


def test_logged_users_have_just_come_where_the_world_gives_signals(logs):
    _, world = logs
    rows = make(logs, signals=True).take(8)

    assert rows["signals"].shape == (8, width(world.item_features.shape[1])) and not rows["signals"].any()
    assert torch.allclose(rows["next_signals"][:, 1], rows["click"].float().mean(dim=1))


def _model(dataset: Dataset) -> ResponseModel:
    return ResponseModel(dataset.user_features.shape[1], dataset.item_features.shape[1], FitSettings().model)
