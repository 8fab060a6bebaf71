"""Answers in plain form, and the scores that are made of them, against values worked out by hand."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.edit_distance import count_edits
from llava.errors import UsageError
from llava.eval.m4c_evaluator import (
    STVQAAccuracyEvaluator,
    STVQAANLSEvaluator,
    TextCapsBleu4Evaluator,
    TextVQAAccuracyEvaluator,
)
from llava.eval.scoring.anls import similarity
from llava.eval.scoring.answer_normalizer import normalize_answer, remove_punctuation
from llava.eval.scoring.vqa_accuracy import score_m4c


@pytest.mark.parametrize(
    ("said", "plain"),
    [
        ("The Cat", "cat"),
        ("a cat, a dog and an owl", "cat dog and owl"),
        ("Two", "2"),
        ("none", "0"),
        ("dont know", "don't know"),
        ("theyd've gone", "they'd've gone"),
        ("Tom's", "tom 's"),
        ("1,000", "1000"),
        ("3.5 km.", "3.5 km"),
        ("top-left", "top left"),
        ("top - left", "top left"),
        ("top- left", "top left"),
        ("yes!no", "yes no"),
        ("yes! no", "yes no"),
        ("what?", "what"),
        ("a\tnew\nline", "new line"),
        ("", ""),
        ("." * 40 + "x", "." * 8 + "x"),
    ],
)
def test_an_answer_has_one_plain_form(said: str, plain: str) -> None:
    assert normalize_answer(said) == plain


def test_all_marks_vanish_beside_a_number_with_a_comma() -> None:
    assert remove_punctuation("1,000-2,000/day") == "10002000day"
    assert remove_punctuation("1000-2000/day") == "1000 2000 day"


def test_an_answer_is_worth_a_third_for_each_of_nine_who_gave_it() -> None:
    people = ["Blue"] * 6 + ["the navy"] * 2 + ["red", "3"]
    by_hand = {}
    for answer in {"blue", "navy", "red", "3"}:
        plain = [normalize_answer(said) for said in people]
        nine = [[*plain[:i], *plain[i + 1 :]] for i in range(10)]
        by_hand[answer] = sum(min(1, others.count(answer) / 3) for others in nine) / 10
    assert {answer: score_m4c(answer, people).score for answer in by_hand} == pytest.approx(by_hand)
    assert by_hand["blue"] == 1
    assert by_hand["navy"] == pytest.approx(0.6)
    assert by_hand["red"] == pytest.approx(0.3)


def test_a_score_needs_ten_people() -> None:
    with pytest.raises(UsageError, match="9 people answered"):
        score_m4c("blue", ["blue"] * 9)


def edit_slowly(one: str, other: str) -> int:
    if not one or not other:
        return max(len(one), len(other))
    replaced = edit_slowly(one[1:], other[1:]) + (one[0] != other[0])
    return min(edit_slowly(one[1:], other) + 1, edit_slowly(one, other[1:]) + 1, replaced)


@given(one=st.text("ab", max_size=4), other=st.text("abc", max_size=4))
def test_edits_are_counted_as_by_trying_all_ways(one: str, other: str) -> None:
    assert count_edits(one, other) == count_edits(other, one) == edit_slowly(one, other)


@pytest.mark.parametrize(
    ("answer", "truth", "value"),
    [("Coca-Cola", "coca cola", 8 / 9), ("kitten", "sitting", 4 / 7), ("abc", "xyz", 0), ("ab", "ax", 0.5),
     (" Same ", "same", 1), ("", "", 1), ("", "x", 0)],
)  # fmt: skip
def test_similarity_is_nothing_below_a_half(answer: str, truth: str, value: float) -> None:
    assert similarity(answer, truth) == pytest.approx(value)


@pytest.mark.parametrize(
    ("evaluator", "truths", "score"),
    [
        (TextVQAAccuracyEvaluator, [["The Stop", *["stop"] * 5, "go", "go", "x", "y"], ["no"] * 10], 0.5),
        (STVQAAccuracyEvaluator, [["go", "a stop"], ["no"]], 0.5),
        (STVQAANLSEvaluator, [["go", "stops"], ["no"]], 0.4),
    ],
)
def test_an_evaluator_gives_the_mean_over_all_answers(
    evaluator: Callable[[], Any], truths: list[list[str]], score: float
) -> None:
    answers = [{"pred_answer": "Stop", "gt_answers": truths[0]}, {"pred_answer": "yes", "gt_answers": truths[1]}]
    assert evaluator().eval_pred_list(answers) == pytest.approx(score)
    with pytest.raises(UsageError, match="pred_list is empty"):
        evaluator().eval_pred_list([])


def test_bleu_is_pycocoevalcaps_of_all_captions_and_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="pip install pycocoevalcap"):
        TextCapsBleu4Evaluator()

    class Tokenizer:
        def tokenize(self, captions: Any) -> Any:
            return {i: [each["caption"].lower() for each in said] for i, said in captions.items()}

    class Bleu:
        def __init__(self, n: int) -> None:
            self.n = n

        def compute_score(self, truths: Any, given: Any) -> tuple[list[float], None]:
            assert (truths, given) == ({0: ["a cat", "cats"], 1: ["a dog"]}, {0: ["a cat"], 1: ["no"]})
            return [0.4, 0.3, 0.2, 0.1][: self.n], None

    for name, value in (("bleu.bleu", {"Bleu": Bleu}), ("tokenizer.ptbtokenizer", {"PTBTokenizer": Tokenizer})):
        monkeypatch.setitem(sys.modules, f"pycocoevalcap.{name}", types.SimpleNamespace(**value))
        monkeypatch.setitem(sys.modules, f"pycocoevalcap.{name.split('.')[0]}", types.SimpleNamespace())
    monkeypatch.setitem(sys.modules, "pycocoevalcap", types.SimpleNamespace())
    captions = [("A cat", ["a cat", "Cats"]), ("no", ["a dog"])]
    rows = [{"pred_answer": said, "gt_answers": truths} for said, truths in captions]
    assert TextCapsBleu4Evaluator().eval_pred_list(rows) == 0.1
    with pytest.raises(UsageError, match="pred_list is empty"):
        TextCapsBleu4Evaluator().eval_pred_list([])
