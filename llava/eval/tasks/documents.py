"""DocVQA, InfoVQA, ChartQA and OCRBench: their questions and scores. Loads no torch.

The files are those that lmms-eval reads, and the prompts are its own, but for OCRBench, which LLaVA's authors ask with
their sentence for short answers and lmms-eval with none.

Source: EvolvingLMMs-Lab/lmms-eval@75571cf lmms_eval/tasks/docvqa, infovqa, chartqa and ocrbench (prompts, columns);
Yuliang-Liu/MultimodalOCR@f5cbec6 OCRBench/scripts/LLaVA1_5.py (OCRBench's prompt).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.data.prompts import ANSWER_FORMATS, SHORT_ANSWER, SINGLE_WORD
from llava.errors import UsageError
from llava.eval.parquet_shards import ShardRow, read_shards
from llava.eval.scoring.anls import ANLS_READINGS
from llava.eval.scoring.ocr_bench import OCRBENCH_READINGS, QUESTION_TYPES, add_up_ocrbench
from llava.eval.scoring.relaxed_accuracy import RELAXED_READINGS
from llava.eval.task import File, Question, Task
from llava.eval.task_score import ScoringOptions, TaskScore
from llava.eval.tasks.readings import Truth, group, score_answers

_DOCVQA = "docvqa/DocVQA/validation-*.parquet"
_INFOVQA = "infovqa/InfographicVQA/validation-*.parquet"
_CHARTQA = "chartqa/data/test-*.parquet"
_OCRBENCH = "ocrbench/data/test-*.parquet"

_CHART_TYPES = {"human_test": "human", "augmented_test": "augmented"}
# DocVQA's and InfoVQA's scores in papers on LLaVA are lmms-eval's.
_ANLS = {"lmms-eval": ANLS_READINGS["lmms-eval"], **ANLS_READINGS}


def read_docvqa(path: Path, images: Path) -> list[Question]:
    """DocVQA's and InfoVQA's questions; ``images`` is not used, since the files hold them."""
    rows = read_shards(path, ["questionId", "question"], images=["image"])
    return [_ask(row, row.pick("questionId", int | str), ANSWER_FORMATS["docvqa"]) for row in rows]


def read_chartqa(path: Path, images: Path) -> list[Question]:
    """ChartQA's questions; they have no ids, so that their numbers are taken, from 0 on."""
    rows = read_shards(path, ["question"], images=["image"])
    return [_ask(row, row.number, ANSWER_FORMATS["chartqa"]) for row in rows]


def read_ocrbench(path: Path, images: Path) -> list[Question]:
    """OCRBench's questions; they have no ids, so that their numbers are taken, from 0 on."""
    rows = read_shards(path, ["question"], images=["image"])
    return [_ask(row, row.number, ANSWER_FORMATS["ocrbench"]) for row in rows]


def _ask(row: ShardRow, key: int | str, sentence: str) -> Question:
    text = f"{row.pick('question', str)}\n{sentence}"
    return Question(key, row.images, text, text)


def score_docvqa(questions: Sequence[Question], texts: Sequence[str], data: Path, options: ScoringOptions) -> TaskScore:
    """ANLS of DocVQA, 0 to 100, by question type. A ``TaskScorer``."""
    rows = read_shards(data / _DOCVQA, ["questionId", "answers"], ["question_types"])
    return _score_anls(questions, texts, rows, "question_types")


def score_infovqa(
    questions: Sequence[Question], texts: Sequence[str], data: Path, options: ScoringOptions
) -> TaskScore:
    """ANLS of InfoVQA, 0 to 100, by where the answer comes from. A ``TaskScorer``."""
    rows = read_shards(data / _INFOVQA, ["questionId", "answers"], ["answer_type"])
    return _score_anls(questions, texts, rows, "answer_type")


def _score_anls(questions: Sequence[Question], texts: Sequence[str], rows: Iterable[ShardRow], kinds: str) -> TaskScore:
    truths = {}
    for row in rows:
        found = row.values[kinds]
        categories = tuple(map(str, found)) if isinstance(found, list) else (str(found),) if found else ()
        truths[row.pick("questionId", int | str)] = Truth(row.pick_texts("answers"), tuple(dict.fromkeys(categories)))
    answers, means, notes = score_answers(texts, _find(questions, truths), _ANLS)
    notes.append("An ANLS below 50 counts as 0, and exactly 50 as 0 in the reading anls.")
    return TaskScore("anls", {"anls": means["lmms-eval"]}, group(answers), answers, means, notes)


