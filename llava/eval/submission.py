"""Submission files of VQAv2, VizWiz, GQA and MM-Vet, as LLaVA-1.5 writes them. Loads no torch.

The files equal the original's. What it passes over in silence, such as repeated ids, is said on stderr, and a file
that no server could score is refused.

Source: haotian-liu/LLaVA@c121f04 scripts/convert_vqav2_for_submission.py, convert_vizwiz_for_submission.py,
convert_gqa_for_eval.py and convert_mmvet_for_eval.py.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from llava.data.collection.journal import write_whole
from llava.errors import UsageError
from llava.eval.json_files import JsonLines, find_repeated, pick, read_json_lines, read_whole_lines, write_json
from llava.eval.scoring.answer_normalizer import normalize_answer
from llava.eval.scoring.gqa_accuracy import read_gqa
from llava.text import write_line


def write_vqav2(answers: str | Path, questions: str | Path, target: str | Path) -> str:
    """Writes an answer for each question, "" where there is none; returns the line that the original prints."""
    split = read_whole_lines(questions)
    ids = [pick_id(row, "question_id", questions) for row in split]
    given, summary = _read_answers(answers, ids)
    missing = sum(key not in given for key in ids)
    if missing:
        write_line(
            f"llava: {missing} of the {len(ids)} questions have no answer, and '' is submitted for them. That "
            "is right if only test-dev was asked; the server wants all of test2015."
        )
    write_json(target, [{"question_id": key, "answer": normalize_answer(given.get(key, ""))} for key in ids])
    return summary


def write_vizwiz(answers: str | Path, questions: str | Path, target: str | Path) -> str:
    """Writes the answer about each image; returns the line that the original prints.

    Raises UsageError if a question has none.
    """
    split = read_whole_lines(questions)
    ids = [pick_id(row, "question_id", questions) for row in split]
    given, summary = _read_answers(answers, ids)
    missing = [key for key in ids if key not in given]
    if missing:
        raise UsageError(
            f"{len(missing)} of the {len(ids)} questions of '{questions}' have no answer in '{answers}', the first of "
            f"them {missing[0]!r}: VizWiz's server wants all of them. Answer them first."
        )
    rows = zip(split, ids, strict=True)
    write_json(target, [{"image": pick(r, "image", questions), "answer": normalize_answer(given[i])} for r, i in rows])
    return summary


def write_gqa(answers: str | Path, target: str | Path) -> None:
    """Writes the answers as GQA's evaluation reads them."""
    rows = read_whole_lines(answers)
    ids = [pick_id(row, "question_id", answers) for row in rows]
    _say_repeated(find_repeated(ids), "answered", str(answers))
    texts = [read_gqa(_text_of(row, answers)) for row in rows]
    say_empty(texts, answers)
    write_json(target, [{"questionId": key, "prediction": text} for key, text in zip(ids, texts, strict=True)])


def write_mmvet(answers: str | Path, target: str | Path) -> None:
    """Writes the answers by id as MM-Vet's grader reads them."""
    rows = read_whole_lines(answers)
    ids = [pick_id(row, "question_id", answers) for row in rows]
    _say_repeated(find_repeated(ids), "answered", str(answers))
    texts = [_text_of(row, answers) for row in rows]
    say_empty(texts, answers)
    given = {f"v1_{key}": text for key, text in zip(ids, texts, strict=True)}
    write_whole(Path(target).resolve(), json.dumps(given, indent=2).encode())


def _read_answers(path: str | Path, wanted: Collection[str | int]) -> tuple[dict[str | int, str], str]:
    """Each question's answer, the last if there are several, and the line that the original prints."""
    lines = read_json_lines(path)
    ids = [pick_id(row, "question_id", path) for row in lines.rows]
    given = {key: _text_of(row, path) for key, row in zip(ids, lines.rows, strict=True)}
    _say_broken(lines)
    say_empty(given.values(), path)
    _say_repeated(find_repeated(ids), "answered", str(path))
    _say_repeated(find_repeated(wanted), "asked", "the questions file")
    known = set(wanted)
    strangers = [key for key in given if key not in known]
    if strangers and len(strangers) == len(given):
        raise UsageError(
            f"None of the {len(given)} answers in '{path}' is to a question of this split: the answers' ids are like "
            f"{strangers[0]!r}, the questions' like {next(iter(wanted), None)!r}. Name the files of the same split."
        )
    if strangers:
        write_line(
            f"llava: {len(strangers)} answers in '{path}' are to other questions, such as {strangers[0]!r}, and are "
            "left out."
        )
    summary = f"total results: {len(given)}, total split: {len(wanted)}, error_line: {len(lines.broken)}"
    return given, summary


def say_empty(texts: Iterable[str], path: str | Path) -> None:
    """Says on stderr how many answers are empty: a refusal, or a run that went wrong."""
    num = sum(not text.strip() for text in texts)
    if num:
        write_line(f"llava: {num} answers in '{path}' are empty.")


def pick_id(row: dict[str, Any], key: str, path: str | Path) -> str | int:
    """The id under a key of a row of ``path``. Raises UsageError if it is missing, or neither text nor a number."""
    value = pick(row, key, path)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise UsageError(f"A row of '{path}' has the {key} {value!r}, which is neither text nor a whole number.")
    return value


def _text_of(row: dict[str, Any], path: str | Path) -> str:
    text = pick(row, "text", path)
    if not isinstance(text, str):
        raise UsageError(
            f"The answer to question {row.get('question_id')!r} in '{path}' is {text!r}, which is no text."
        )
    return text


def _say_broken(lines: JsonLines) -> None:
    if lines.broken:
        write_line(
            f"llava: {len(lines.broken)} lines of '{lines.path}' are not JSON objects and are left out; the first is "
            f"line {lines.broken[0]}."
        )


def _say_repeated(repeated: list[object], verb: str, where: str) -> None:
    if repeated:
        write_line(f"llava: {len(repeated)} questions are {verb} more than once in {where}, such as {repeated[0]!r}.")
