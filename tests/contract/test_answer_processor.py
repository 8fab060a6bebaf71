"""Our plain form of an answer is the one that lmms-eval's own copy of the challenges' code makes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.eval.m4c_evaluator import EvalAIAnswerProcessor


def load_theirs() -> Any:
    """The class, from its file alone: its package imports all of lmms-eval."""
    spec = importlib.util.find_spec("lmms_eval")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    path = Path(spec.submodule_search_locations[0]) / "tasks/_task_utils/vqa_eval_metric.py"
    file = importlib.util.spec_from_file_location("vqa_eval_metric", path)
    assert file is not None
    assert file.loader is not None
    module = importlib.util.module_from_spec(file)
    file.loader.exec_module(module)
    return module.EvalAIAnswerProcessor


THEIRS = load_theirs()
OURS = EvalAIAnswerProcessor()
PIECES = [*" ,.?!-/'()_7\n\t", ". ", " .", ", ", "; ", *"12 a An the Two none cat 's".split()]


@pytest.mark.parametrize("word", [*THEIRS.CONTRACTIONS, *THEIRS.NUMBER_MAP, *THEIRS.ARTICLES, *THEIRS.PUNCTUATIONS])
def test_every_word_of_its_tables_becomes_the_same(word: str) -> None:
    for text in (word, f"x {word}", f"{word} x", f"x{word}x"):
        assert OURS(text) == THEIRS()(text)


@settings(max_examples=300)
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=10))
def test_every_text_becomes_the_same(pieces: list[str]) -> None:
    text, theirs = "".join(pieces), THEIRS()
    assert OURS(text) == theirs(text)
    assert OURS.word_tokenize(text) == theirs.word_tokenize(text)
    assert OURS.process_punctuation(text) == theirs.process_punctuation(text)
    assert OURS.process_digit_article(text) == theirs.process_digit_article(text)
