"""Where the engines are installed: ``make test-engines`` makes their environments and says it here."""

from __future__ import annotations

import pytest

ENGINES = ("sglang", "vllm", "smg", "llama_cpp")


def pytest_addoption(parser: pytest.Parser) -> None:
    for engine in ENGINES:
        parser.addoption(f"--{engine}-python", help=f"the interpreter that has {engine} installed")
