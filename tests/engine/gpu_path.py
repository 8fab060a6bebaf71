"""Engines as on a GPU, on a CPU: the same code, with torch in place of the kernels and of CUDA graphs."""

from __future__ import annotations

import pytest

from llava.engine import runner
from llava.native import library


def take_gpu_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets every engine that is made from now on run its steps as on a GPU."""
    monkeypatch.setattr(library, "load", lambda: None)
    monkeypatch.setattr(library, "status", lambda: "not here")
    monkeypatch.setattr(runner, "find_device_obstacle", lambda device, dtype: None)
