"""What every experiment of Tune has here: where it is stored, whom it calls, and what a person sees of it."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ray.tune import Callback

from envs.errors import UserError
from envs.notice import NOTICE
from envs.storage.working_copy import WorkingCopy, copy_of
from tuning.retries import Failures
from tuning.stored import ResultsFirst, TellUnsaved
from tuning.termination import SaveWhenTold


def always() -> list[Callback]:
    """What every experiment of Tune calls: who asks for a checkpoint before who looks for one."""
    return [TellUnsaved(), SaveWhenTold(), Failures(), ResultsFirst()]


@contextmanager
def tune_storage(folder: Path) -> Iterator[dict[str, Any]]:
    """Where Tune has the experiment ``folder``, for ``RunConfig``: every node must be able to write there.

    In a working copy that is the URL, which gets what changed before the block, and gives what changed in it.
    """
    copy = copy_of(folder)
    if copy is None:
        yield {"name": folder.name, "storage_path": str(folder.parent)}
        return
    copy.push()
    filesystem, around = copy.on_storage(folder.parent)
    try:
        yield {"name": folder.name, "storage_path": around, "storage_filesystem": filesystem}
    except BaseException:
        with suppress(OSError, UserError):  # what is told is why Tune failed
            _pull(copy)
        raise
    _pull(copy)


def _pull(copy: WorkingCopy) -> None:
    if not NOTICE.given:  # who is told to end reads no results
        copy.pull()


@contextmanager
def quiet() -> Iterator[None]:
    """Leave the terminal to our progress: no tables, notices and tracebacks of Tune and RLlib in the block.

    ``RL_REC_TRACEBACK=1`` lets their errors through.
    """
    level = logging.ERROR if os.environ.get("RL_REC_TRACEBACK") else logging.CRITICAL
    loggers = {name: logging.getLogger(name) for name in ("ray.rllib", "ray.train", "ray.tune")}
    levels = {name: logger.level for name, logger in loggers.items()}
    for logger in loggers.values():
        logger.setLevel(level)
    # Tune's newer output engine prints its tables even at verbose=0.
    before = os.environ.get("RAY_AIR_NEW_OUTPUT")
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    try:
        yield
    finally:
        for name, logger in loggers.items():
            logger.setLevel(levels[name])
        if before is None:
            del os.environ["RAY_AIR_NEW_OUTPUT"]
        else:
            os.environ["RAY_AIR_NEW_OUTPUT"] = before


def last_line(error: BaseException) -> str:
    """The message of what was raised in the trial, without the tracebacks around it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    raised = lines[-1] if lines else type(error).__name__
    name, _, message = raised.partition(": ")
    return message if message and name.rpartition(".")[2].endswith("Error") else raised
