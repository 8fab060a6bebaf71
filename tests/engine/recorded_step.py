"""Stands for a CUDA graph on a CPU: what a step computed once, computed again on the same tensors.

As with a real graph, nothing that the host decides is decided again, and memory that was there before the recording is
read where it was: what has been freed since then is an error here, where a GPU would read anything.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_map

from llava.engine.gpu import reference

# What would wait for a GPU, which a recording does not allow.
_WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique")


class _Outside:
    """A tensor from before the recording, which it does not keep alive."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._storage = StorageWeakRef(tensor.untyped_storage())
        self._layout = (tensor.storage_offset(), tensor.shape, tensor.stride())
        self._dtype = tensor.dtype

    def find(self) -> torch.Tensor:
        storage = torch.UntypedStorage._new_with_weak_ptr(self._storage.cdata)
        assert storage is not None, "a tensor that a graph reads has been freed"
        return torch.empty(0, dtype=self._dtype).set_(storage, *self._layout)


class RecordedStep(TorchDispatchMode):
    """The operations of a step, in their order."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: list[tuple[Callable[..., Any], Any, Any, Any]] = []
        self._inside: dict[int, torch.Tensor] = {}  # by the id of the tensors that the step made, which are kept

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert not any(name in str(func) for name in _WAITING), f"{func} waits for the device"
        return self.call(func, args, kwargs or {})

    def call(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Calls a function and records it, as one operation."""
        kept_args, kept_kwargs = tree_map(self._keep, (args, kwargs))
        out = func(*args, **kwargs)
        tree_map(lambda part: self._inside.setdefault(id(part), part), out)
        self._calls.append((func, kept_args, kept_kwargs, out))
        return out

    def _keep(self, part: Any) -> Any:
        is_outside = isinstance(part, torch.Tensor) and id(part) not in self._inside
        return _Outside(part) if is_outside else part

    def replay(self) -> None:
        """Calls the functions again."""
        for func, args, kwargs, out in self._calls:
            found_args, found_kwargs = tree_map(
                lambda part: part.find() if isinstance(part, _Outside) else part, (args, kwargs)
            )
            tree_map(_write, out, func(*found_args, **found_kwargs))

    def pool(self) -> None:
        """Graphs share memory; recordings need none."""


def _write(old: Any, new: Any) -> None:
    if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():  # not a view, and not in place
        old.copy_(new)


def record(compute: Callable[[int], None], size: int, pool: Any) -> RecordedStep:
    """In place of ``step_graphs.record_graph``."""
    with RecordedStep() as recorded:
        compute(size)
    return recorded


def _as_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    def launch(*args: Any) -> Any:
        mode = torch.utils._python_dispatch._get_current_dispatch_mode()
        if not isinstance(mode, RecordedStep):
            return function(*args)
        with _disable_current_modes():
            return mode.call(function, args, {})

    return launch


_NAMES = ("decode_attention", "extend_attention", "rotate_and_store", "add_rms_norm", "silu_multiply")
# The functions of ``reference``, each of which is one operation of a recording, as a kernel is of a graph.
KERNELS = SimpleNamespace(**{name: _as_kernel(getattr(reference, name)) for name in (*_NAMES, "quantized_matmul")})
