"""A device that is not there: tensors that lie on ``meta`` for the program, and on the CPU in truth.

They have values, so whole programs run, and what a GPU would refuse is refused: tensors of two devices in one
operation, generators of another device. What makes the host wait for a GPU, or copies from its memory, is seen.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
META = torch.device("meta")


class HostSync(AssertionError):
    """The host would wait for the device."""


class _Placed(Tensor):
    """A tensor on the pretended device."""

    inner: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor) -> "_Placed":
        made = Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=META,
        )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} outside of the pretended device")

    def tolist(self) -> Any:  # torch refuses for subclasses
        return self.cpu().tolist()

    def __repr__(self, **_: Any) -> str:
        return f"placed({self.inner!r})"


class _Generator(torch.Generator):
    placed: torch.device
    known: ClassVar[dict[int, torch.device]] = {}
    """Where each lies; operations are handed the generator without its Python object."""

    def __new__(cls, device: torch.device | str = "cpu") -> "_Generator":
        made = super().__new__(cls, "cpu")
        made.placed = cls.known[made._cdata] = torch.device(device)
        return made

    @property
    def device(self) -> torch.device:
        return self.placed


_DATA_DEPENDENT = {
    *(aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.equal, aten.bincount, aten.is_nonzero),
    *(aten._unique2, aten.unique_dim, aten.unique_consecutive, aten.unique_dim_consecutive),
}
_COPIES = {aten._to_copy, aten.copy_}


class PretendDevice(TorchDispatchMode):
    """While it is entered, ``meta`` is a device with values; ``watch``: raise ``HostSync`` at what waits."""

    def __init__(self) -> None:
        super().__init__()
        self.watch = False
        self.calls = 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """No host sync inside."""
        self.watch = True
        try:
            yield
        finally:
            self.watch = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        packet = func.overloadpacket
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        placed = [leaf for leaf in given if isinstance(leaf, _Placed)]
        hosted = [leaf for leaf in given if not isinstance(leaf, _Placed)]
        assert all(leaf.device != META for leaf in hosted), f"{func} of a tensor without values"
        wanted = kwargs.get("device")
        target = bool(placed) if wanted is None else torch.device(wanted) == META
        if packet is aten.copy_:
            target = isinstance(args[0], _Placed)
        elif packet is not aten._to_copy and placed and any(leaf.dim() for leaf in hosted):
            raise RuntimeError(f"{func}: expected all tensors to be on the same device")
        generator = kwargs.get("generator")
        if generator is not None and (_Generator.known[generator._cdata] == META) != target:
            raise RuntimeError(f"{func}: the generator is on {_Generator.known[generator._cdata]}")
        if self.watch and (placed or target):
            self._look(func, packet, args, kwargs, bool(placed), bool(hosted), target)
        self.calls += 1
        if wanted is not None:
            kwargs["device"] = torch.device("cpu") if target else wanted
        outer = {id(leaf.inner): leaf for leaf in placed}

        def inward(x: Any) -> Any:
            return x.inner if isinstance(x, _Placed) else x

        def outward(x: Any) -> Any:
            if not isinstance(x, Tensor) or not target:
                return x
            return outer[id(x)] if id(x) in outer else _Placed(x)

        result = func(*tree_map(inward, args), **tree_map(inward, kwargs))
        if packet is aten._local_scalar_dense:
            return result
        return tree_map(outward, result)

    def _look(
        self, func: Any, packet: Any, args: Any, kwargs: Any, placed: bool, hosted: bool, target: bool
    ) -> None:
        if packet in _DATA_DEPENDENT and placed:
            raise HostSync(f"{func} waits for the device")
        if packet in _COPIES and placed + hosted and (hosted if target else placed):
            raise HostSync(f"{func} copies between host and device")
        if packet in (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_):
            masks = [leaf for leaf in tree_leaves(args[1]) if isinstance(leaf, Tensor)]
            if any(mask.dtype in (torch.bool, torch.uint8) for mask in masks):
                raise HostSync(f"{func} by a mask waits for the number of rows")
        if packet is aten.repeat_interleave and kwargs.get("output_size") is None:
            raise HostSync(f"{func} without output_size waits for its sum")
        if packet is aten.where and hosted:
            raise HostSync(f"{func} uploads a number")


@contextmanager
def pretended(monkeypatch: Any) -> Iterator[PretendDevice]:
    """``meta`` is a device, for tensors and generators."""
    monkeypatch.setattr(torch, "Generator", _Generator)
    monkeypatch.setattr(torch, "tensor", _uploaded(torch.tensor))
    monkeypatch.setattr(torch.optim, "Adam", _unfused(torch.optim.Adam))
    with PretendDevice() as device:
        yield device


def _uploaded(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``torch.tensor`` makes numbers on the host and copies them; on ``meta`` it would forget them."""
    return lambda data, dtype=None, device="cpu": make(data, dtype=dtype).to(device)


def _unfused(adam: Callable[..., Any]) -> Callable[..., Any]:
    """Adam's fused kernel knows real devices only."""
    return lambda parameters, fused=None, **options: adam(parameters, foreach=False, **options)
