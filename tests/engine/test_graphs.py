"""Decoding steps of fixed shapes, run eagerly, compared with ``generate``."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from llava.engine import graphs, paged
from llava.engine.engine import Engine
from llava.native import library
from tests.engine.test_engine import audit, generate, load, mixed_questions, tokens
from tests.engine.test_native import make_rows
from tests.tiny import FAMILIES
from tests.tiny_tokenizers import words_and_letters


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine as on a GPU: without the native library, with steps of fixed shapes."""
    monkeypatch.setattr(library, "load", lambda: None)
    monkeypatch.setattr(library, "status", lambda: "not here")
    monkeypatch.setattr(graphs, "is_wanted", lambda device: True)


@pytest.mark.usefixtures("on_a_gpu")
@pytest.mark.parametrize("settings", [{}, {"block_tokens": 4, "max_step_positions": 40}, {"stall_s": 0.0}])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_engine_says_what_generate_says_in_steps_of_fixed_shapes(family: str, settings: dict[str, Any]) -> None:
    changes = {"sliding_window": 24} if family == "mistral" else {}
    loaded = load(words_and_letters("the cat sat on a red mat and saw me"), family, **changes)
    questions = mixed_questions(loaded, seed=4, count=10)
    with Engine(loaded, memory_bytes=2**21, **settings) as engine:
        said = [tokens(stream) for stream in [engine.submit(asked) for asked in questions]]
        again = [tokens(engine.submit(asked)) for asked in questions]
        runner = engine._runner
    audit(engine)
    assert said == again == [generate(loaded, asked) for asked in questions]
    assert runner._graphs is not None
    shapes = list(runner._graphs._captured)
    assert len({num for num, _ in shapes}) > (
        "stall_s" not in settings
    )  # where prompts may not wait few steps are alike
    assert all(num & (num - 1) == 0 and blocks & (blocks - 1) == 0 for num, blocks in shapes)


@pytest.mark.usefixtures("on_a_gpu")
def test_new_weights_drop_the_captured_graphs() -> None:
    loaded = load(words_and_letters("the cat sat on a red mat and saw me"), "llama")
    asked = mixed_questions(loaded, seed=9, count=1)[0]
    with Engine(loaded, memory_bytes=2**21) as engine:
        engine.submit(asked).wait()
        with torch.no_grad():
            loaded.model.lm_head.weight.neg_()
        assert tokens(engine.submit(asked)) == generate(loaded, asked)


@pytest.mark.parametrize("window", [None, 5])
def test_attention_of_a_fixed_shape_is_that_of_the_rows_in_it(window: int | None) -> None:
    torch.manual_seed(0)
    cache = paged.KVCache(1, 41, 2, 4, 8, torch.float32, torch.device("cpu"))
    for tensor in (cache.keys[0], cache.values[0]):
        tensor.fill_(float("nan"))  # unwritten slots must not affect the result
    lengths = [1, 9, 30]
    rows = make_rows(lengths, lengths, 4, 40)
    cache.store(0, torch.randn(sum(lengths), 2, 8), torch.randn(sum(lengths), 2, 8), rows)
    queries = torch.randn(3, 6, 8)
    one_each = paged.Rows(torch.arange(4, dtype=torch.int32), rows.lengths, rows.tables, rows.slots)
    expected = cache.attend(0, queries, one_each, 0.3, window)
    tables = torch.full((4, 16), 40)
    tables[:3, : rows.tables.shape[1]] = rows.tables
    cache.keys[0][40], cache.values[0][40] = 0, 0
    fixed = paged.FixedRows(tables, torch.tensor([*lengths, 1]), torch.zeros(4, dtype=torch.long))
    out = cache.attend(0, torch.cat([queries, queries[:1]]), fixed, 0.3, window)
    torch.testing.assert_close(out[:3], expected)
