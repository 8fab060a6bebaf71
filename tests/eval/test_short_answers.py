"""Every reading of a short answer gives the score of its published scorer, on hard cases made by running it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from llava.errors import UsageError
from llava.eval.scoring.anls import ANLS_READINGS
from llava.eval.scoring.gqa_accuracy import GQA_READINGS
from llava.eval.scoring.ocr_bench import OCRBENCH_READINGS, QUESTION_TYPES, add_up_ocrbench
from llava.eval.scoring.relaxed_accuracy import RELAXED_READINGS
from llava.eval.scoring.textvqa_join import join_textvqa, read_question
from llava.eval.scoring.verdict import Verdict
from llava.eval.scoring.vqa_accuracy import VQA_READINGS

GOLD = json.loads((Path(__file__).parents[1] / "gold/eval/short_answers.json").read_text(encoding="utf-8"))
READINGS: dict[str, dict[str, Callable[..., Verdict]]] = {
    "vqa": dict(VQA_READINGS),
    "anls": dict(ANLS_READINGS),
    "relaxed": dict(RELAXED_READINGS),
    "ocrbench": dict(OCRBENCH_READINGS),
    "gqa": dict(GQA_READINGS),
}
ALL = [(family, reading) for family, readings in READINGS.items() for reading in readings]


def gold_of(family: str, reading: str) -> list[tuple[list[Any], float | str]]:
    column = GOLD[family]["readings"].index(reading)
    return [(case, scores[column]) for case, scores in GOLD[family]["cases"]]


@pytest.mark.parametrize(("family", "reading"), ALL)
def test_a_score_is_the_published_scorers(family: str, reading: str) -> None:
    cases = gold_of(family, reading)
    assert len(cases) >= 60
    scorer = READINGS[family][reading]
    known = [(case, score) for case, score in cases if not isinstance(score, str)]
    assert [(case, scorer(*case).score) for case, _ in known] == known


def test_no_published_reading_is_left_out() -> None:
    assert {family: list(readings) for family, readings in READINGS.items()} == {
        family: GOLD[family]["readings"] for family in READINGS
    }


@pytest.mark.parametrize("family", READINGS)
def test_the_cases_tell_each_reading_from_the_others(family: str) -> None:
    columns = list(zip(*(scores for _, scores in GOLD[family]["cases"]), strict=True))
    assert len(set(columns)) == len(READINGS[family])


def test_ten_people_are_wanted_where_the_published_scorer_asserts_them() -> None:
    failed = [case for case, score in gold_of("vqa", "m4c") if score == "AssertionError"]
    assert len(failed) == 4
    for case in failed:
        with pytest.raises(UsageError, match=f"{len(case[1])} people answered"):
            VQA_READINGS["m4c"](*case)


@pytest.mark.parametrize("reading", ["m4c", "pix2struct"])
def test_two_empty_texts_are_equal_where_the_published_scorer_divides_by_zero(reading: str) -> None:
    failed = [case for case, score in gold_of("anls", reading) if score == "ZeroDivisionError"]
    assert failed
    for case in failed:
        verdict = ANLS_READINGS[reading](*case)
        assert verdict == Verdict(1.0, None, "the published scorer divides by zero")


def test_only_the_failures_that_are_known_are_in_the_gold() -> None:
    failures = {
        (family, reading, score)
        for family, reading in ALL
        for _, score in gold_of(family, reading)
        if isinstance(score, str)
    }
    assert failures == {
        ("vqa", "m4c", "AssertionError"),
        ("anls", "m4c", "ZeroDivisionError"),
        ("anls", "pix2struct", "ZeroDivisionError"),
    }


@pytest.mark.parametrize(("family", "reading"), ALL)
def test_nothing_is_read_out_of_a_blank_answer(family: str, reading: str) -> None:
    scorer = READINGS[family][reading]
    references = ["yes"] * 10 if family == "vqa" else ["yes"]
    for blank in ("", " ", "\n", "\t \n"):
        verdict = scorer(blank, references)
        assert (verdict.score, verdict.reading) == (0.0, None)
    assert scorer("yes", references).reading == "yes"


@pytest.mark.parametrize(("family", "reading"), [pair for pair in ALL if pair[0] != "gqa"])
def test_a_question_without_references_is_refused(family: str, reading: str) -> None:
    with pytest.raises(UsageError, match=r"0 people|Nobody answered|no reference"):
        READINGS[family][reading]("yes", [])


def test_the_protocols_reading_is_the_first() -> None:
    assert [next(iter(readings)) for readings in READINGS.values()] == [
        "m4c",
        "m4c",
        "lmms-eval",
        "ocrbench-team",
        "official",
    ]


def test_a_verdict_says_which_rule_decided() -> None:
    assert VQA_READINGS["vqa-team"]("Yes", ["yes"] * 10) == Verdict(
        0.0, "Yes", "compared as it stands, since all people wrote the same"
    )
    assert OCRBENCH_READINGS["ocrbench-team"]("x", [""], "") == Verdict(
        1.0, "x", "an empty reference is contained in every answer"
    )
    assert ANLS_READINGS["mp-docvqa"]("None", ["none"]).note == "the answer 'none' counts as no answer"
    assert RELAXED_READINGS["lmms-eval"]("5", ["5"]).note == "read as a number"


def test_ocrbench_adds_up_to_a_thousand() -> None:
    scored = [(name, 1.0) for name in QUESTION_TYPES for _ in range(50)] + [("Doc-oriented VQA", 0.0)]
    points = add_up_ocrbench(scored)
    assert points["Text Recognition"] == 300
    assert points["Doc-oriented VQA"] == 50
    assert points["Final Score"] == 500
    with pytest.raises(UsageError, match="'Spotting' is no question type"):
        add_up_ocrbench([("Spotting", 1.0)])


SENTENCE = "Answer the question using a single word or phrase."


@pytest.mark.parametrize(
    ("prompt", "question"),
    [
        (f"What is it?\n{SENTENCE}", "what is it?"),
        (f"What is it?\nReference OCR token: a, b\n{SENTENCE}", "what is it?"),
        (f"Reference OCR token: a, b\nWhat is it?\n{SENTENCE}", "what is it?"),
        ("OCR tokens: a, b. Question: What is it? Short answer:", "what is it?"),
        ("OCR tokens: a\nb. Question: What\nis it? Short answer:", "what\nis it?"),
        (f" What is it? \n{SENTENCE}", " what is it? "),
        (f"Reference OCR token: is it?\n{SENTENCE}", "reference ocr token: is it?"),
        (f"\n{SENTENCE}", ""),
    ],
)
def test_a_question_is_cut_out_of_each_form_of_prompt(prompt: str, question: str) -> None:
    assert read_question(prompt) == question


@pytest.mark.parametrize("prompt", ["What is it?", "a\nb\nc", "a\nReference OCR token: x\nb\nc", "OCR tokens: a", ""])
def test_a_prompt_of_another_form_is_refused(prompt: str) -> None:
    with pytest.raises(UsageError, match="No question can be read out of the prompt"):
        read_question(prompt)


def textvqa_row(prompt: str = f"What?\n{SENTENCE}", **values: Any) -> dict[str, Any]:
    return {"question_id": "img1", "prompt": prompt, "text": "x", **values}


def test_an_answer_is_joined_by_its_image_and_question() -> None:
    annotations = [
        {"image_id": image, "question": question, "answers": [f"{image} {question}"] * 10}
        for image in ("img1", "img2")
        for question in ("What?", "Which?")
    ]
    joined: Sequence[tuple[str, Sequence[str]]] = join_textvqa(
        [textvqa_row(), textvqa_row(f"WHICH?\n{SENTENCE}", question_id="img2")], annotations
    )
    assert [people[0] for _, people in joined] == ["img1 What?", "img2 Which?"]


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (textvqa_row(question_id="img9"), "no question 'what\\?' about image 'img9'"),
        (textvqa_row(f"Who?\n{SENTENCE}"), "no question 'who\\?'"),
        (textvqa_row(text=None), "no text under 'text'"),
        ({"question_id": "img1"}, "no text under 'prompt'"),
    ],
)
def test_an_answer_to_another_question_is_refused(row: dict[str, Any], fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        join_textvqa([row], [{"image_id": "img1", "question": "What?", "answers": ["x"] * 10}])


@pytest.mark.parametrize("people", [["x"] * 9, [], {"1": "x"}, 5])
def test_a_question_that_not_ten_people_answered_is_named(people: Any) -> None:
    with pytest.raises(UsageError, match=r"'what\?' about image 'img1' needs a list of 10 human answers"):
        join_textvqa([textvqa_row()], [{"image_id": "img1", "question": "What?", "answers": people}])


def test_the_test_splits_annotations_are_refused() -> None:
    with pytest.raises(UsageError, match="the test set has no answers"):
        join_textvqa([textvqa_row()], [{"image_id": "img1", "question": "What?"}])
