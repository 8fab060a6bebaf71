"""Answers are joined with their questions by what they answer; what does not fit is refused, or left out and named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llava.errors import UsageError
from llava.eval.answer_matching import match_answers
from llava.eval.task import Question


def make_questions(*ids: int | str) -> list[Question]:
    return [Question(key, (), f"{key}?\nShort.", f"{key}?\nShort.") for key in ids]


def answer(key: Any, text: Any, **others: Any) -> dict[str, Any]:
    return {"question_id": key, "prompt": f"{key}?\nShort.", "text": text, "model_id": "m", **others}


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_answers_in_any_order_are_joined_by_their_questions(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", answer("x", "1"), answer(3, "2"), answer(1, "3"))
    matched = match_answers(path, make_questions(1, "x", 3))
    assert matched.texts == ("3", "1", "2")
    assert (matched.model, matched.notes) == ("m", ())


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "has no answers"),
        (['{"question_id": 1, "text": "a"}', '{"question_id": 2, "te'], r"Line 2 of .* is half-written"),
        (["[1]"], r"Line 1 of .* is half-written, or not JSON"),
        (["[" * 100_000], r"Line 1 of .* is half-written, or not JSON"),
        ([{"question_id": 1}], r"Line 1 of .* has no 'text'"),
        ([answer(1, None)], r"Line 1 of .* has 'None' as 'text', which is no text"),
        ([answer(1, 7)], r"Line 1 of .* has '7' as 'text'"),
        ([{"text": "a"}], r"Line 1 of .* has 'None' as 'question_id'"),
        ([answer(True, "a")], r"Line 1 of .* has 'True' as 'question_id'"),
        ([answer([1], "a")], r"Line 1 of .* has '\[1\]' as 'question_id'"),
        ([answer(1, "a", prompt=["?"])], "no text as 'prompt'"),
        ([answer(1, "a"), answer(2, "b"), answer(1, "c")], r"1 questions have more than one answer .* first of them 1"),
        ([answer(7, "a")], r"None of the 1 answers .* ids are like 7, the questions' like 1"),
        ([answer(1, "a")], r"1 of the 2 questions have no answer in .*, the first 2"),
        ([answer(1, "a"), answer(2, "b", model_id="n")], "has answers of 2 models, such as m, n"),
    ],
)
def test_what_cannot_be_scored_is_refused(tmp_path: Path, rows: list[Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        match_answers(write(tmp_path / "a.jsonl", *rows), make_questions(1, 2))


def test_what_can_be_scored_all_the_same_is_named(tmp_path: Path) -> None:
    rows = [answer(1, "a"), answer(9, "z"), answer(1, "a"), answer("2", "b"), answer(3, "c", prompt="Other words?")]
    matched = match_answers(write(tmp_path / "a.jsonl", *rows), make_questions(1, 2, 3, 4), is_partial=True)
    assert matched.texts == ("a", "b", "c")
    said = "\n".join(matched.notes)
    assert "1 answers in" in said
    assert "are to other questions, such as 9, and are left out" in said
    assert "1 answers, such as to 1, are in" in said
    assert "1 answers are to questions that were asked in other words" in said
    assert "1 answers have ids of another type" in said
    assert "1 of the 4 questions have no answer" in said
    assert "the score is not comparable with published ones" in said


def test_questions_that_share_an_id_are_known_by_their_prompts(tmp_path: Path) -> None:
    questions = [Question("img", (), text, text) for text in ("a?", "b?", "a?")]
    rows = [answer("img", text, prompt=prompt) for text, prompt in (("1", "b?"), ("2", "a?"), ("3", "a?"))]
    matched = match_answers(write(tmp_path / "a.jsonl", *rows), questions, ids_repeat=True)
    assert matched.texts == ("2", "1", "3")
    rows[0]["prompt"] = "b?\nReference OCR token: x"
    with pytest.raises(UsageError, match="1 of the 3 questions have no answer"):
        match_answers(write(tmp_path / "b.jsonl", *rows), questions, ids_repeat=True)
    with pytest.raises(UsageError, match="Some ids are equal, but what was asked is not"):
        match_answers(write(tmp_path / "c.jsonl", rows[0]), questions, ids_repeat=True)


def test_rounds_of_a_question_are_told_apart(tmp_path: Path) -> None:
    questions = [Question(1, (), f"{i}", "p", {"round_id": i}) for i in (0, 1)]
    rows = [answer(1, "b", round_id=1, prompt="p"), answer(1, "a", round_id=0, prompt="p")]
    assert match_answers(write(tmp_path / "a.jsonl", *rows), questions).texts == ("a", "b")


def test_answers_that_repeat_the_benchmarks_row_may_stand_on_one_line(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"img_path": "a.png", "question": "Sharp?", "candidates": ["Yes", "No"]}]
    rows.append({**rows[0], "question": "Dark?"})
    questions = [Question("a.png", (), "t", "t", row=row) for row in rows]
    line = "".join(json.dumps({**row, "response": row["question"][0]}) for row in rows[::-1])
    assert match_answers(write(tmp_path / "a.jsonl", line), questions, ids_repeat=True).texts == ("S", "D")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"The answers file '.*none\.jsonl' cannot be read: No such file"):
        match_answers(tmp_path / "none.jsonl", make_questions(1))
