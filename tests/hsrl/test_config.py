"""HSRL's settings: strict about keys and ranges, also behind RLlib's back; and where semantic IDs come from."""

import numpy as np
import pytest
import torch

from envs.errors import UserError
from rl_rec.agents import find_agent
from rl_rec.hsrl.catalogue import catalogue_sids
from rl_rec.hsrl.config import HSRLSettings
from rl_rec.train_settings import TrainSettings

DEFAULTS = TrainSettings[HSRLSettings](agent=HSRLSettings()).model_dump(mode="json")


def changed(path: str, value: object) -> dict:
    """The defaults as plain data with one value set, known or not."""
    values = TrainSettings[HSRLSettings].model_validate(DEFAULTS).model_dump(mode="json")
    target = values
    *parents, name = path.split(".")
    for parent in parents:
        target = target[parent]
    target[name] = value
    return values


@pytest.mark.parametrize(
    "misspelt, meant",
    [
        ("agent.gama", "agent.gamma"),
        ("agent.sid_level", "agent.sid_levels"),
        ("agent.node_score", "agent.node_scores"),
        ("agent.beam_with", "agent.beam_width"),
        ("agent.encoder.dims", "agent.encoder.dim"),
    ],
)
def test_a_misspelt_key_is_named_with_its_path_and_the_nearest_one(misspelt, meant):
    with pytest.raises(UserError) as caught:
        TrainSettings[HSRLSettings].from_mapping(changed(misspelt, 1), where="settings")
    message = str(caught.value)
    assert f"unknown setting 'settings.{misspelt}'" in message
    assert f"did you mean 'settings.{meant}'" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "path, value",
    [
        ("agent.sid_levels", 0),
        ("agent.sid_levels", 17),
        ("agent.sid_codebook", 0),
        ("agent.context", "residual"),
        ("agent.temperature", 0),
        ("agent.beam_width", 0),
        ("agent.rank", "random"),
        ("agent.gamma", 1.0),
        ("agent.credit", "token"),
        ("agent.credit_unit", "item"),
        ("agent.level_value_weight", -1),
        ("agent.exclusions", "all"),
        ("agent.ratio_max", 0),
        ("agent.policy_weight", -1),
        ("agent.entropy_weight", -1),
        ("agent.cloning_weight", -1),
        ("agent.supervision_weight", -1),
        ("agent.consistency_weight", -1),
        ("agent.actor_lr", 0),
        ("agent.critic_lr", 0),
        ("agent.tau", 0),
    ],
)
def test_a_value_out_of_range_is_named(path, value):
    with pytest.raises(UserError, match=f"^{path}: .*got {value!r}$"):
        TrainSettings[HSRLSettings].from_mapping(changed(path, value))


def test_the_layers_of_the_critic_can_be_written_and_have_units():
    default = TrainSettings[HSRLSettings].from_mapping(DEFAULTS)
    assert default.with_overrides(["agent.critic_hidden=32,16"]).agent.critic_hidden == (32, 16)
    with pytest.raises(UserError, match=r"^agent.critic_hidden.1: "):
        default.with_overrides(["agent.critic_hidden=32,0"])


def test_plain_data_holds_every_setting(tmp_path):
    agent = HSRLSettings(critic_hidden=(3,), context="state", sids=tmp_path / "ids")
    settings = TrainSettings[HSRLSettings](agent=agent)
    assert TrainSettings[HSRLSettings].from_mapping(settings.model_dump(mode="json")) == settings


def test_it_is_registered():
    assert isinstance(find_agent("hsrl").train_settings().agent, HSRLSettings)


@pytest.mark.ray
def test_a_search_space_over_a_misspelt_key_does_not_run_on_the_defaults():
    from rl_rec.hsrl.algorithm import HSRLConfig

    config = HSRLConfig().update_from_dict({"settings": changed("agent.gama", 0.5)})
    with pytest.raises(UserError, match=r"'settings.agent.gama'; did you mean 'settings.agent.gamma'"):
        config.validate()
    config = HSRLConfig().update_from_dict({"settings": changed("agent.tau", 0.5)})
    config.validate()
    assert config.train_settings().agent.tau == 0.5


# --- semantic IDs -------------------------------------------------------------------------------------


def test_semantic_ids_are_built_from_the_item_features(small_world):
    world, every = small_world(items=30), torch.arange(31) > 0
    settings = HSRLSettings(sid_levels=2, sid_codebook=4)
    codebook, tokens = catalogue_sids(world, settings, every)
    assert codebook.sizes == (4, 4) and tokens.shape == (31, 2) and tokens.dtype == np.int32
    assert tokens[0].tolist() == [-1, -1]
    np.testing.assert_array_equal(codebook.encode(world.item_features[1:].numpy()), tokens[1:])
    again = catalogue_sids(world, settings, every)
    np.testing.assert_array_equal(tokens, again[1])  # every process makes the same ones


def test_items_that_are_not_born_yet_do_not_shape_the_codebook(small_world):
    world, settings = small_world(items=30), HSRLSettings(sid_levels=2, sid_codebook=4)
    born = (torch.arange(31) > 0) & (torch.arange(31) <= 20)
    codebook, tokens = catalogue_sids(world, settings, born)
    world.item_features[21:] += 50.0
    later, moved = catalogue_sids(world, settings, born)
    np.testing.assert_array_equal(tokens[:21], moved[:21])
    for one, other in zip(codebook.centres, later.centres, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(moved[21:], codebook.encode(world.item_features[21:].numpy()))


def test_a_folder_that_is_none_is_refused_in_one_line(small_world, tmp_path):
    with pytest.raises(UserError) as caught:
        catalogue_sids(small_world(), HSRLSettings(sids=tmp_path / "none"), torch.arange(31) > 0)
    assert "\n" not in str(caught.value)


def test_credit_of_slots_and_a_discount_do_not_go_together():
    with pytest.raises(UserError, match=r"agent\.credit_unit=slate or agent\.gamma=0"):
        find_agent("hsrl").train_settings().with_overrides(["agent.gamma=0.5"])


@pytest.mark.parametrize("name", ["supervision_weight", "consistency_weight"])
def test_two_heads_need_what_teaches_everything_but_the_second(name):
    with pytest.raises(UserError, match=rf"agent\.residual.* set .*agent\.{name}"):
        find_agent("hsrl").train_settings().with_overrides(["agent.residual=0.5", f"agent.{name}=0"])
