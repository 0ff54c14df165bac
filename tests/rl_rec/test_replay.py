"""The ring: what is kept, what is drawn, and that it goes on where it was stored."""

import pytest
import torch

from rl_rec.replay import Replay


def rows(first: int, count: int) -> dict[str, torch.Tensor]:
    """Rows that know their number."""
    number = torch.arange(first, first + count)
    return {"slate": number[:, None].expand(-1, 3).int(), "reward": number / 10, "terminated": number % 2 == 0}


def kept(replay: Replay) -> list[int]:
    return sorted(replay.columns["slate"][: len(replay), 0].tolist())


def test_the_last_rows_are_kept_whatever_the_batches():
    replay = Replay(capacity=7, seed=0)
    first = 0
    for count in (3, 3, 1, 5, 7, 2, 7, 6):  # ends before, at and beyond the ring's end
        replay.add(rows(first, count))
        first += count
        assert len(replay) == min(first, 7)
        assert kept(replay) == list(range(max(0, first - 7), first))
    assert replay.added == first


def test_the_columns_of_a_row_stay_together():
    replay = Replay(capacity=5, seed=0)
    for first in range(0, 12, 4):
        replay.add(rows(first, 4))
    sample = replay.sample(200)
    number = sample["slate"][:, 0]

    assert (sample["slate"] == number[:, None]).all()
    assert torch.equal(sample["reward"], number / 10)
    assert torch.equal(sample["terminated"], number % 2 == 0)
    assert {name: column.dtype for name, column in sample.items()} == {
        "slate": torch.int32, "reward": torch.float32, "terminated": torch.bool
    }  # fmt: skip


def test_rows_are_drawn_uniformly_from_what_was_added():
    replay = Replay(capacity=100, seed=0)
    replay.add(rows(0, 8))
    count = torch.bincount(replay.sample(16_000)["slate"][:, 0], minlength=8)

    assert count.shape == (8,), "rows never added are never drawn"
    assert ((count - 2000).abs() < 4 * 42).all(), "four standard deviations of a binomial"


def test_the_seed_decides_the_draws():
    draws = []
    for seed in (1, 1, 2):
        replay = Replay(capacity=50, seed=seed)
        replay.add(rows(0, 50))
        draws.append(replay.sample(20)["slate"])

    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize("added", [0, 4, 6, 15])
def test_a_restored_replay_goes_on_bit_equal(added: int):
    replay = Replay(capacity=6, seed=3)
    for first in range(0, added, 3):
        replay.add(rows(first, min(3, added - first)))
    state = replay.state_dict()
    other = Replay(capacity=6, seed=99)
    other.load_state_dict(state)
    for one in (replay, other):  # in turn: the state shares no memory with either
        one.add(rows(100, 4))
        one.add(rows(200, 3))

    assert other.added == replay.added == added + 7
    one, two = replay.sample(30), other.sample(30)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_state_does_not_change_with_the_replay():
    replay = Replay(capacity=4, seed=0)
    replay.add(rows(0, 4))
    state = replay.state_dict()
    replay.add(rows(50, 4))

    assert state["columns"]["slate"][:, 0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("capacity", [4, 20])
def test_a_state_of_another_capacity_is_refused(capacity: int):
    replay = Replay(capacity=10, seed=0)
    replay.add(rows(0, 10))
    replay.add(rows(10, 3))

    with pytest.raises(ValueError, match=f"capacity|replay of {capacity}"):
        Replay(capacity=capacity, seed=0).load_state_dict(replay.state_dict())


def test_other_columns_are_refused():
    replay = Replay(capacity=4, seed=0)
    replay.add(rows(0, 2))
    with pytest.raises(
        ValueError, match=r"expected columns \['reward', 'slate', 'terminated'\], got \['reward'\]"
    ):
        replay.add({"reward": torch.zeros(2)})
    assert replay.added == 2


def test_more_rows_than_the_capacity_are_refused():
    with pytest.raises(ValueError, match="5 rows do not fit a replay of 4"):
        Replay(capacity=4, seed=0).add(rows(0, 5))
