"""Training goes on when a checkpoint cannot be stored."""

from types import SimpleNamespace
from typing import Any

import pytest

from rl_rec.metrics import UNSAVED
from rl_rec.unsaved import GoesOnUnsaved


class Tune:
    """Stands for a Tune trainable: ``save`` uploads."""

    away = False

    def save(self, checkpoint_dir: str | None = None) -> str:
        if self.away:
            raise OSError("503 slow down")
        return "stored"


class Run(GoesOnUnsaved, Tune):
    """A trainable on a URL, or on a local disk."""

    trained = False  # type: ignore[assignment]

    def __init__(self, url: bool = True) -> None:
        self._storage = SimpleNamespace(custom_fs_provided=url)

    def result(self) -> dict[str, Any]:
        made: dict[str, Any] = {}
        self.note_unsaved(made)
        return made


def test_a_checkpoint_that_cannot_be_stored_is_left_out_and_told_once():
    run = Run()
    assert run.save() == "stored" and run.result() == {}
    run.away = True
    assert run.save().checkpoint is None  # Tune keeps the one before
    assert run.result() == {UNSAVED: "503 slow down"} and run.result() == {}
    run.away = False
    assert run.save() == "stored"


@pytest.mark.parametrize(("url", "trained"), [(True, True), (False, False)])
def test_the_last_one_and_a_local_disk_fail(url, trained):
    run = Run(url)
    run.away, run.trained = True, trained
    with pytest.raises(OSError, match="503"):
        run.save()
