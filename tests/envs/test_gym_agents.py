"""Other libraries' agents learn on our environments: a world in which a few items please everybody."""

import numpy as np
import pytest

from envs.env_config import ENV_ID
from envs.slate_env import SlateVectorEnv

pytestmark = pytest.mark.extras

RULES = {"repeats": "allow", "start_history": "empty", "history_length": 5}


@pytest.fixture(scope="module")
def easy_world(small_world):
    """12 items in slates of two: three are clicked nine times in ten, the others once in twenty."""
    return small_world(items=12, slate=2, logits=[2.2] * 3 + [-3.0] * 9)


@pytest.fixture(scope="module")
def random_return(easy_world):
    """Mean return of random slates over 256 users, one episode each."""
    env = SlateVectorEnv(256, world=easy_world, settings=RULES, seed=0)
    env.action_space.seed(0)
    env.reset(seed=0)
    returns, running = np.zeros(256), np.ones(256, bool)
    while running.any():
        _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        returns += reward * running
        running &= ~(terminated | truncated)
    return returns.mean()


@pytest.mark.filterwarnings("ignore:.*render_mode='rgb_array'")  # asked for first, then done without
def test_stable_baselines3_learns(easy_world, random_return):
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy

    import envs.registration  # noqa: F401

    env = make_vec_env(
        ENV_ID,
        n_envs=8,
        seed=0,
        env_kwargs={"world": easy_world, "settings": RULES, "observation": "features"},
    )
    agent = PPO("MlpPolicy", env, n_steps=64, batch_size=128, learning_rate=3e-3, seed=0, device="cpu")
    agent.learn(8_000)
    reached, _ = evaluate_policy(agent, env, n_eval_episodes=40)
    assert reached > random_return + 4


@pytest.mark.ray
def test_rllibs_ppo_learns(ray_session, easy_world, random_return):
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, EPISODE_RETURN_MEAN

    import envs.rllib

    envs.rllib.register()
    algorithm = (
        PPOConfig()
        .environment(ENV_ID, env_config={"world": easy_world, "settings": RULES, "observation": "features"})
        .env_runners(num_env_runners=0, num_envs_per_env_runner=32, gym_env_vectorize_mode="vector_entry_point")
        .training(train_batch_size_per_learner=1024, minibatch_size=128, num_epochs=6, lr=3e-3)
        .debugging(seed=0)
        .build_algo()
    )
    try:
        returns = [algorithm.train()[ENV_RUNNER_RESULTS][EPISODE_RETURN_MEAN] for _ in range(16)]
    finally:
        algorithm.stop()
    assert returns[-1] > random_return + 4, returns
