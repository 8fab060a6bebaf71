"""What ``benchmarks/engine.py`` measures of the embedded model: starting, many requests, and sampling.

Sides that are compared take turns, and each figure is a median.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
QUESTION = ("examples/demo.png", "What is written on the sign?")
VOCABULARY = 128256
NUM_TURNS = 3
NUM_CROWD_TURNS = 9  # a turn takes half a second, and the goals are within a few percent of the figures


def measure(new_tokens: int = 64) -> dict[str, float]:
    """All figures by name."""
    return {**measure_start(), **measure_crowds(new_tokens), **measure_sampling(new_tokens)}


def measure_start() -> dict[str, float]:
    """Seconds from the start to the end of processes, and until the server is ready."""
    commands = {
        "imports_s": ["-c", "import torch, transformers"],
        "ask_s": ["-m", "llava", "ask", "--model", "embedded", *QUESTION],
    }
    seconds: dict[str, list[float]] = {name: [] for name in [*commands, "serve_ready_s"]}
    for _ in range(NUM_TURNS):
        for name, command in commands.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, *command], cwd=ROOT, env=_environment(), capture_output=True, check=True)
            seconds[name].append(time.perf_counter() - began)
        seconds["serve_ready_s"].append(_start_server())
    return {name: statistics.median(each) for name, each in seconds.items()}


def _start_server() -> float:
    command = [sys.executable, "-m", "llava", "serve", "--model", "embedded", "--port", "0"]
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, env=_environment(), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        said = []
        for line in process.stderr:
            if "is ready after" in line:
                return time.perf_counter() - began
            said.append(line)
        raise RuntimeError(f"llava serve ended: {''.join(said)[-500:]}")
    finally:
        process.terminate()
        process.wait()
        process.stderr.close()


def _environment() -> dict[str, str]:
    """Bytecode is written, as on a user's machine: else the second process would compile as much as the first."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**environment, "PYTHONPATH": str(ROOT)}


def _ask(engine: Any, count: int, new_tokens: int, **sampling: Any) -> float:
    """Seconds until ``count`` requests of 16 words, different from the third on, have ``new_tokens`` each."""
    from llava.engine.stream import Question
    from llava.prompt import Prompt
    from llava.sampling import Sampling

    asked = []
    for i in range(count):
        ids = (1, 5, *(10 + (7 * i + k) % 200 for k in range(14)))
        asked.append(Question(Prompt(ids, None, len(ids)), [], [], Sampling(max_new_tokens=new_tokens, **sampling)))
    began = time.perf_counter()
    for stream in [engine.submit(one) for one in asked]:
        stream.wait()
    return time.perf_counter() - began


def measure_crowds(new_tokens: int) -> dict[str, float]:
    """Tokens a second of 32 and of 64 requests that run together."""
    from llava.engine.engine import Engine
    from llava.model.checkpoint import load_model

    rates: dict[int, list[float]] = {32: [], 64: []}
    with Engine(load_model("embedded")) as engine:
        _ask(engine, 64, 4)
        for _ in range(NUM_CROWD_TURNS):
            for count, each in rates.items():
                each.append(count * new_tokens / _ask(engine, count, new_tokens))
    return {f"{count}_tok_s": statistics.median(each) for count, each in rates.items()}


def measure_sampling(new_tokens: int) -> dict[str, float]:
    """Seconds of a step of 32 requests with a vocabulary of 128 K: greedy, and with temperature and top-p."""
    import torch
    from random_model import make_model  # beside this file

    from llava.engine.engine import Engine

    sizes = {"num_hidden_layers": 8, "num_attention_heads": 8}
    decoder = {"hidden_size": 512, "intermediate_size": 1408, "num_key_value_heads": 8, **sizes}
    tower = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    loaded = make_model(tower, decoder, torch.device("cpu"), VOCABULARY)
    kinds: dict[str, dict[str, Any]] = {"greedy_s": {}, "top_p_s": {"temperature": 0.7, "top_p": 0.95, "seed": 0}}
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    with Engine(loaded) as engine:
        _ask(engine, 32, 2)
        for _ in range(NUM_CROWD_TURNS):
            for name, sampling in kinds.items():
                seconds[name].append(_ask(engine, 32, new_tokens // 4, **sampling) / (new_tokens // 4))
    return {name: statistics.median(each) for name, each in seconds.items()}
