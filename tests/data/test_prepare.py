from pathlib import Path

import numpy as np
import pytest

from envs.data.dataset import Dataset, Split
from envs.data.features import like_factors, one_hot, standardise
from envs.data.prepare import PrepareSettings, prepare, split_users
from envs.errors import UserError

SETTINGS = PrepareSettings(factors=3, slate_size=4)


def _factors(dataset: Dataset) -> np.ndarray:
    columns = [name.startswith("factor_") for name in dataset.item_feature_names]
    return dataset.item_features[:, columns]


@pytest.mark.parametrize("users", [10, 943, 6040])
def test_users_are_split_by_the_fractions(users: int) -> None:
    split = split_users(users, PrepareSettings(validation_fraction=0.1, test_fraction=0.2))
    counts = np.bincount(split, minlength=3)

    assert counts[Split.VALIDATION] == round(0.1 * users)
    assert counts[Split.TEST] == round(0.2 * users)
    assert counts.sum() == users


def test_the_split_depends_on_the_seed_alone() -> None:
    splits = [split_users(100, PrepareSettings(seed=seed)) for seed in (0, 0, 1)]

    assert np.array_equal(splits[0], splits[1])
    assert not np.array_equal(splits[0], splits[2])


def test_no_user_is_in_two_splits(ml_100k: Path) -> None:
    dataset = prepare("ml-100k", ml_100k, SETTINGS)
    seen = [set(dataset.session_user[dataset.sessions_in(split)].tolist()) for split in Split]

    assert all(seen)
    assert sum(map(len, seen)) == len(set.union(*seen)) == dataset.users


def test_factors_see_training_users_only(ml_100k: Path) -> None:
    before = prepare("ml-100k", ml_100k, SETTINGS)
    rows = [line.split("\t") for line in (ml_100k / "u.data").read_text().splitlines()]
    held_out = {before.user_ids[user] for user in np.flatnonzero(before.user_split != Split.TRAIN)}
    changed = [[u, i, str(6 - int(r)), t] if u in held_out else [u, i, r, t] for u, i, r, t in rows]
    (ml_100k / "u.data").write_text("\n".join(map("\t".join, changed)))
    after = prepare("ml-100k", ml_100k, SETTINGS)

    assert len(after.likes) != len(before.likes)
    assert _factors(after).any()
    assert np.array_equal(_factors(after), _factors(before))


def test_factors_follow_training_users(ml_100k: Path) -> None:
    before = prepare("ml-100k", ml_100k, SETTINGS)
    rows = [line.split("\t") for line in (ml_100k / "u.data").read_text().splitlines()]
    (ml_100k / "u.data").write_text("\n".join(f"{u}\t{i}\t{6 - int(r)}\t{t}" for u, i, r, t in rows))

    assert not np.array_equal(_factors(prepare("ml-100k", ml_100k, SETTINGS)), _factors(before))


def test_factors_are_standardised_and_zero_without_a_training_like() -> None:
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, 30, 300).astype(np.int32), rng.integers(1, 11, 300).astype(np.int32)
    is_train = np.arange(30) < 20
    user[item == 4] = 25  # liked by a held-out user only; items 11 and 12 by nobody
    factors = like_factors(user, item, is_train, items=12, factors=2, seed=0)
    liked = np.delete(factors, [3, 10, 11], axis=0)

    assert factors.shape == (12, 2) and factors.dtype == np.float32
    assert not factors[[3, 10, 11]].any()
    assert liked.mean(axis=0) == pytest.approx([0, 0], abs=1e-6)
    assert liked.std(axis=0) == pytest.approx([1, 1], abs=1e-6)


def test_factors_separate_two_audiences() -> None:
    # Users 0..9 like items 1..5, users 10..19 like items 6..10: the second factor tells them apart.
    user = np.repeat(np.arange(20), 5).astype(np.int32)
    item = (np.tile(np.arange(1, 6), 20) + 5 * (user >= 10)).astype(np.int32)
    item[0] = 6  # breaks the tie between the two audiences
    factors = like_factors(user, item, np.ones(20, bool), items=10, factors=2, seed=0)

    assert np.abs(np.sign(factors[:5, 0]).sum()) == np.abs(np.sign(factors[5:, 0]).sum()) == 5
    assert np.sign(factors[1, 0]) != np.sign(factors[9, 0])


def test_a_repeated_like_counts_once() -> None:
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, 30, 300).astype(np.int32), rng.integers(1, 11, 300).astype(np.int32)
    train = np.ones(30, bool)
    once = like_factors(user, item, train, 10, 2, seed=0)
    again = np.r_[np.arange(300), np.arange(90), np.arange(60)]
    twice = like_factors(user[again], item[again], train, 10, 2, seed=0)

    assert np.array_equal(once, twice)


def test_zero_factors_add_no_features(ml_100k: Path) -> None:
    dataset = prepare("ml-100k", ml_100k, PrepareSettings(factors=0))

    assert dataset.item_feature_names[-1] == "year"
    assert dataset.item_features.shape == (10, 20)


def test_too_many_factors_are_refused(ml_100k: Path) -> None:
    with pytest.raises(UserError, match=r"factors=24 needs .* got 9 users and 9 items: set factors lower"):
        prepare("ml-100k", ml_100k)


def test_features_of_a_constant_are_zero() -> None:
    assert not standardise([0.1] * 7).any()
    assert standardise([1.0, 3.0]).tolist() == [-1.0, 1.0]
    assert one_hot([2, 0], 3).tolist() == [[0, 0, 1], [1, 0, 0]]


def test_preparing_again_gives_the_same_fingerprint(ml_100k: Path) -> None:
    assert (
        prepare("ml-100k", ml_100k, SETTINGS).fingerprint == prepare("ml-100k", ml_100k, SETTINGS).fingerprint
    )


def test_the_resolved_settings_are_recorded() -> None:
    dataset = prepare("synthetic", None, PrepareSettings(seed=4))

    assert dataset.settings["factors"] == 0, "the source's choice, not None"
    assert dataset.settings["synthetic"]["users"] == 1000
    assert dataset.seed == 4


def test_progress_reaches_its_end() -> None:
    reports: list[tuple[int, int]] = []
    prepare("synthetic", None, progress=lambda done, total, message="": reports.append((done, total)))

    assert reports == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown dataset 'ml100k'; did you mean 'ml-100k'"):
        prepare("ml100k", None)


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("ml-1m", None, "ml-1m needs the folder of its raw files"),
        ("synthetic", Path("somewhere"), "leave out the raw folder somewhere"),
    ],
)
def test_the_raw_folder_is_where_it_is_needed(name: str, raw: Path | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        prepare(name, raw)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"test_fraction": 0.95}, "validation_fraction . test_fraction is 1.05, expected below 1"),
        ({"slate_size": 0}, "slate_size: .*greater than or equal to 1"),
        ({"synthetic": {"popular_share": 0.9}}, "popular_share . personal_share is 1.2"),
        ({"synthetic": {"user": 9}}, "unknown setting 'synthetic.user'; did you mean 'synthetic.users'"),
    ],
)
def test_settings_out_of_range_are_refused(values: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        PrepareSettings.from_mapping(values)


def test_a_split_without_training_users_is_refused() -> None:
    with pytest.raises(UserError, match="2 users leave none for training"):
        split_users(2, PrepareSettings(test_fraction=0.5, validation_fraction=0.3))
