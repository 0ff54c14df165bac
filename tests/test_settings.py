"""Strict settings: every wrong key or value fails in one line that names its full path."""

from typing import Literal

import pytest
from pydantic import Field, ValidationError, model_validator

from envs.errors import UserError
from envs.settings import LocationField, Settings
from envs.world_settings import WorldSettings


class Inner(Settings):
    hidden: int = Field(8, ge=1)
    """Width; raising it costs memory."""
    dropout: float | None = None
    """Share of units dropped."""


class Outer(Settings):
    gamma: float = Field(0.9, ge=0, le=1)
    seed: int = 0
    actor: Inner = Inner()

    @model_validator(mode="after")
    def _cross_field(self) -> "Outer":
        if self.seed == 13 and self.gamma == 1:
            raise ValueError("gamma is 1 with seed 13; set gamma below 1")
        return self


def message_of(call, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_overrides_reach_nested_fields_and_keep_the_rest():
    settings = Outer().with_overrides(["actor.hidden=32", "gamma=0.5"])
    assert (settings.actor.hidden, settings.gamma, settings.seed) == (32, 0.5, 0)


def test_overrides_leave_the_original_alone():
    original = Outer()
    original.with_overrides(["actor.hidden=32"])
    assert original == Outer()


def test_none_can_be_written():
    assert Outer(actor=Inner(dropout=0.1)).with_overrides(["actor.dropout=none"]).actor.dropout is None


@pytest.mark.parametrize(
    "assignment, path, nearest",
    [("gama=0.9", "'gama'", "'gamma'"), ("actor.hiden=3", "'actor.hiden'", "'actor.hidden'")],
)
def test_an_unknown_key_names_its_full_path_and_the_nearest_valid_one(assignment, path, nearest):
    text = message_of(Outer().with_overrides, [assignment])
    assert f"unknown setting {path}" in text
    assert f"did you mean {nearest}" in text


class Deeper(Settings):
    inner: Inner = Inner()
    actor: Inner = Inner()
    actors: int = 1
    name: str = Field("a", pattern="^[a-z]+$", examples=["team"])
    """What it is called."""
    mode: Literal["sync", "async"] = "sync"


@pytest.mark.parametrize(
    "assignment, expected",
    [
        ("hidden=3", "did you mean 'inner.hidden' or 'actor.hidden'?"),
        ("actors.hidden=3", "actors is a value, it has no field 'hidden'; did you mean 'actor.hidden'?"),
        ("actor=3", "actor: expected settings of its own (hidden, dropout), got '3'; did you mean 'actors'?"),
        ("inner=3", "inner: expected settings of its own (hidden, dropout), got '3'"),
        ("actors=many", "actors: expected a whole number, got 'many'"),
        ("actor.hidden=0", "actor.hidden: expected 1 or more, got '0'"),
        ("name=A1", "name: expected something like team (What it is called), got 'A1'"),
        ("mode=asink", "mode: expected 'sync' or 'async', got 'asink'"),
    ],
)
def test_a_mistake_is_told_in_words_with_the_way_out(assignment, expected):
    assert expected in message_of(Deeper().with_overrides, [assignment])


def test_what_is_missing_empty_or_inside_a_list_is_told_in_words():
    class Listed(Settings):
        names: dict[str, tuple[Inner | int, ...]] = Field({})
        question: str = Field(min_length=1)

    assert message_of(Listed.from_mapping, {}, "file") == "file.question is missing"
    assert (
        message_of(Listed.from_mapping, {"question": ""}) == "question: expected at least 1 character, got ''"
    )
    text = message_of(Listed.from_mapping, {"question": "?", "names": {"a.b": [1, {"hidden": 0}]}})
    assert text == "names.a.b.1.Inner.hidden: expected 1 or more, got 0"


def test_a_group_under_the_name_of_a_value_is_told_in_a_mapping_too():
    text = message_of(Deeper.from_mapping, {"actors": {"hidden": 3}})
    assert text.endswith("expected a whole number, got {'hidden': 3}; did you mean 'actor.hidden'?")


@pytest.mark.parametrize(
    "values, path, nearest",
    [({"gama": 1}, "'gama'", "'gamma'"), ({"actor": {"droput": 0}}, "'actor.droput'", "'actor.dropout'")],
)
def test_an_unknown_key_in_a_mapping_fails_the_same_way(values, path, nearest):
    text = message_of(Outer.from_mapping, values)
    assert path in text and nearest in text


def test_the_prefix_of_a_mapping_is_part_of_the_path():
    assert "agent.actor.hidden" in message_of(Outer.from_mapping, {"actor": {"hidden": 0}}, "agent")


@pytest.mark.parametrize(
    "assignment, expected",
    [
        ("gamma=high", "gamma"),
        ("gamma=1.5", "gamma"),
        ("seed=1.5", "seed"),
        ("seed=none", "seed"),
        ("actor.hidden=0", "actor.hidden"),
        ("actor=3", "actor"),
        ("gamma.x=3", "gamma is a value"),
        ("gamma", "path.to.field=value"),
        ("=3", "path.to.field=value"),
    ],
)
def test_a_wrong_value_or_form_names_the_field(assignment, expected):
    assert expected in message_of(Outer().with_overrides, [assignment])


def test_a_password_in_a_url_is_not_repeated():
    class Placed(Settings):
        place: LocationField | None = None

    text = message_of(Placed().with_overrides, ["place=s3://AKIA:HUNTER2@bucket/x"])
    assert text.startswith("place: s3://") and "no credentials" in text and "HUNTER2" not in text


def test_a_cross_field_check_keeps_its_own_message():
    text = message_of(Outer().with_overrides, ["seed=13", "gamma=1"])
    assert text == "gamma is 1 with seed 13; set gamma below 1"


def test_settings_cannot_be_changed_in_place():
    with pytest.raises(ValidationError):
        Outer().seed = 1


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "1e999"])
def test_numbers_are_finite(value):
    class Open(Settings):
        lr: float = Field(0.1, gt=0)

    assert "lr: " in message_of(Open().with_overrides, [f"lr={value}"])


