"""What a program asks of a device besides arithmetic: kernels launched, and numbers read and written."""

from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_NO_WORK = ("empty", "empty_like", "empty_strided", "new_empty", "detach", "alias", "lift_fresh")
_ROWS = ("embedding", "index", "index_select", "gather")
"""Of their first argument they read only what they return."""


class Traffic(TorchDispatchMode):
    """Counts the operations inside, and their bytes as if nothing stayed in a cache.

    Attributes:
        operations: that launch at least one kernel; views do not.
        bytes: read and written, each operand once. A factor that is broadcast counts once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in _NO_WORK or _is_view(func):
            return result
        self.operations += 1
        written = _bytes(result)
        if name in _ROWS:
            self.bytes += 2 * written + _bytes(args[1:])
        else:
            self.bytes += written + _bytes((args, kwargs))
        return result


def _is_view(func: Any) -> bool:
    aliases = [returned.alias_info for returned in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)


def _bytes(tree: Any) -> int:
    return sum(
        min(leaf.nbytes, leaf.untyped_storage().nbytes())
        for leaf in tree_leaves(tree)
        if isinstance(leaf, Tensor)
    )
