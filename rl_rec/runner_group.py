"""RLlib's group of env runners, made so that each can start anew from what it was given."""

from collections.abc import Iterator
from contextlib import contextmanager

from ray.rllib.algorithms import algorithm
from ray.rllib.env.env_runner_group import EnvRunnerGroup


class _ByValue(EnvRunnerGroup):
    def add_workers(self, num_workers: int, validate: bool = False) -> None:
        # RLlib passes a reference. Without its object a lost runner could not start anew, of which Ray's native
        # code warns on the terminal, runner by runner. The configuration has a few kilobytes.
        self._remote_config_obj_ref = self._remote_config
        super().add_workers(num_workers, validate)


@contextmanager
def configured_by_value() -> Iterator[None]:
    """Inside the block, algorithms give their env runners the configuration itself.

    Which class of group an algorithm takes is no setting of RLlib's.
    """
    before = algorithm.EnvRunnerGroup
    algorithm.EnvRunnerGroup = _ByValue
    try:
        yield
    finally:
        algorithm.EnvRunnerGroup = before
