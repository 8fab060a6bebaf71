"""CUDA graphs of decoding steps: which are recorded and run, and, by a stand-in, that they compute the same again."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from llava.engine import runner
from llava.engine.engine import Engine
from llava.engine.gpu import step_graphs
from llava.engine.gpu.step_graphs import StepGraphs, choose_sizes
from tests.engine import recorded_step
from tests.engine.gpu_path import take_gpu_path
from tests.engine.test_engine import audit, generate, load, mixed_questions, question, tokens
from tests.tiny_tokenizers import words_and_letters

CPU = torch.device("cpu")


@pytest.fixture
def sizes_recorded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Engines as on a GPU, with recorded steps in place of graphs: the sizes that were recorded, in their order."""
    take_gpu_path(monkeypatch)
    sizes: list[int] = []

    def record(compute: Any, size: int, pool: Any) -> Any:
        sizes.append(size)
        return recorded_step.record(compute, size, pool)

    monkeypatch.setattr(step_graphs, "can_record", lambda device: True)
    monkeypatch.setattr(step_graphs, "record_graph", record)
    monkeypatch.setattr(runner, "choose_kernels", lambda device: recorded_step.KERNELS)
    return sizes


@pytest.mark.parametrize("family", ["mistral", "qwen2"])
def test_recorded_steps_answer_as_generate_does_also_after_weights_changed(
    sizes_recorded: list[int], family: str
) -> None:
    loaded = load(words_and_letters("the cat sat on a red mat"), family)
    questions = [replace(asked, stop_ids=[119]) for asked in mixed_questions(loaded, seed=6, count=5)]
    with Engine(loaded, memory_bytes=2**20, block_tokens=4, max_running=4) as engine:
        assert sizes_recorded == 2 * [4, 2, 1], "for decoding, and for sampling"
        for change in ("none", "in place", "replaced"):
            with torch.no_grad():
                weight = loaded.model.model.layers[0].self_attn.k_proj.weight
                if change == "in place":
                    weight.mul_(-1)
                elif change == "replaced":
                    loaded.model.model.layers[0].self_attn.k_proj.weight = nn.Parameter(weight * 2)
            said = [tokens(stream) for stream in [engine.submit(asked) for asked in questions]]
            assert said == [generate(loaded, asked) for asked in questions]
            assert len(sizes_recorded) == (12 if change == "replaced" else 6), "only where weights are elsewhere"
        sampled = question(loaded, [1, 5, 6], temperature=1.0, top_p=0.9, seed=3, max_new_tokens=9)
        alone = tokens(engine.submit(sampled))
        assert tokens(engine.submit(sampled)) == alone
    audit(engine)
    with Engine(loaded, memory_bytes=2**20, record_s=0.0) as engine:
        assert tokens(engine.submit(sampled)) == alone


def test_graphs_that_cannot_be_recorded_are_said_and_done_without(
    sizes_recorded: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(compute: Any, size: int, pool: Any) -> Any:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")

    loaded = load(words_and_letters("the cat sat on a red mat"))
    asked = question(loaded, [1, 5, 6])
    with Engine(loaded, memory_bytes=2**20, record_s=0.0) as engine:
        assert (
            engine.fallbacks[0] == "Decoding runs without CUDA graphs, which is slower: none was recorded within 0.0 s."
        )
        assert tokens(engine.submit(asked)) == generate(loaded, asked)
    monkeypatch.setattr(step_graphs, "record_graph", fail)
    with caplog.at_level(logging.WARNING), Engine(loaded, memory_bytes=2**20) as engine:
        assert "recording a CUDA graph of 64 requests failed: CUDA error: operation not" in engine.fallbacks[0]
        assert "more" not in engine.fallbacks[0]
        assert tokens(engine.submit(asked)) == generate(loaded, asked)
    assert "Decoding runs without CUDA graphs" in caplog.messages[0]


def test_a_step_takes_the_next_larger_graph_that_there_was_time_for(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(100))
    ran: list[str] = []

    class Graph:
        def __init__(self, size: int) -> None:
            self.size = size

        def pool(self) -> str:
            return "pool"

        def replay(self) -> None:
            ran.append(f"graph {self.size}")

    monkeypatch.setattr(step_graphs, "can_record", lambda device: True)
    monkeypatch.setattr(step_graphs, "record_graph", lambda compute, size, pool: Graph(size))
    monkeypatch.setattr(step_graphs.time, "perf_counter", lambda: float(next(seconds)))
    graphs = StepGraphs(lambda size: ran.append(f"kernels {size}"), choose_sizes(24), CPU)
    graphs.record(3.0)  # 24 and 16
    for num in (1, 9, 17, 24):
        graphs.run(num)
    graphs.clear()
    graphs.run(3)
    assert ran == ["graph 16", "graph 16", "graph 24", "graph 24", "kernels 4"]


def test_sizes_end_with_the_most_requests() -> None:
    assert choose_sizes(1) == [1]
    assert choose_sizes(5) == [1, 2, 4, 5]
    assert choose_sizes(64) == [1, 2, 4, 8, 16, 24, 32, 48, 64]
    assert choose_sizes(100) == [1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 100]
