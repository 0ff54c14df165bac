"""The simulator's report: planted mistakes must appear in it, and nothing else."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from envs.calibration import Quality
from envs.data.behaviours import Behaviour
from envs.data.dataset import Dataset, Split
from envs.data.prepare import PrepareSettings, prepare
from envs.data.sessions import Origin
from envs.data.synthetic import SyntheticSettings
from envs.errors import UserError
from envs.fit import FitSettings
from envs.fit_ensemble import FittedEnsemble
from envs.response import ResponseModel, ResponseSettings
from envs.world_folder import FittedWorld
from envs.world_settings import WorldSettings
from rl_rec.evaluation import Evaluation
from rl_rec.simulator_report.findings import is_off, sentences
from rl_rec.simulator_report.groups import groups, popularity_deciles
from rl_rec.simulator_report.measure import LogFound, measure
from rl_rec.simulator_report.page import write_report
from rl_rec.simulator_report.policies import PoliciesFound

SLATE, ITEMS, USERS = 5, 50, 300
RULES = WorldSettings(history_length=4, max_steps=3, repeats="allow")
LIKED = 0.4


def constant_model(dataset: Dataset, p: float, behaviours: int = 1) -> ResponseModel:
    """Gives every item the probability ``p`` for everybody."""
    shape = (dataset.user_features.shape[1], dataset.item_features.shape[1])
    model = ResponseModel(*shape, ResponseSettings(dim=4, hidden=4), behaviours)
    for weight in model.parameters():
        torch.nn.init.zeros_(weight)
    model.shift.fill_(float(np.log(p / (1 - p))))
    return model.eval()


def shifted_for(model: ResponseModel, dataset: Dataset, items: np.ndarray, by: float) -> ResponseModel:
    """Adds ``by`` to the logits of ``items``, which the first item feature marks."""
    dataset.item_features[:, 0] = 0.0
    dataset.item_features[items, 0] = 1.0
    with torch.no_grad():
        model.item_bias[0].weight[0, 0] = 1.0
        model.item_bias[2].weight[0, 0] = by
    return model


@pytest.fixture(scope="module")
def planted() -> Dataset:
    """Everybody likes everything with probability 0.4; item i is shown about in proportion to i."""
    settings = SyntheticSettings(users=USERS, items=ITEMS, sessions_per_user=8)
    made = prepare("synthetic", None, PrepareSettings(slate_size=SLATE, synthetic=settings))
    rng = np.random.default_rng(0)
    sessions = made.session_items.shape[0]
    keys = rng.exponential(size=(sessions, ITEMS)) / np.arange(1, ITEMS + 1)
    items = keys.argsort(axis=1)[:, :SLATE] + 1
    liked = rng.random(items.shape) < LIKED
    return replace(
        made,
        session_items=items.astype(np.int32),
        session_feedback=liked.astype(np.int8),
    )


def fresh(dataset: Dataset) -> Dataset:
    return replace(dataset, item_features=dataset.item_features.copy())


def found_in(dataset: Dataset, model: ResponseModel) -> dict[Origin, LogFound]:
    fitted = FittedWorld(dataset, model, FitSettings(history_length=4))
    return measure(fitted, fitted.world([Split.TEST]))


def off(found: LogFound) -> dict[str, float]:
    return {
        f"{group.kind}: {group.label}": group.bias.gap
        for group in found.groups
        if is_off(group.bias, len(found.groups))
    }


def as_if_learned(logs: dict[Origin, LogFound], auc: float = 0.7) -> dict[Origin, LogFound]:
    """The same logs, of whose first behaviour the model tells more than simpler predictors do."""
    quality = {"model": Quality(auc, 0.55, 0.01), "base_rate": Quality(0.5, 0.67, 0.01)}
    quality |= {name: Quality(0.65, 0.6, 0.01) for name in ("popularity", "gradient_boosting")}
    return {
        origin: replace(found, quality={**found.quality, next(iter(found.quality)): quality})
        for origin, found in logs.items()
    }


def policies(**returns: float) -> PoliciesFound:
    def reached(value: float) -> Evaluation:
        one = torch.ones(1, dtype=torch.int64)
        return Evaluation(torch.tensor([value]).double(), one, one, one, 0.5, 1, 0.1, 0.1, float("nan"))

    return PoliciesFound({name: reached(value) for name, value in returns.items()})


FOUR = {"random": 1.0, "popular": 2.0, "constant": 4.0, "oracle": 6.0}


def test_a_right_model_is_trusted(planted: Dataset):
    logs = found_in(planted, constant_model(planted, LIKED))
    found = logs[Origin.LOGGED]

    assert list(logs) == [Origin.LOGGED]
    assert off(found) == {}
    assert found.overall.ece < 0.03 and found.quality["like"]["model"].auc == 0.5
    assert list(found.quality["like"]) == ["model", "base_rate", "popularity", "gradient_boosting"]
    said = sentences(as_if_learned(logs), policies(**FOUR), None)
    assert said[0].startswith("May be trusted: probabilities of what the logging system showed; ")
    assert said[1].startswith("No group of items or users is predicted wrongly")
    assert said[2].startswith("Untested: ") and "no randomly drawn slates" in said[2]
    assert "add 40% of the range" in said[3] and "little room" not in said[3]
    assert "--set ensemble=4" in said[4]
    unranked = sentences(as_if_learned(logs, auc=0.65), policies(**FOUR), None)
    assert unranked[0].startswith("May be trusted in the mean, not user by user")


def test_a_model_that_learned_nothing_is_not_trusted_however_well_calibrated(planted: Dataset):
    # Half of the slates are drawn at random, and liked alike.
    origin = (np.random.default_rng(1).random(len(planted.session_user)) < 0.5).astype(np.int8)
    logs = found_in(replace(planted, session_origin=origin), constant_model(planted, LIKED))
    said = sentences(logs, policies(**FOUR), None)

    assert list(logs) == [Origin.LOGGED, Origin.RANDOM]
    assert said[0].startswith(
        "Not to be trusted: who does what (like); the model learned next to nothing: held-out"
    )
    assert "--set model.dim" in said[0]
    assert said[1].startswith("Right in the mean only")
    assert not any(sentence.startswith("May be trusted") for sentence in said)


def test_a_second_behaviour_that_was_not_learned_comes_first(planted: Dataset):
    dataset = with_purchases(planted)
    logs = as_if_learned(found_in(dataset, constant_model(dataset, LIKED, behaviours=2)))
    said = sentences(logs, policies(**FOUR), None)

    assert said[0].startswith(
        "Not to be trusted: who does what (buy); the model predicts worse than the base rate"
    )
    assert said[1].startswith("May be trusted: probabilities of what the logging system showed (like); ")


def test_a_planted_mistake_for_rare_items_is_shown(planted: Dataset):
    dataset = fresh(planted)
    decile, _ = popularity_deciles(dataset)
    model = shifted_for(constant_model(dataset, LIKED), dataset, np.flatnonzero(decile == 0), by=2.0)
    logs = found_in(dataset, model)
    wrong = off(logs[Origin.LOGGED])

    (name, gap), *others = wrong.items()
    rare = next(group.bias for group in logs[Origin.LOGGED].groups if group.label.startswith("1 of 10"))
    assert name.startswith("item popularity: 1 of 10") and others == []
    assert rare.predicted == pytest.approx(1 / (1 + np.exp(-2.0) * (1 - LIKED) / LIKED))  # 0.83 instead of 0.4
    assert gap == pytest.approx(rare.predicted - LIKED, abs=3 * (LIKED * (1 - LIKED) / rare.responses) ** 0.5)
    said = sentences(logs, policies(**FOUR), None)
    assert any(
        "Not to be trusted: predictions for items of the least popular decile" in sentence
        and "too high" in sentence
        for sentence in said
    )


def test_selection_bias_shows_in_randomly_drawn_slates(planted: Dataset):
    # The logging system knows a taste that no feature tells: what it showed was liked at 0.4, what was drawn at
    # random at 0.15. Half of the slates are random ones.
    rng = np.random.default_rng(1)
    origin = (rng.random(len(planted.session_user)) < 0.5).astype(np.int8)
    drawn = rng.random(planted.session_items.shape) < 0.15
    feedback = np.where(origin[:, None] == Origin.RANDOM, drawn, planted.session_feedback)
    dataset = replace(planted, session_origin=origin, session_feedback=feedback.astype(np.int8))
    logs = found_in(dataset, constant_model(dataset, LIKED))

    assert list(logs) == [Origin.LOGGED, Origin.RANDOM]
    assert abs(logs[Origin.LOGGED].overall.gap) < 0.03
    assert logs[Origin.RANDOM].overall.gap == pytest.approx(0.25, abs=0.03)
    # The references know the training users' logged slates only.
    assert logs[Origin.RANDOM].quality["like"]["base_rate"].ece == pytest.approx(0.25, abs=0.03)
    said = sentences(logs, policies(**FOUR), None)
    assert "randomly drawn slates they are 0.2" in said[3] and "selection bias" in said[3]
    assert not any(sentence.startswith("Untested") for sentence in said)
    popular = next(sentence for sentence in said if "the most popular decile" in sentence)
    assert popular.endswith("in randomly drawn slates.") and "too high" in popular


def with_purchases(planted: Dataset) -> Dataset:
    """Of what was liked, a quarter is bought; what was not liked is never bought."""
    rng = np.random.default_rng(2)
    bought = (rng.random(planted.session_items.shape) < 0.25) & (planted.session_feedback == 1)
    return replace(
        planted,
        behaviours=(Behaviour("like"), Behaviour("buy", after="like")),
        item_money=np.repeat(planted.item_money, 2, axis=1),
        session_feedback=(planted.session_feedback + 2 * bought).astype(np.int8),
    )


def test_every_behaviour_is_measured_where_it_could_have_happened(planted: Dataset):
    dataset = with_purchases(planted)
    model = constant_model(dataset, LIKED, behaviours=2)
    model.shift[1] = float(np.log(0.25 / 0.75))
    quality = found_in(dataset, model)[Origin.LOGGED].quality

    assert list(quality) == ["like", "buy"]
    assert quality["buy"]["base_rate"].log_loss == pytest.approx(0.562, abs=0.04)  # entropy of a quarter
    assert quality["buy"]["model"].ece < 0.05 and quality["like"]["model"].ece < 0.05


def test_deciles_by_hand(planted: Dataset):
    # Twenty items, of which item i was logged i times to training users, and often to others and at random.
    train, test = (planted.users_in(split)[0] for split in (Split.TRAIN, Split.TEST))
    shown = np.repeat(np.arange(1, 21), np.arange(1, 21))
    rows = [(train, item, Origin.LOGGED) for item in shown]
    rows += [(test, 1, Origin.LOGGED)] * 50 + [(train, 2, Origin.RANDOM)] * 50
    rows.sort(key=lambda row: row[0])
    user, item, origin = (np.array(column) for column in zip(*rows, strict=True))
    items = np.zeros((len(rows), SLATE), np.int32)
    items[:, 0] = item
    dataset = replace(
        planted,
        item_ids=planted.item_ids[:21], item_titles=planted.item_titles[:21],
        item_features=planted.item_features[:21], item_money=planted.item_money[:21],
        session_user=user.astype(np.int32), session_time=np.arange(len(rows)), session_items=items,
        session_feedback=np.zeros_like(items, np.int8), session_origin=origin.astype(np.int8),
    )  # fmt: skip
    decile, ranges = popularity_deciles(dataset)
    assert decile.tolist() == [-1, *np.repeat(np.arange(10), 2).tolist()]
    assert ranges == [(i, i + 1) for i in range(1, 21, 2)]


def test_equally_popular_items_stay_together(planted: Dataset):
    items = planted.session_items.copy()
    items[:] = [1, 2, 3, 4, 5]  # shown alike, the others never
    decile, ranges = popularity_deciles(replace(planted, session_items=items))
    assert len(ranges) == 2 and ranges[0] == (0, 0) and ranges[1][0] == ranges[1][1] > 0
    assert decile[1:6].tolist() == [1] * 5 and set(decile[6:].tolist()) == {0}


def test_likes_are_those_of_the_other_half(planted: Dataset):
    # Users 0, 1, 2 with two halves of two responses. The other half's rates: 1, 0; 0, 0.5; 0.5, 0.5.
    user, half = np.repeat([0, 1, 2], 4), np.tile([0, 0, 1, 1], 3)
    liked = np.array([0, 0, 1, 1, 1, 0, 0, 0, 1, 0, 1, 0.0])
    made = {
        group.label: group.inside.nonzero()[0].tolist()
        for group in groups(planted, user, np.ones(12, np.int64), liked, half, None)
        if group.kind == "user likes"
    }
    assert made == {
        "like little": [2, 3, 4, 5],
        "like some": [6, 7, 8, 9, 10, 11],
        "like much": [0, 1],
    }


def test_groups_of_users_and_of_uncertainty(planted: Dataset):
    user = np.repeat(planted.users_in(Split.TEST), 3)
    n = len(user)
    made = groups(planted, user, np.ones(n, np.int64), np.zeros(n), np.arange(n) % 2, np.arange(n) / n)
    kinds = {kind: [g for g in made if g.kind == kind] for kind in dict.fromkeys(g.kind for g in made)}

    assert [g.label for g in kinds["user activity"]] == ["few sessions", "some sessions", "many sessions"]
    for group in kinds["user feature"]:
        place = planted.user_feature_names.index(group.label)
        assert "=" in group.label
        assert (planted.user_features[user[group.inside], place] == 1).all()
    sizes = [int(g.inside.sum()) for g in kinds["user feature"]]
    assert 1 < len(sizes) <= 6 and sizes == sorted(sizes, reverse=True)
    assert [int(g.inside.sum()) for g in kinds["uncertainty"]] == pytest.approx([n / 3] * 3, abs=1)
    assert kinds["uncertainty"][0].inside[: n // 3].all()


def test_headroom_by_hand():
    assert policies(**FOUR).headroom == pytest.approx((6 - 4) / (6 - 1))
    assert policies(random=1.0, popular=2.0, constant=5.9, oracle=6.0).headroom == pytest.approx(0.02)


def test_a_world_without_taste_is_told(planted: Dataset):
    logs = found_in(planted, constant_model(planted, LIKED))
    flat = policies(random=1.0, popular=2.0, constant=5.9, oracle=6.0)
    assert any(
        sentence.endswith("have little room here.") for sentence in sentences(as_if_learned(logs), flat, None)
    )
    # Where the fit learned nothing, the users may still have a taste.
    fit_failed = "little room here, which is the failure of the fit (like) and tells nothing of the users."
    assert any(sentence.endswith(fit_failed) for sentence in sentences(logs, flat, None))


def test_an_oracle_that_earns_no_more_than_chance_leaves_little_room(planted: Dataset):
    logs = found_in(planted, constant_model(planted, LIKED))
    said = sentences(logs, policies(random=1.0, popular=1.0, constant=1.0, oracle=1.0), None)
    assert any("personal slates add nothing. Comparisons" in sentence for sentence in said)


def test_support_by_hand():
    found = policies(**FOUR)
    evaluations = {
        name: replace(
            result,
            uncertainty=torch.tensor([0.1, 0.2, 0.3, 0.4] if name == "oracle" else [0.1] * 4),
            supported_up_to=0.25,
        )
        for name, result in found.evaluations.items()
    }
    support = PoliciesFound(evaluations).support(np.array([0.0, 0.1, 0.2, 0.3]))
    assert support is not None
    assert {name: figures["unsupported"] for name, figures in support.items()} == {
        "logged": 0.25, "random": 0.0, "popular": 0.0, "constant": 0.0, "oracle": 0.5,
    }  # fmt: skip
    assert support["oracle"]["mean"] == pytest.approx(0.25)
    assert support["logged"]["q50"] == pytest.approx(0.15)
    assert found.support(None) is None


@pytest.fixture(scope="module")
def fitted(planted: Dataset) -> FittedWorld:
    """With an ensemble whose one further model says 0.5 where the world says 0.4."""
    ensemble = FittedEnsemble(lambda: [constant_model(planted, 0.5)], threshold=0.05)
    return FittedWorld(planted, constant_model(planted, LIKED), FitSettings(history_length=4), ensemble)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search for the best constant ranking takes as long as all the rest."""
    monkeypatch.setattr("rl_rec.comparison.search_ranking", lambda _world, _rules, scores, _seed, **_: scores)


