"""HAC's settings: strict about keys, ranges and combinations, also behind RLlib's back."""

import pytest

from envs.errors import UserError
from rl_rec.agents import find_agent
from rl_rec.hac.config import HACSettings
from rl_rec.train_settings import TrainSettings

DEFAULTS = TrainSettings[HACSettings](agent=HACSettings()).model_dump(mode="json")


def changed(path: str, value: object) -> dict:
    """The defaults as plain data with one value set, known or not."""
    values = TrainSettings[HACSettings].model_validate(DEFAULTS).model_dump(mode="json")
    target = values
    *parents, name = path.split(".")
    for parent in parents:
        target = target[parent]
    target[name] = value
    return values


@pytest.mark.parametrize(
    "misspelt, meant",
    [
        ("step", "steps"),
        ("world.repeat", "world.repeats"),
        ("rollout.user", "rollout.users"),
        ("replay.batchsize", "replay.batch_size"),
        ("evaluation.evry", "evaluation.every"),
        ("agent.gama", "agent.gamma"),
        ("agent.encoder.dims", "agent.encoder.dim"),
        ("agent.exploration.sigma_finale", "agent.exploration.sigma_final"),
    ],
)
def test_a_misspelt_key_is_named_with_its_path_and_the_nearest_one(misspelt, meant):
    with pytest.raises(UserError) as caught:
        TrainSettings[HACSettings].from_mapping(changed(misspelt, 1), where="settings")
    message = str(caught.value)
    assert f"unknown setting 'settings.{misspelt}'" in message
    assert f"did you mean 'settings.{meant}'" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "path, value",
    [
        ("steps", 0),
        ("seed", -1),
        ("rollout.users", 0),
        ("rollout.fragment", 0),
        ("rollout.mode", "synchronous"),
        ("replay.ratio", 0),
        ("replay.batch_size", 0),
        ("evaluation.every", -1),
        ("agent.gamma", 1.0),
        ("agent.gamma", -0.1),
        ("agent.tau", 0),
        ("agent.tau", 1.1),
        ("agent.actor_lr", 0),
        ("agent.critic_lr", -1e-3),
        ("agent.policy_weight", -1),
        ("agent.alignment_weight", -1),
        ("agent.supervision_weight", -1),
        ("agent.policy_temperature", 0),
        ("agent.scorer", "mlp"),
        ("agent.critic_action", "slate"),
        ("agent.encoder.dropout", 1.0),
        ("agent.encoder.layers", 0),
        ("agent.exploration.sigma", -0.1),
        ("agent.exploration.temperature", 0),
        ("agent.exploration.effect", "greedy"),
    ],
)
def test_a_value_out_of_range_is_named(path, value):
    with pytest.raises(UserError, match=f"^{path}: .*got {value!r}$"):
        TrainSettings[HACSettings].from_mapping(changed(path, value))


def test_the_layers_of_the_critic_can_be_written_and_have_units():
    default = TrainSettings[HACSettings].from_mapping(DEFAULTS)
    assert default.with_overrides(["agent.critic_hidden=32,16"]).agent.critic_hidden == (32, 16)
    with pytest.raises(UserError, match=r"^agent.critic_hidden.1: "):
        default.with_overrides(["agent.critic_hidden=32,0"])


@pytest.mark.parametrize(
    "path, value, message",
    [
        ("agent.encoder.heads", 5, r"encoder.heads=5 must divide encoder.dim=32"),
        ("replay.capacity", 63, r"replay.capacity=63 must hold replay.batch_size=64"),
        (
            "rollout.users",
            100_001,
            r"rollout.users=100001 bring 100001 transitions at once, replay.capacity=100000",
        ),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused(path, value, message):
    with pytest.raises(UserError, match=message):
        TrainSettings[HACSettings].from_mapping(changed(path, value))


def test_plain_data_holds_every_setting():
    settings = TrainSettings[HACSettings](agent=HACSettings(critic_hidden=(3,), scorer="hyper_network"))
    assert TrainSettings[HACSettings].from_mapping(settings.model_dump(mode="json")) == settings


@pytest.mark.ray
@pytest.mark.parametrize(
    "space, message",
    [
        (
            {"settings": changed("agent.gama", 0.5)},
            r"'settings.agent.gama'; did you mean 'settings.agent.gamma'",
        ),
        ({"gama": 0.5}, r"unknown key 'gama' in RLlib's configuration; did you mean 'gamma'"),
        ({"setings": changed("agent.gamma", 0.5)}, r"unknown key 'setings'.*did you mean 'settings'"),
    ],
)
def test_a_search_space_over_a_misspelt_key_does_not_run_on_the_defaults(space, message):
    """RLlib takes any key: ``update_from_dict({"gama": 0.5})`` passes its own ``validate``."""
    from rl_rec.hac.algorithm import HACConfig

    config = HACConfig().update_from_dict(space)
    with pytest.raises(UserError, match=message):
        config.validate()


@pytest.mark.ray
def test_a_search_space_over_a_known_key_is_taken():
    from rl_rec.hac.algorithm import HACConfig

    config = HACConfig().update_from_dict({"settings": changed("agent.gamma", 0.5)})
    config.validate()
    assert config.train_settings().agent.gamma == 0.5


@pytest.mark.ray
def test_async_needs_somebody_to_wait_for():
    from rl_rec.hac.algorithm import HACConfig

    config = HACConfig().update_from_dict({"settings": changed("rollout.mode", "async")})
    with pytest.raises(ValueError, match=r"rollout.mode=async needs rollout.runners >= 1"):
        config.validate()


def test_a_critic_of_hyper_actions_is_not_asked_about_slates():
    with pytest.raises(UserError, match=r"set agent\.policy_action=hyper too"):
        HACSettings.from_mapping({"critic_action": "hyper", "policy_action": "soft_effect"})


def test_a_run_that_ends_before_it_learns_says_what_to_set():
    settings = find_agent("hac").train_settings(steps=400)
    assert settings.idle is not None and "--set replay.learning_starts=80" in settings.idle
    assert settings.with_overrides(["replay.learning_starts=80"]).idle is None
