"""TextVQA's score, with and without OCR tokens in the prompt. Loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava.errors import UsageError
from llava.eval.json_files import pick, read_json
from llava.eval.scoring.textvqa_join import join_textvqa
from llava.eval.scoring.vqa_accuracy import VQA_READINGS
from llava.eval.task import Question
from llava.eval.task_score import ScoringOptions, TaskScore
from llava.eval.tasks.readings import Truth, score_answers

ANNOTATIONS = "textvqa/TextVQA_0.5.1_val.json"


def score_textvqa(
    questions: Sequence[Question], texts: Sequence[str], data: Path, options: ScoringOptions
) -> TaskScore:
    """The soft accuracy of LLaVA's own scorer, 0 to 100. A ``TaskScorer``."""
    rows = [
        {"question_id": question.id, "prompt": question.prompt, "text": text}
        for question, text in zip(questions, texts, strict=True)
    ]
    people = [said for _, said in join_textvqa(rows, _read_annotations(data / ANNOTATIONS))]
    answers, means, notes = score_answers(texts, [Truth(said) for said in people], VQA_READINGS)
    return TaskScore("accuracy", {"accuracy": means["m4c"]}, {}, answers, means, notes)


def _read_annotations(path: Path) -> list[Any]:
    value = read_json(path)
    rows = pick(value, "data", path) if isinstance(value, dict) else None
    if not isinstance(rows, list):
        raise UsageError(f"'{path}' is not TextVQA's annotation file: it holds no list under 'data'.")
    return rows
