"""The environment by its name."""

import subprocess
import sys
import warnings

import gymnasium
import pytest

from envs.env_config import ENV_ID
from envs.registration import register
from envs.slate_env import SlateEnv, SlateVectorEnv

PREFIXED = f"envs.registration:{ENV_ID}"
RULES = {"history_length": 5}


def test_make_and_make_vec_by_name_alone():
    # In a fresh process, which imports nothing of ours: the missing world shows that our classes were reached.
    program = (
        "import gymnasium\n"
        "for make in (gymnasium.make, gymnasium.make_vec):\n"
        "    try:\n"
        f"        make({PREFIXED!r}, settings={RULES!r})\n"
        "    except ValueError as error:\n"
        "        print(type(error).__module__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.count("envs.errors the environment needs either simulator") == 2, done.stderr


def test_the_vector_entry_point_is_the_default_of_make_vec(small_world):
    env = gymnasium.make_vec(PREFIXED, num_envs=3, world=small_world(), settings=RULES)
    assert isinstance(env.unwrapped, SlateVectorEnv) and env.num_envs == 3
    assert isinstance(gymnasium.make(ENV_ID, world=small_world(), settings=RULES).unwrapped, SlateEnv)


def test_gymnasiums_own_vectorisation_works_too(small_world):
    env = gymnasium.make_vec(
        PREFIXED, num_envs=3, vectorization_mode="sync", world=small_world(), settings=RULES
    )
    env.reset(seed=0)
    for _ in range(25):
        env.step(env.action_space.sample())


def test_registering_again_is_harmless():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        register()


@pytest.mark.parametrize("module", ["envs", "envs.simulator", "envs.world_folder"])
def test_the_world_does_not_need_gymnasium(module):
    program = f"import sys, {module}; sys.exit('gymnasium' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=120).returncode == 0