def score_chartqa(
    questions: Sequence[Question], texts: Sequence[str], data: Path, options: ScoringOptions
) -> TaskScore:
    """Relaxed accuracy of ChartQA, 0 to 100, of all, of human and of augmented questions. A ``TaskScorer``."""
    truths = {}
    for row in read_shards(data / _CHARTQA, ["answer", "type"]):
        kind = row.pick("type", str)
        if kind not in _CHART_TYPES:
            raise UsageError(f"{row.where} has the type {kind!r}; there are: {', '.join(_CHART_TYPES)}.")
        truths[row.number] = Truth((row.pick("answer", str),), (_CHART_TYPES[kind],))
    answers, means, notes = score_answers(texts, _find(questions, truths), RELAXED_READINGS)
    groups = group(answers, tuple(_CHART_TYPES.values()))
    scores = {"relaxed_overall": means["lmms-eval"]}
    scores |= {f"relaxed_{name}_split": score for name, (score, _) in groups.items()}
    if len({num for _, num in groups.values()}) > 1 or len(groups) == 1:
        notes.append("The two splits have not the same size here, so the overall score is not the mean of theirs.")
    return TaskScore("relaxed_overall", scores, groups, answers, means, notes)


def score_ocrbench(
    questions: Sequence[Question], texts: Sequence[str], data: Path, options: ScoringOptions
) -> TaskScore:
    """Points of OCRBench, of 1000, and by question type in percent. A ``TaskScorer``."""
    truths = {}
    for row in read_shards(data / _OCRBENCH, ["answer", "question_type", "dataset"]):
        # A single answer may be stored as a text.
        references = (row.values["answer"],) if isinstance(row.values["answer"], str) else row.pick_texts("answer")
        truths[row.number] = Truth(references, (row.pick("question_type", str),), (row.pick("dataset", str),))
    answers, means, notes = score_answers(texts, _find(questions, truths), OCRBENCH_READINGS)
    scores = add_up_ocrbench((answer.categories[0], answer.score) for answer in answers)
    readings = {name: mean * len(answers) / 100 for name, mean in means.items()}
    if empty := [answer for answer in answers if answer.score and "empty reference" in answer.note]:
        notes.append(f"{len(empty)} answers are right because their reference is empty, as in the published scorer.")
    return TaskScore("Final Score", scores, group(answers, QUESTION_TYPES), answers, readings, notes)


def _find(questions: Sequence[Question], truths: Mapping[Any, Truth]) -> list[Truth]:
    missing = [question.id for question in questions if question.id not in truths]
    if missing:
        raise UsageError(
            f"{len(missing)} questions have no annotation, the first of them {missing[0]!r}: the files were changed."
        )
    return [truths[question.id] for question in questions]


_SHORT = f'question, then "{SHORT_ANSWER}"'
_ROWS = (
    ("docvqa", "DocVQA", "val", 5349, _DOCVQA, "lmms-lab/DocVQA", read_docvqa, _SHORT, 32, "anls:score_anls_lmms"),
    ("infovqa", "InfoVQA", "val", 2801, _INFOVQA, "lmms-lab/DocVQA", read_docvqa, _SHORT, 32, "anls:score_anls_lmms"),
    (
        "chartqa",
        "ChartQA",
        "test",
        2500,
        _CHARTQA,
        "lmms-lab/ChartQA",
        read_chartqa,
        f'question, then "{SINGLE_WORD}"',
        16,
        "relaxed_accuracy:score_relaxed",
    ),
    (
        "ocrbench",
        "OCRBench (points of 1000)",
        "test",
        1000,
        _OCRBENCH,
        "echo840/OCRBench",
        read_ocrbench,
        _SHORT,
        128,
        "ocr_bench:score_ocrbench_team",
    ),
)

DOCUMENT_TASKS = tuple(
    Task(
        name,
        title,
        split,
        count,
        (File(path, f"https://huggingface.co/datasets/{source}, its folder and file names kept"),),
        "",
        reader,
        prompt,
        tokens,
        f"llava.eval.scoring.{scorer}",
        "none",
        {},
        "none by the authors",
        score=f"llava.eval.tasks.documents:score_{name}",
    )
    for name, title, split, count, path, source, reader, prompt, tokens, scorer in _ROWS
)
"""Their rows in the table of benchmarks."""
