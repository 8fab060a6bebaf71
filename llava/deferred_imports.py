"""Imports of Transformers' models without what they import for compiling and for several devices.

``transformers.modeling_utils`` imports torch's compiler, its sharded tensors and accelerate for a few names of theirs,
which answering on a CPU never uses; they take longer than all models together. While ``deferring_imports`` is active,
such a name is bound to a ``_Later``, which imports the real thing as soon as it is called, read, subclassed or compared
with a value. Nothing of Transformers or torch is changed, and afterwards these modules are imported as always.

This is only for processes of the ``llava`` command. ``import llava`` in other programs imports everything at once.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

_DEFERRED = (
    "torch._dynamo",
    "torch.distributed._composable",
    "torch.distributed.checkpoint",
    "torch.distributed.fsdp",
    "torch.distributed.tensor",
    "accelerate",
)

# The lowest and the highest minor version of Transformers whose imports are known to allow it.
TESTED = ((5, 17), (5, 23))

# Decorators that mark a function for torch's compiler and otherwise return it.
_MARKS = ("allow_in_graph", "assume_constant_result", "disable")


@contextlib.contextmanager
def deferring_imports() -> Iterator[None]:
    """Defers those imports, unless torch finds a GPU, where ``generate`` may compile, or Transformers is untested."""
    if not _is_tested():
        yield
        return
    finder = _Finder([name for name in _DEFERRED if name not in sys.modules])
    try:
        yield
    finally:
        finder.stop()


def _is_tested() -> bool:
    try:
        version = importlib.metadata.version("transformers").split(".")
        return TESTED[0] <= (int(version[0]), int(version[1])) <= TESTED[1]
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return False


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives an empty module for each of ``names`` and what is below them."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._modules: list[_DeferredModule] = []
        self.is_active = True
        sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """The spec of an empty module; None if the import is not deferred, or finds nothing."""
        top = next((each for each in self._names if name == each or name.startswith(f"{each}.")), None)
        if top is None or _has_gpu():
            return None
        if name == top and importlib.machinery.PathFinder.find_spec(name, path) is None:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = _DeferredModule(spec.name, self)
        self._modules.append(module)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Does nothing: the module is empty."""

    def stop(self) -> None:
        """Removes the empty modules, so that the next import of one gets the real module."""
        if not self.is_active:
            return
        self.is_active = False
        sys.meta_path.remove(self)
        for module in self._modules:
            name = module.__name__
            if sys.modules.get(name) is module:
                del sys.modules[name]
            parent, _, leaf = name.rpartition(".")
            if vars(sys.modules.get(parent, module)).get(leaf) is module:
                delattr(sys.modules[parent], leaf)


@functools.cache
def _has_gpu() -> bool:
    import torch

    return torch.accelerator.is_available()


class _DeferredModule(ModuleType):
    """A module of which every name is a ``_Later``."""

    def __init__(self, name: str, finder: _Finder) -> None:
        super().__init__(name)
        self._finder = finder

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self.__name__ == "torch._dynamo" and name in _MARKS:
            return _leave_unmarked
        return _Later(self._finder, self.__name__, name)


def _leave_unmarked(function: Any = None, *_: Any, **__: Any) -> Any:
    """The function itself: without a compiler in the process nobody reads its mark."""
    return _leave_unmarked if function is None else function


class _Later:
    """Stands for ``name`` of ``module`` until it is used.

    No value is an instance of it before the real module is imported: without the module there are no instances.
    """

    def __init__(self, finder: _Finder, module: str, name: str) -> None:
        self._finder, self._module, self._name = finder, module, name

    def _resolve(self) -> Any:
        self._finder.stop()
        return getattr(importlib.import_module(self._module), self._name)

    def _is_imported(self) -> bool:
        return not isinstance(sys.modules.get(self._module), (_DeferredModule, type(None)))

    def __instancecheck__(self, value: object) -> bool:
        return self._is_imported() and isinstance(value, self._resolve())

    def __subclasscheck__(self, other: type) -> bool:
        return self._is_imported() and issubclass(other, self._resolve())

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self._resolve(),)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what decorators and ``inspect`` look for
            raise AttributeError(name)
        return getattr(self._resolve(), name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._finder.is_active:
            return _LaterResult(self, args, kwargs)
        return self._resolve()(*args, **kwargs)

    def __getitem__(self, key: Any) -> Any:
        return self._resolve()[key]

    def __or__(self, other: Any) -> Any:
        return self._resolve() | other

    def __ror__(self, other: Any) -> Any:
        return other | self._resolve()


class _LaterResult:
    """Stands for what a call returns until it is used: Transformers makes a table of sharding rules on import."""

    def __init__(self, function: _Later, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._call = functools.cache(lambda: function._resolve()(*args, **kwargs))

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._call())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call(), name)
