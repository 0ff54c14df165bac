from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs.data.behaviours import Behaviour
from envs.data.dataset import Dataset, Split
from envs.data.features import like_factors, one_hot, popularity, standardise
from envs.data.logs import Logs
from envs.data.prepare import PrepareSettings, prepare, split_users
from envs.data.sessions import Origin, Sessions
from envs.data.sources import SOURCES, Source
from envs.errors import UserError

SETTINGS = PrepareSettings(factors=3, popularity=True, slate_size=4)


def _learned(dataset: Dataset) -> np.ndarray:
    """What the item features hold of the logs."""
    learned = ("factor_", "log_exposures", "like_rate_logit")
    return dataset.item_features[:, [name.startswith(learned) for name in dataset.item_feature_names]]


def _some_users(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Exposures and likes, as unequal between users as in real logs."""
    rng = np.random.default_rng(seed)
    exposures = 10 + rng.geometric(0.02, count)
    return exposures, rng.binomial(exposures, rng.beta(5, 4, count))


@pytest.mark.parametrize("users", [10, 101, 943, 6040])
@pytest.mark.parametrize(("validation", "test"), [(0.1, 0.2), (0.0, 0.37), (0.45, 0.45), (0.0, 0.0)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_users_are_split_by_the_fractions_exactly(
    users: int, validation: float, test: float, seed: int
) -> None:
    settings = PrepareSettings(validation_fraction=validation, test_fraction=test, seed=seed)
    counts = np.bincount(split_users(*_some_users(users), settings), minlength=3)

    assert counts[Split.VALIDATION] == round(validation * users)
    assert counts[Split.TEST] == round(test * users)
    assert counts.sum() == users


def test_the_split_depends_on_the_seed_and_the_counts_alone() -> None:
    splits = [split_users(*_some_users(100), PrepareSettings(seed=seed)) for seed in (0, 0, 1)]

    assert np.array_equal(splits[0], splits[1])
    assert not np.array_equal(splits[0], splits[2])


@pytest.mark.parametrize("held_out", [Split.VALIDATION, Split.TEST])
def test_the_splits_are_alike(held_out: Split) -> None:
    # Root mean square distance from all users, as a share of what free draws of as many users have.
    exposures, likes = _some_users(943)
    everybody = np.ones(943, bool)
    rng = np.random.default_rng(0)
    stratified, free = [], []
    for seed in range(50):
        chosen = split_users(exposures, likes, PrepareSettings(seed=seed)) == held_out
        for differences, members in ((stratified, chosen), (free, rng.permutation(chosen))):
            rate, overall = (likes[m].sum() / exposures[m].sum() for m in (members, everybody))
            differences.append((rate - overall, exposures[members].mean() - exposures.mean()))
    share = np.square(stratified).mean(axis=0) ** 0.5 / np.square(free).mean(axis=0) ** 0.5

    assert (share < 0.5).all(), f"like rate {share[0]:.2f}, activity {share[1]:.2f}"


def test_one_test_user_comes_from_every_stretch_of_like_rates() -> None:
    # 20 levels of activity, 20 users of each, ordered by like rate and cut in stretches of ten.
    exposures, likes = np.repeat(np.arange(100, 120), 20), np.tile(np.arange(20), 20)
    split = split_users(exposures, likes, PrepareSettings(test_fraction=0.1, validation_fraction=0.0))

    assert (split[likes < 10] == Split.TEST).sum() == (split[likes >= 10] == Split.TEST).sum() == 20


def test_equal_users_are_split_at_random() -> None:
    split = split_users(np.full(1000, 9), np.full(1000, 3), PrepareSettings(test_fraction=0.2))
    by_place = np.add.reduceat(split == Split.TEST, np.arange(0, 1000, 50))

    assert len(np.unique(by_place)) > 1, "places in the log must not decide"


def test_users_without_exposures_are_split_too() -> None:
    counts = np.bincount(split_users(np.zeros(10, int), np.zeros(10, int), PrepareSettings()), minlength=3)

    assert counts.tolist() == [7, 1, 2]


def test_no_user_is_in_two_splits(ml_100k: Path) -> None:
    dataset = prepare("ml-100k", ml_100k, SETTINGS)
    seen = [set(dataset.session_user[dataset.sessions_in(split)].tolist()) for split in Split]

    assert all(seen)
    assert sum(map(len, seen)) == len(set.union(*seen)) == dataset.users


def test_learned_features_see_training_users_only(ml_100k: Path) -> None:
    before = prepare("ml-100k", ml_100k, SETTINGS)
    rows = [line.split("\t") for line in (ml_100k / "u.data").read_text().splitlines()]
    held_out = {before.user_ids[user] for user in np.flatnonzero(before.user_split != Split.TRAIN)}
    # Held-out users keep how much they like, which decides the split, and like other items more often.
    changed = [[u, "1", r, t] if u in held_out else [u, i, r, t] for u, i, r, t in rows]
    (ml_100k / "u.data").write_text("\n".join(map("\t".join, changed)))
    after = prepare("ml-100k", ml_100k, SETTINGS)

    assert np.array_equal(after.user_split, before.user_split)
    assert not np.array_equal(after.likes, before.likes)
    assert _learned(after).shape == (10, 5) and _learned(after).any(axis=0).all()
    assert np.array_equal(_learned(after), _learned(before))


def test_learned_features_follow_training_users(ml_100k: Path) -> None:
    everybody_trains = SETTINGS.model_copy(update={"validation_fraction": 0.0, "test_fraction": 0.0})
    before = prepare("ml-100k", ml_100k, everybody_trains)
    rows = [line.split("\t") for line in (ml_100k / "u.data").read_text().splitlines()]
    (ml_100k / "u.data").write_text("\n".join(f"{u}\t{i}\t{6 - int(r)}\t{t}" for u, i, r, t in rows))
    after = prepare("ml-100k", ml_100k, everybody_trains)

    # Other ratings of the same films: the exposures stay, their reception and its factors change.
    assert (_learned(after) != _learned(before)).any(axis=0).tolist() == [False, True, True, True, True]


def _by_hand() -> Logs:
    """Three users, four items; the second behaviour, on its own, is no like."""
    rows = [  # user, time, items, feedback, origin
        (0, 1, (1, 2), (1, 1), Origin.HISTORY),
        (0, 2, (3, 1), (1, 2), Origin.LOGGED),
        (0, 3, (2, 0), (1, 0), Origin.RANDOM),
        (0, 4, (2, 4), (3, 1), Origin.LOGGED),
        (1, 1, (4, 0), (0, 0), Origin.LOGGED),
        (1, 2, (4, 3), (1, 1), Origin.LOGGED),
        (2, 1, (1, 0), (1, 0), Origin.RANDOM),
    ]
    user, time, items, feedback, origin = zip(*rows, strict=True)
    sessions = Sessions(
        np.array(user, np.int32),
        np.array(time, np.int64),
        np.array(items, np.int32),
        np.array(feedback, np.int8),
        np.array(origin, np.int8),
    )
    names = np.array(["a", "b", "c", "d"], object)
    return Logs(
        user_ids=names[:3],
        user_features=np.zeros((3, 1), np.float32),
        user_feature_names=("one",),
        item_ids=names,
        item_titles=names,
        item_features=np.zeros((4, 1), np.float32),
        item_feature_names=("one",),
        sessions=sessions,
        behaviours=(Behaviour("click"), Behaviour("share")),
    )


def test_who_counts_as_liked_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """The split balances all that was shown, random slates included; features are learned from logged ones."""
    asked: dict[str, list[Any]] = {}

    def split(exposures: Any, likes: Any, _settings: PrepareSettings) -> Any:
        asked["split"] = [exposures.tolist(), likes.tolist()]
        return np.array([Split.TRAIN, Split.TEST, Split.TRAIN], np.int8)

    def factors(user: Any, item: Any, is_train: Any, items: int, count: int, _seed: int) -> Any:
        asked["factors"] = [user.tolist(), item.tolist(), is_train.tolist()]
        return np.zeros((items, count), np.float32)

    def popular(item: Any, liked: Any, items: int) -> Any:
        asked["popularity"] = [item.tolist(), liked.tolist()]
        return np.zeros((items, 2), np.float32)

    source = Source(lambda _: _by_hand(), lambda _raw, _settings: [], factors=lambda _: 1, takes=frozenset())
    monkeypatch.setitem(SOURCES, "by hand", source)
    monkeypatch.setattr("envs.data.prepare.split_users", split)
    monkeypatch.setattr("envs.data.prepare.like_factors", factors)
    monkeypatch.setattr("envs.data.prepare.popularity", popular)
    dataset = prepare("by hand", None, PrepareSettings(slate_size=2, popularity=True))

    assert asked["split"] == [[5, 3, 1], [4, 2, 1]], "what is known from before the logs was not shown"
    assert asked["factors"] == [[0, 0, 0, 1, 1], [3, 2, 4, 4, 3], [True, False, True]], "in order of time"
    assert asked["popularity"] == [[3, 1, 2, 4], [True, False, True, True]], "training users' logged slates"
    assert dataset.likes.tolist() == [1, 2, 3, 2, 4, 4, 3], "histories hold no random slate"
    assert dataset.session_likes_before.tolist() == [0, 2, 2, 3, 0, 0, 0]


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


def test_popularity_by_hand() -> None:
    # Item 1: shown 3 times, liked twice; item 2: once, never; item 3: never shown. Half of all responses are
    # likes, so ten more exposures add 5 likes: odds 7/6, 5/6 and 5/5.
    item, feedback = np.array([1, 1, 1, 2], np.int32), np.array([1, 1, 0, 0], np.int8)
    exposures = np.log([4.0, 2.0, 1.0])  # log(1 + exposures)
    odds = np.log([7 / 6, 5 / 6, 1.0])
    columns = popularity(item, feedback, items=3)

    for column, values in zip(columns.T, (exposures, odds), strict=True):
        assert column.tolist() == pytest.approx(((values - values.mean()) / values.std()).tolist(), abs=1e-6)


@pytest.mark.parametrize("feedback", [0, 1])
def test_popularity_of_one_kind_of_response_is_finite(feedback: int) -> None:
    columns = popularity(np.array([1, 1, 2], np.int32), np.full(3, feedback, np.int8), items=3)

    assert np.isfinite(columns).all() and columns.dtype == np.float32


def test_popularity_without_exposures_says_nothing() -> None:
    assert not popularity(np.zeros(0, np.int32), np.zeros(0, np.int8), items=3).any()


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"factors": 0, "popularity": True}, ["log_exposures", "like_rate_logit"]),
        ({"factors": 0}, []),
        ({"factors": 2}, ["factor_0", "factor_1"]),
        ({"factors": 1, "popularity": True}, ["log_exposures", "like_rate_logit", "factor_0"]),
    ],
)
def test_learned_features_join_as_set(ml_100k: Path, settings: dict, names: list[str]) -> None:
    dataset = prepare("ml-100k", ml_100k, PrepareSettings(**settings))

    assert list(dataset.item_feature_names[20:]) == names
    assert dataset.item_feature_names[19] == "year"
    assert dataset.item_features.shape == (10, 20 + len(names))


def test_popularity_can_join_the_synthetic_world() -> None:
    names = prepare("synthetic", None, PrepareSettings(popularity=True)).item_feature_names

    assert names[-3:] == ("popularity", "log_exposures", "like_rate_logit")


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
    assert dataset.settings["popularity"] is False
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
        ({"slate_size": 0}, "slate_size: expected 1 or more, got 0"),
        ({"synthetic": {"popular_share": 0.9}}, "popular_share . personal_share is 1.2"),
        ({"synthetic": {"user": 9}}, "unknown setting 'synthetic.user'; did you mean 'synthetic.users'"),
    ],
)
def test_settings_out_of_range_are_refused(values: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        PrepareSettings.from_mapping(values)


def test_a_split_without_training_users_is_refused() -> None:
    with pytest.raises(UserError, match="2 users leave none for training"):
        split_users(
            np.ones(2, int), np.ones(2, int), PrepareSettings(test_fraction=0.5, validation_fraction=0.3)
        )
