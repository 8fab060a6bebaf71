"""Seconds of what benchmarks/soak.py does for a minute."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks/soak.py"


def test_nothing_is_lost_and_nothing_leaks() -> None:
    spec = importlib.util.spec_from_file_location("soak", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["soak"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    report = module.soak(clients=64, seconds=2)
    assert report.faults == []
    assert report.outcomes["LOST"] == report.outcomes["WRONG"] == 0
    for outcome in ("right", "left", "refused as wrong", "refused as too many"):
        assert report.outcomes[outcome] > 0, report
