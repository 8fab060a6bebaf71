"""Front door: ``python -m llava.eval.convert_answer_to_mme``, eval.zip's conversion of answers for MME's calculation.

It runs in the folder ``playground/data/eval/MME``. Deliberate differences from the original: a tab or a line break in
an answer becomes a blank; answers to other questions and repeated answers are refused, and missing ones are named.

Source: haotian-liu/LLaVA@32cebc3 playground/data/eval/MME/convert_answer_to_mme.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:  # run by its path: modules beside this file are not top-level ones
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import argparse
from collections import Counter
from collections.abc import Sequence

from llava.data.collection.journal import write_whole
from llava.entry_point import run_command
from llava.errors import UsageError
from llava.eval.json_files import pick_text, read_whole_lines
from llava.eval.mme_files import Key, MmeQuestion, breaks_line, find_question, read_mme_folder, write_line_of
from llava.text import write_line

FOLDER = Path("MME_Benchmark_release_version")


def convert(answers: Path, target: Path, folder: Path = FOLDER) -> None:
    """Writes ``target/CATEGORY.txt`` for each category that is answered, in the answers' order. Raises LlavaError."""
    questions = read_mme_folder(folder)
    given = _read_answers(answers, questions)
    lines: dict[str, list[str]] = {}
    for question, text in given:
        lines.setdefault(question.category, []).append(write_line_of(question, text))
    for category, rows in lines.items():
        # A lone surrogate, which UTF-8 does not have, is written as an escape.
        write_whole((target / f"{category}.txt").resolve(), "".join(rows).encode("utf-8", "backslashreplace"))
    _say_what_is_odd(given, questions, target)


def _read_answers(path: Path, questions: dict[Key, MmeQuestion]) -> list[tuple[MmeQuestion, str]]:
    found, strange = [], []
    for row in read_whole_lines(path):
        question_id, prompt = pick_text(row, "question_id", path), pick_text(row, "prompt", path)
        question = find_question(questions, question_id, prompt)
        if question is None:
            strange.append((question_id, prompt))
        else:
            found.append((question, pick_text(row, "text", path)))
    if strange:
        raise UsageError(
            f"{len(strange)} answers in '{path}' are to questions that MME's folder does not have, the first of them "
            f"{strange[0][1][:80]!r} about '{strange[0][0][:80]}'. Answer the questions of llava_mme.jsonl."
        )
    if not found:
        raise UsageError(f"'{path}' has no answers.")
    repeated = [question for question, num in Counter(question for question, _ in found).items() if num > question.num]
    if repeated:
        raise UsageError(
            f"{len(repeated)} questions are answered more than once in '{path}', the first of them "
            f"{repeated[0].text[:80]!r} of {repeated[0].category}/{repeated[0].file}. Keep one answer to each."
        )
    return found


def _say_what_is_odd(given: Sequence[tuple[MmeQuestion, str]], questions: dict[Key, MmeQuestion], target: Path) -> None:
    answered = {question for question, _ in given}
    categories = {question.category for question in answered}
    missing = [question for question in questions.values() if question not in answered]
    if missing:
        write_line(
            f"llava: {len(missing)} of the {len(questions)} questions have no answer, the first of them "
            f"{missing[0].text[:80]!r} of {missing[0].category}/{missing[0].file}: the score is not MME's."
        )
    if old := sorted(path.name for path in target.glob("*.txt") if path.stem not in categories):
        write_line(f"llava: '{target}' holds files of another conversion: {', '.join(old)}.")
    if num := sum(breaks_line(text) for _, text in given):
        write_line(f"llava: {num} answers hold a tab or a line break, which is written as a blank.")
    if num := sum(not text.strip() for _, text in given):
        write_line(f"llava: {num} answers are empty.")


def main(argv: Sequence[str] | None = None) -> int:
    """Converts ``answers/EXPERIMENT.jsonl``; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m llava.eval.convert_answer_to_mme")
    parser.add_argument("--experiment", type=str, required=True)
    name = parser.parse_args(argv).experiment

    def work() -> int:
        convert(Path("answers") / f"{name}.jsonl", Path("eval_tool/answers") / name)
        return 0

    return run_command(work)


if __name__ == "__main__":
    sys.exit(main())
