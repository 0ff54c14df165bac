"""CUDA graphs: a call's hundreds of launches recorded once and replayed as one.

A recorded call runs on fixed memory. Its inputs are copied in, its results stay where they are until the next
call, and state that the call replaces by new tensors is copied back to where the next replay reads it.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from envs.errors import UserError
from envs.world import World
from rl_rec.bench.measure import Clock
from rl_rec.bench.settings import BenchSettings
from rl_rec.bench.train import FastLoop
from rl_rec.transitions import Transitions

ResultT = TypeVar("ResultT")

WARM_UP_CALLS = 3
"""Calls before the recording: libraries choose their kernels, optimizers make their state."""


class Recorder(Protocol):
    """What records device work; CUDA's, or a stand-in that tests use."""

    def warm_up(self, work: Callable[[], ResultT]) -> ResultT:
        """Do the work as it would be recorded."""

    def record(
        self, work: Callable[[], ResultT], generators: Sequence[torch.Generator]
    ) -> tuple[Callable[[], None], ResultT]:
        """Record the work without doing it: what does it, and where its results will be."""


class CUDAGraphs:
    """Recording with ``torch.cuda.CUDAGraph``."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)

    def warm_up(self, work: Callable[[], ResultT]) -> ResultT:
        """Recording happens on a stream of its own; autograd remembers on which one it ran first."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            result = work()
        torch.cuda.current_stream().wait_stream(self._stream)
        return result

    def record(
        self, work: Callable[[], ResultT], generators: Sequence[torch.Generator]
    ) -> tuple[Callable[[], None], ResultT]:
        """Every replay draws on from where its generators are."""
        graph = torch.cuda.CUDAGraph()
        for generator in generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph, stream=self._stream):
            result = work()
        return graph.replay, result


class Captured(Generic[ResultT]):
    """A call that is recorded after ``WARM_UP_CALLS`` ordinary ones; the results are the same all along."""

    def __init__(
        self, work: Callable[..., ResultT], recorder: Recorder, generators: Sequence[torch.Generator]
    ) -> None:
        """``work``: takes tensors by name, of the same shapes in every call; ``generators``: it draws from."""
        self._work, self._recorder, self._generators = work, recorder, generators
        self._calls = 0
        self._inputs: dict[str, Tensor] = {}
        self._recorded: tuple[Callable[[], None], ResultT] | None = None

    def __call__(self, **inputs: Tensor) -> ResultT:
        """Do the work. What is returned holds until the next call."""
        self._calls += 1
        if self._calls <= WARM_UP_CALLS:
            return self._recorder.warm_up(lambda: self._work(**inputs))
        if self._recorded is None:
            self._inputs = {name: given.clone() for name, given in inputs.items()}
            self._recorded = self._recorder.record(lambda: self._work(**self._inputs), self._generators)
        for name, given in inputs.items():
            self._inputs[name].copy_(given)
        replay, result = self._recorded
        replay()
        return result


class CapturedLoop(FastLoop):
    """The fast loop with a graph for collecting a fragment and one for an update."""

    capturable = True

    def __init__(self, settings: BenchSettings[Any], world: World, recorder: Recorder) -> None:
        """As ``FastLoop``.

        Raises:
            UserError: rules under which what is live depends on a counter of the host.
        """
        if settings.rules.catalogue.churn or settings.rules.budgets.clicks is not None:
            raise UserError("graphs repeat the same work: leave rules.catalogue.churn and rules.budgets out")
        super().__init__(settings, world)
        assert self.actor.noise is not None
        generators = [*self.rollout.simulator.generators, self.actor.noise]
        self._collect: Captured[dict[str, Tensor]] = Captured(self._collect_in_place, recorder, generators)
        self._learn: Captured[None] = Captured(self._update, recorder, [])

    def collect(self) -> dict[str, Tensor]:
        """As the fast loop's; the columns hold until the next call."""
        return self._collect()

    def _collect_in_place(self) -> dict[str, Tensor]:
        simulator = self.rollout.simulator
        before = simulator.users_state()
        columns = super().collect()
        kept = {id(tensor) for tensor in before.values()}  # about to be overwritten
        columns = {name: c.clone() if id(c) in kept else c for name, c in columns.items()}
        simulator.keep_users_in(before)
        return columns

    def update(self, clock: Clock) -> None:
        """As the fast loop's; what part takes how long is not to be seen."""
        with clock("replay"):
            batch = self.replay.sample(self.settings.batch_size)
        with clock("update"):
            self._learn(**batch)

    def _update(self, **batch: Tensor) -> None:
        self.backward(Transitions(**batch))
        for optimizer in self.optimizers:
            optimizer.step()
        with torch.no_grad():
            self.move_targets()


class Difference(NamedTuple):
    """Largest differences of two loops; 0 is equal to the bit."""

    collected: float
    """Of any replayed column."""
    learned: float
    """Of any weight."""


@torch.no_grad()
def difference(one: FastLoop, other: FastLoop) -> Difference:
    """Compare what two loops of the same seed came to."""

    def largest(pairs: Iterable[tuple[Tensor, Tensor]]) -> float:
        return max(float((a.double() - b.double()).abs().max()) for a, b in pairs)

    columns = ((one.replay.columns[name], column) for name, column in other.replay.columns.items())
    weights = zip(one.networks.parameters(), other.networks.parameters(), strict=True)
    return Difference(largest(columns), largest(weights))