@pytest.mark.parametrize(
    "text, expected", [("32,16", (32, 16)), ("[32, 16]", (32, 16)), ("32", (32,)), ("[]", ()), ("", ())]
)
def test_a_tuple_can_be_written(text, expected):
    class Layers(Settings):
        hidden: tuple[int, ...] = (8,)

    assert Layers().with_overrides([f"hidden={text}"]).hidden == expected
    assert "hidden.1: " in message_of(Layers().with_overrides, ["hidden=1,x"])


def test_a_key_of_a_mapping_is_set_by_its_path() -> None:
    assert WorldSettings().with_overrides(["weights.like=0.5", "weights.hate=-2"]).weights == {
        "like": 0.5,
        "hate": -2.0,
    }
    with pytest.raises(UserError, match=r"weights\.like"):
        WorldSettings().with_overrides(["weights.like=much"])


def test_changes_make_the_same_settings_of_the_defaults() -> None:
    class Model(Settings):
        layers: tuple[int, ...] = (8,)
        lr: float = 0.1
        frozen: bool = False

    class Run(Settings):
        model: Model = Model(lr=0.2)
        weights: dict[str, float] = Field({})
        device: str | None = "cpu"

    assert Run().changes() == []
    made = Run(model=Model(layers=(), lr=1e-5, frozen=True), weights={"a": 0.5, "b": -2.0}, device=None)
    assert made.changes() == [
        "model.layers=[]", "model.lr=1e-05", "model.frozen=True", "weights=a=0.5,b=-2.0", "device=None",
    ]  # fmt: skip
    assert Run().with_overrides(made.changes()) == made