def test_the_page_stands_by_itself(fitted: FittedWorld, tmp_path: Path, quick: None):
    seen: list[tuple[int, int]] = []

    def watch(done: int, total: int, message: str = "") -> None:
        seen.append((done, total))

    write: Callable[..., dict] = lambda **more: write_report(  # noqa: E731
        Path("sim"), fitted, RULES, tmp_path / "report", episodes=32, progress=watch, **more
    )
    result = write()
    page = (tmp_path / "report" / "index.html").read_text()
    text = (tmp_path / "report" / "report.md").read_text()
    figures = json.loads((tmp_path / "report" / "figures.json").read_text())

    assert seen[-1] == (4, 4) and len(seen) == 4
    assert result["page"] == str(tmp_path / "report" / "index.html")
    assert page.count("<svg") == 3 and not any(word in page for word in ("<script", "<link", "src="))
    assert "--accent:" in page  # the look that all reports share
    for sentence in figures["findings"]:
        assert f"- {sentence}" in text
    assert "Calibration by group, logged slates" in page and "gradient boosting" in page
    for name in ("reliability", "groups", "support"):
        assert (tmp_path / "report" / f"{name}.svg").exists() and (tmp_path / "report" / f"{name}.csv").exists()
    # Everywhere the two models are 0.1 apart: 0.1/√2.
    assert figures["support"]["oracle"]["mean"] == pytest.approx(0.1 / 2**0.5, abs=1e-5)
    assert figures["support"]["random"]["unsupported"] == 1.0
    assert any(s.startswith("Not to be trusted: the returns of random, popular") for s in figures["findings"])
    assert set(figures["policies"]) == {"random", "popular", "constant", "oracle"}
    assert figures["logs"]["logged"]["overall"]["responses"] > 100
    with pytest.raises(UserError, match="--overwrite"):
        write()
    write(overwrite=True)


def test_the_report_is_the_same_again(fitted: FittedWorld, tmp_path: Path, quick: None):
    for name in ("one", "two"):
        write_report(Path("sim"), fitted, RULES, tmp_path / name, episodes=16)
    for file in ("index.html", "figures.json", "support.csv"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file
