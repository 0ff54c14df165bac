"""The gymnasium façades: what they show, what they accept, and when they seat new users."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.vector import AutoresetMode

from envs.env_config import EnvConfig
from envs.errors import UserError
from envs.simulator import Simulator
from envs.slate_env import SlateEnv, SlateVectorEnv
from envs.world_settings import WorldSettings

RULES = {"history_length": 5, "max_steps": 6}


def random_slates(env, seed):
    """Distinct items in each slate, so that clicks happen often."""
    rng = np.random.default_rng(seed)
    return rng.permuted(np.tile(np.arange(env.world.num_items), (env.num_envs, 1)), axis=1)[
        :, : env.world.slate_size
    ]


def play(env, seed, steps=30):
    """Everything that a rollout shows."""
    seen = [env.reset(seed=seed)]
    for step in range(steps):
        seen.append(env.step(random_slates(env, step)))
    return seen


@pytest.mark.filterwarnings("ignore:.*(infinity|render fps)")  # advice, not errors
@pytest.mark.parametrize("observation", ["dict", "features"])
@pytest.mark.parametrize("candidates", [None, 12])
def test_the_single_env_passes_gymnasiums_checks(small_world, observation, candidates):
    env = gymnasium.make(
        "envs.registration:rl_rec/Slate-v0",
        world=small_world(),
        observation=observation,
        settings={**RULES, "candidates": candidates},
    )
    check_env(env.unwrapped)


def test_the_vector_env_declares_next_step_and_batched_spaces(small_world):
    env = SlateVectorEnv(3, world=small_world(), settings={**RULES, "candidates": 12})
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert env.single_action_space == gymnasium.spaces.MultiDiscrete([30] * 4)
    observations, _ = env.reset(seed=1)
    for _ in range(20):
        assert observations in env.observation_space
        observations, *_ = env.step(env.action_space.sample())


def test_next_step_autoreset_against_a_core_stepped_by_hand(small_world):
    world, rules = small_world(), WorldSettings(**RULES)
    env = SlateVectorEnv(8, world=world, settings=rules)
    env.reset(seed=5)
    core = Simulator(world, rules, 8, seed=5)
    finished = torch.zeros(8, dtype=torch.bool)
    endings = seatings = 0
    for step in range(40):
        slates = random_slates(env, step)
        played = np.where(finished[:, None], -7, slates)  # nonsense, which must be ignored
        observations, reward, terminated, truncated, infos = env.step(played)

        before = core.history.clone()
        expected = core.advance(torch.from_numpy(slates) + 1, hold=finished)
        last = core.history.clone()
        core.restart(finished)
        served = ~finished

        assert np.array_equal(observations["history"][served], last[served])
        assert np.array_equal(observations["history"][finished], core.history[finished])
        assert np.array_equal(observations["profile"], world.profiles[core.user])
        assert np.array_equal(reward, torch.where(finished, 0.0, expected.reward))
        assert np.array_equal(terminated, expected.terminated & served)
        assert np.array_equal(truncated, expected.truncated & served)
        assert np.array_equal(infos["clicks"], expected.click & served[:, None])
        assert np.array_equal(infos["_clicks"], served)
        seatings += int(finished.sum())
        finished = (expected.terminated | expected.truncated) & served
        # A finished user's last observation is their own: their history with what they just clicked.
        for slot in torch.nonzero(finished & expected.click.any(dim=1)).flatten():
            clicked = slates[slot][expected.click[slot].numpy()] + 1
            own = np.concatenate([before[slot], clicked])[-5:]
            assert np.array_equal(observations["history"][slot], own)
            endings += 1
    assert endings > 5 and seatings > 20


def test_the_single_env_is_the_vector_env_with_one_user(small_world):
    world = small_world()
    single, vector = SlateEnv(world=world, settings=RULES), SlateVectorEnv(1, world=world, settings=RULES)
    one, _ = single.reset(seed=3)
    many, _ = vector.reset(seed=3)
    assert np.array_equal(one["history"], many["history"][0])
    ended, step = False, 0
    while not ended:
        slates = random_slates(vector, step)
        one, reward, terminated, truncated, info = single.step(slates[0])
        many, rewards, terminations, truncations, infos = vector.step(slates)
        assert np.array_equal(one["history"], many["history"][0])
        assert (reward, terminated, truncated) == (rewards[0], terminations[0], truncations[0])
        assert np.array_equal(info["clicks"], infos["clicks"][0])
        ended, step = terminated or truncated, step + 1
    with pytest.raises(gymnasium.error.ResetNeeded):
        single.step(slates[0])


def test_the_same_seed_is_equal_to_the_bit_and_another_is_not(small_world):
    world = small_world()
    envs = [SlateVectorEnv(4, world=world, settings=RULES, seed=s) for s in (None, 9)]
    first, second = (play(env, seed=2) for env in envs)
    assert data_equivalence(first, second, exact=True)
    assert data_equivalence(first, play(envs[0], seed=2), exact=True)
    assert not data_equivalence(first, play(envs[0], seed=3), exact=True)


def test_the_constructors_seed_holds_until_reset_gives_another(small_world):
    world = small_world()
    first, again, unseeded = (SlateVectorEnv(16, world=world, settings=RULES, seed=s) for s in (9, 9, None))
    users = [env.reset()[1]["user"].tolist() for env in (first, again, unseeded)]
    assert users[0] == users[1] != users[2]


def test_a_reset_without_a_seed_seats_other_users(small_world):
    env = SlateVectorEnv(16, world=small_world(users=1000), settings=RULES)
    _, first = env.reset(seed=0)
    env.step(random_slates(env, 0))
    _, second = env.reset()
    assert first["user"].tolist() != second["user"].tolist()
    assert not env.simulator.steps.any()


def test_dict_observations_hold_profile_history_and_candidates(small_world):
    world = small_world()
    env = SlateVectorEnv(4, world=world, settings={**RULES, "candidates": 12})
    env.reset(seed=0)
    observations, *_ = env.step(random_slates(env, 0))
    core = env.simulator
    assert np.array_equal(observations["profile"], world.profiles[core.user])
    assert np.array_equal(observations["history"], core.history)
    assert np.array_equal(observations["candidates"], core.candidates)
    assert list(observations) == list(env.single_observation_space)  # agents zip the two


def test_feature_observations_against_loops(small_world):
    world = small_world()
    env = SlateVectorEnv(16, world=world, settings=RULES, observation="features")
    observations, _ = env.reset(seed=0)
    features, lengths = world.item_features.numpy(), set()
    for row, user, history in zip(
        observations, env.simulator.user, env.simulator.history.tolist(), strict=True
    ):
        liked = [item for item in history if item]
        mean = np.mean([features[i] for i in liked], axis=0) if liked else np.zeros(6)
        last = features[liked[-1]] if liked else np.zeros(6)
        expected = np.concatenate([world.profiles[user], mean, last, [len(liked) / 5]])
        np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-6)
        lengths.add(len(liked))
    assert lengths == {0, 3, 5}  # empty, partly filled and full histories were all seen


def test_observations_are_copies(small_world):
    env = SlateVectorEnv(4, world=small_world(), settings=RULES)
    observations, infos = env.reset(seed=0)
    observations["history"][:] = 29
    infos["user"][:] = 1
    assert not (env.simulator.history == 29).all() and not (env.simulator.user == 1).all()


@pytest.mark.parametrize("repeats, clicks", [("forbid", [False, True]), ("allow", [True, True])])
def test_items_that_may_not_be_shown_get_no_response(small_world, repeats, clicks):
    world = small_world(items=12, slate=2, logits=[50.0] * 12)  # whatever is shown is clicked
    env = SlateEnv(world=world, settings={"repeats": repeats, "start_history": "empty", "history_length": 5})
    env.reset(seed=0)
    assert env.step([3, 3])[4]["clicks"].tolist() == [True, False]  # the same item twice in a slate
    observation, *_, info = env.step([3, 7])  # action 3 is item 4, which is in the history now
    assert info["clicks"].tolist() == clicks
    assert observation["history"].tolist() == ([0, 0, 0, 4, 8] if repeats == "forbid" else [0, 0, 4, 4, 8])


def test_the_step_that_seats_a_new_user_costs_no_item_anything(small_world):
    world = small_world(slate=2, logits=[50.0] * 30)  # whatever is shown is clicked
    rules = {"candidates": 30, "repeats": "allow", "max_steps": 1, "budgets": {"clicks": 9.0}}
    env = SlateVectorEnv(2, world=world, settings=rules)
    env.reset(seed=0)
    env.step([[4, 5], [4, 5]])
    env.step([[4, 5], [4, 5]])  # ignored: new users arrive
    assert env.simulator.budgets.spent.nonzero().flatten().tolist() == [5, 6]


def test_reset_seats_the_users_asked_for(small_world):
    world = small_world()
    env = SlateVectorEnv(3, world=world, settings=RULES)
    observations, infos = env.reset(seed=0, options={"users": np.array([7, 2, 7])})
    assert infos["user"].tolist() == [7, 2, 7]
    assert np.array_equal(observations["profile"], world.profiles[[7, 2, 7]])
    again, _ = env.reset(seed=0, options={"users": [7, 2, 7]})
    assert data_equivalence(observations, again, exact=True)
    assert SlateEnv(world=world, settings=RULES).reset(options={"users": [4]})[1] == {"user": 4}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"user": [1, 2]}, "unknown setting 'options.user'; did you mean 'options.users'"),
        ({"users": [1]}, "expected 2 users"),
        ({"users": [1, 99]}, r"this population, got \[1, 99\]"),
    ],
)
def test_wrong_reset_options_are_refused(small_world, options, message):
    with pytest.raises(UserError, match=message):
        SlateVectorEnv(2, world=small_world(), settings=RULES).reset(options=options)


@pytest.mark.parametrize(
    "actions, message",
    [
        (np.zeros((2, 3), np.int64), r"expected integers of shape \(2, 4\), got int64 of \(2, 3\)"),
        (np.zeros((2, 4)), "expected integers"),
        (np.full((2, 4), 30), r"expected 0 … 29 \(item index − 1\), got 30 … 30"),
        (np.full((2, 4), -1), "got -1"),
    ],
)
def test_actions_outside_the_space_are_refused(small_world, actions, message):
    env = SlateVectorEnv(2, world=small_world(), settings=RULES)
    env.reset(seed=0)
    with pytest.raises(UserError, match=message):
        env.step(actions)


@pytest.mark.parametrize("make", [SlateEnv, SlateVectorEnv])
@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"observations": "dict"}, "unknown setting 'observations'; did you mean 'observation'"),
        ({"settings": {"repeat": "allow"}}, "'settings.repeat'; did you mean 'settings.repeats'"),
        ({"observation": "flat"}, "observation: "),
        ({"splits": ["train"]}, "splits cannot be changed in a loaded world"),
        ({"simulator": "x"}, "either simulator"),
    ],
)
def test_wrong_arguments_are_refused(small_world, make, wrong, message):
    with pytest.raises(UserError, match=message):
        make(**{"world": small_world(), "settings": RULES, **wrong})


def test_a_world_or_a_folder_is_needed_and_one_user_at_least(small_world, tmp_path):
    with pytest.raises(UserError, match="either simulator"):
        SlateEnv()
    with pytest.raises(UserError, match="simulator"):
        SlateEnv(simulator=tmp_path)
    with pytest.raises(UserError, match="num_envs"):
        SlateVectorEnv(0, world=small_world())
    with pytest.raises(UserError, match="lies on cpu, it is needed on meta"):
        EnvConfig(world=small_world()).open("meta")


def test_text_of_the_last_slate(small_world):
    world = small_world(items=12, slate=2, logits=[50.0] * 6 + [-50.0] * 6)
    env = SlateEnv(
        "ansi", world=world, settings={"history_length": 3, "repeats": "allow", "start_history": "empty"}
    )
    env.reset(seed=0, options={"users": [6]})
    env.step([2, 8])
    assert env.render() == "user 6, 1 slates shown\n  + item 3\n  - item 9"
    assert SlateEnv(world=world, settings={"repeats": "allow"}).render() is None
    with pytest.raises(TypeError, match="render_mode"):
        SlateEnv("human", world=world, settings={"repeats": "allow"})
