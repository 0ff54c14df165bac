"""SIGTERM while Tune runs: who is waited for, and how the loop ends. No Ray."""

import os
import signal
import time
from types import SimpleNamespace
from typing import Any

import pytest

from envs.errors import Terminated
from envs.notice import NOTICE
from tuning import termination
from tuning.termination import SaveWhenTold


class Loop:
    """Tune's loop as far as signals go."""

    def __init__(self) -> None:
        self.ended = 0
        self.callback = SaveWhenTold()
        self.trials = [trial("a", "RUNNING"), trial("b", "RUNNING"), trial("c", "PENDING")]
        signal.signal(signal.SIGUSR1, self._end)

    def _end(self, *_: Any) -> None:
        self.ended += 1

    def step(self, *saves: str) -> bool:
        """One step in which some trials save; whether the loop was told to end."""
        told = {"iteration": 0, "trials": self.trials}
        self.callback.on_step_begin(**told)
        for name in saves:
            self.callback.on_checkpoint(**told, trial=next(t for t in self.trials if t.trial_id == name))
        self.callback.on_step_end(**told)
        return bool(self.ended)


class Trial(SimpleNamespace):
    def __str__(self) -> str:
        return f"trial {self.trial_id}"


def trial(name: str, status: str) -> Any:
    return Trial(trial_id=name, status=status)


@pytest.fixture
def loop():
    before = signal.getsignal(signal.SIGUSR1)
    yield Loop()
    signal.signal(signal.SIGUSR1, before)
    NOTICE.withdraw()


def test_every_trial_that_runs_saves_before_the_loop_ends(loop):
    result: dict[str, Any] = {}
    with pytest.raises(Terminated), SaveWhenTold.on_sigterm():
        assert not loop.step("a")  # an ordinary checkpoint
        os.kill(os.getpid(), signal.SIGTERM)
        loop.callback.on_trial_result(0, loop.trials, loop.trials[0], result)
        assert result == {"should_checkpoint": True}
        assert not loop.step("a")
        loop.trials[2].status = "RUNNING"  # started since: it has nothing to lose
        assert not loop.step("a")
        assert loop.step("b")


def test_a_trial_that_failed_meanwhile_is_not_waited_for(loop):
    with pytest.raises(Terminated), SaveWhenTold.on_sigterm():
        os.kill(os.getpid(), signal.SIGTERM)
        assert not loop.step("a")
        loop.trials[1].status = "ERROR"
        assert loop.step()


def test_patience_has_an_end_and_who_was_late_is_told(loop, monkeypatch, caplog):
    monkeypatch.setattr(termination, "PATIENCE_S", 0.1)
    monkeypatch.setattr(termination, "_LOOP_S", 0.3)
    killed: list[Any] = []
    monkeypatch.setattr(termination.ray, "kill", killed.append)
    for busy in loop.trials:
        busy.temporary_state = SimpleNamespace(
            ray_actor=f"actor of {busy}" if busy.status == "RUNNING" else None
        )
    with pytest.raises(Terminated), SaveWhenTold.on_sigterm():
        os.kill(os.getpid(), signal.SIGTERM)
        end = time.monotonic() + 10
        while not loop.step("a"):
            assert time.monotonic() < end
        assert not killed  # Tune would take them for failed
        while not killed:
            assert time.monotonic() < end
    assert killed == ["actor of trial a", "actor of trial b"]  # both may be busy with their next report
    assert "not stored in time, and to go on from an earlier checkpoint: trial b" in caplog.text


def test_nothing_happens_without_a_signal(loop):
    before, result = signal.getsignal(signal.SIGTERM), {}
    with SaveWhenTold.on_sigterm():
        loop.callback.on_trial_result(0, loop.trials, loop.trials[0], result)
        assert not loop.step("a", "b")
    assert result == {} and signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("told", [True, False])
def test_what_fails_after_the_signal_does_not_hide_it(loop, caplog, told):
    with pytest.raises(Terminated if told else OSError), SaveWhenTold.on_sigterm():
        if told:
            os.kill(os.getpid(), signal.SIGTERM)
        raise OSError("503 slow down")
    assert ("the end was not noted: 503 slow down" in caplog.text) == told
