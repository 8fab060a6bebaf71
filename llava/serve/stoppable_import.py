"""Imports of a large package that end soon after somebody asks them to, such as a server that is shutting down."""

from __future__ import annotations

import importlib
import importlib.abc
import sys
import threading
from types import ModuleType
from typing import Any, Protocol


class Flag(Protocol):
    """An event of ``threading`` or ``asyncio``."""

    def is_set(self) -> bool:
        """Whether somebody asked for the end."""


class ImportStopped(BaseException):
    """Raised in the thread that imports; no ``except Exception`` around an import inside the package hides it."""


def import_unless(stopped: Flag, name: str) -> ModuleType:
    """The package ``name``, imported in this thread.

    Raises ImportStopped at the next of its modules once ``stopped`` is set; nothing of the package stays imported then.
    """
    finder = _StopFinder(stopped, name)
    sys.meta_path.insert(0, finder)
    try:
        return importlib.import_module(name)
    except ImportStopped:
        for module in [each for each in sys.modules if each == name or each.startswith(f"{name}.")]:
            del sys.modules[module]
        raise
    finally:
        sys.meta_path.remove(finder)


class _StopFinder(importlib.abc.MetaPathFinder):
    """Finds no module, and raises for the package's own ones; other packages are always imported to their end."""

    def __init__(self, stopped: Flag, name: str) -> None:
        self._stopped, self._name, self._thread = stopped, name, threading.get_ident()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """None. Raises ImportStopped."""
        is_own = name == self._name or name.startswith(f"{self._name}.")
        if is_own and self._stopped.is_set() and threading.get_ident() == self._thread:
            raise ImportStopped(f"the import of {self._name} was stopped at {name}")
