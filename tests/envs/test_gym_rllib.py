"""The environment in RLlib's stock runner: one name, one env_config, both ways of vectorising."""

import numpy as np
import pytest

from envs.env_config import ENV_ID
from envs.errors import UserError
from envs.slate_env import SlateVectorEnv

pytestmark = [
    pytest.mark.ray,
    # RLlib registers the same temporary name for every runner of a process.
    pytest.mark.filterwarnings("ignore:.*Overriding environment rllib-single-agent-env"),
]

RULES = {"history_length": 5, "max_steps": 6}


def stock_runner(env_config, mode):
    """RLlib's own runner, without a module: PPO's default one cannot read our dict observations."""
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

    import envs.rllib

    class RandomRunner(SingleAgentEnvRunner):
        def make_module(self):
            self.module = None

    envs.rllib.register()  # another test may have started a Ray of its own
    config = (
        PPOConfig()
        .environment(ENV_ID, env_config=env_config)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=4, gym_env_vectorize_mode=mode)
        .debugging(seed=3)
    )
    return RandomRunner(config=config, worker_index=0)


@pytest.mark.parametrize("mode", ["vector_entry_point", "sync"])
def test_the_stock_runner_collects_whole_episodes(ray_session, small_world, mode):
    world = small_world()
    runner = stock_runner({"world": world, "settings": RULES}, mode)
    assert isinstance(runner.env.unwrapped, SlateVectorEnv) == (mode == "vector_entry_point")
    finished = [e for e in runner.sample(num_episodes=12, random_actions=True) if e.is_done]
    assert len(finished) >= 12
    for episode in finished:
        observations, infos = episode.get_observations(), episode.get_infos()
        assert len(infos) == len(episode) + 1 <= 7
        # One user from the first observation to the last, whose history follows from their own clicks alone.
        assert len({info["user"] for info in infos}) == 1
        assert (observations["profile"] == world.profiles[infos[0]["user"]].numpy()).all()
        history = observations["history"]
        for step, action in enumerate(episode.get_actions()):
            clicked = action[infos[step + 1]["clicks"]] + 1
            assert np.array_equal(history[step + 1], np.concatenate([history[step], clicked])[-5:])
    runner.stop()


def test_the_runner_seeds_the_environment(ray_session, small_world):
    config = {"world": small_world(users=1000), "settings": RULES}
    users = []
    for _ in range(2):
        runner = stock_runner(config, "vector_entry_point")
        runner.sample(num_timesteps=4, random_actions=True)
        users.append(runner.env.unwrapped.simulator.user.tolist())
        assert runner.env.unwrapped.np_random_seed == 3
        runner.stop()
    assert users[0] == users[1]


@pytest.mark.parametrize("mode", ["vector_entry_point", "sync"])
def test_the_stock_runner_refuses_a_misspelt_key(ray_session, small_world, mode):
    with pytest.raises(UserError, match=r"'env_config.setings'; did you mean 'env_config.settings'"):
        stock_runner({"world": small_world(), "setings": RULES}, mode)


def test_world_from_env_config_is_the_facades_world(small_world):
    from envs import rllib  # seconds: only the tests that need it wait

    env_config = {"world": small_world(), "settings": RULES}
    world, rules = rllib.world_from_env_config(env_config, "cpu")
    env = SlateVectorEnv(2, **env_config)
    assert world is env.world and rules == env.config.settings


@pytest.mark.parametrize(
    "key, message",
    [
        ("seed", r"env_config.seed: RLlib sets it, use config.debugging\(seed"),
        ("num_envs", "num_envs_per_env_runner"),
        ("simulater", r"'env_config.simulater'; did you mean 'env_config.simulator'"),
    ],
)
def test_what_rllib_sets_and_what_nobody_knows_is_refused(small_world, key, message):
    from envs import rllib  # seconds: only the tests that need it wait

    with pytest.raises(UserError, match=message):
        rllib.world_from_env_config({"world": small_world(), key: 1})
