"""VQAv2 and VizWiz: submissions of the test splits, whose answers are not public, and scores of the val splits.

The val splits are read from the benchmarks' own files and asked as LLaVA asks the test splits. Loads no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava.data.prompts import ANSWER_FORMATS, SHORT_ANSWER
from llava.errors import UsageError
from llava.eval.json_files import pick, read_json
from llava.eval.scoring.vqa_accuracy import VQA_READINGS
from llava.eval.submission import pick_id, write_vizwiz, write_vqav2
from llava.eval.task import File, Question, Task
from llava.eval.task_score import ScoringOptions, TaskScore
from llava.eval.tasks.readings import Truth, group, score_answers

_VQAV2_TEST = "vqav2/llava_vqav2_mscoco_test2015.jsonl"
_VQAV2_VAL_QUESTIONS = "vqav2/v2_OpenEnded_mscoco_val2014_questions.json"
_VQAV2_VAL_ANSWERS = "vqav2/v2_mscoco_val2014_annotations.json"
_VIZWIZ_TEST = "vizwiz/llava_test.jsonl"
_VIZWIZ_VAL = "vizwiz/val.json"

_VQAV2_KINDS = ("yes/no", "number", "other")


def submit_vqav2(answers: Path, data: Path) -> Path:
    """Writes the file for VQAv2's server, over all of test2015; returns its path. Raises UsageError."""
    target = _name_submission(answers)
    print(write_vqav2(answers, data / _VQAV2_TEST, target))
    return target


def submit_vizwiz(answers: Path, data: Path) -> Path:
    """Writes the file for VizWiz's server; returns its path. Raises UsageError if a question has no answer."""
    target = _name_submission(answers)
    print(write_vizwiz(answers, data / _VIZWIZ_TEST, target))
    return target


def _name_submission(answers: Path) -> Path:
    return answers.with_name(f"{answers.name.removesuffix('.jsonl')}.submission.json")


def read_vqav2_val(path: Path, images: Path) -> list[Question]:
    """VQAv2's own questions file of val2014; images by COCO's names."""
    questions = []
    for row in _read_rows(path, "questions"):
        name = f"COCO_val2014_{_pick_number(row, 'image_id', path):012d}.jpg"
        text = f"{_pick_text(row, 'question', path)}\n{ANSWER_FORMATS['vqav2']}"
        questions.append(Question(pick_id(row, "question_id", path), (images / name,), text, text))
    return questions


def score_vqav2_val(
    questions: Sequence[Question], texts: Sequence[str], data: Path, options: ScoringOptions
) -> TaskScore:
    """The accuracy of the VQA team's script on the answers as LLaVA submits them, 0 to 100. A ``TaskScorer``."""
    path = data / _VQAV2_VAL_ANSWERS
    truths = {}
    for row in _read_rows(path, "annotations"):
        people = pick(row, "answers", path)
        if not isinstance(people, list) or not all(isinstance(said, dict) and _has_answer(said) for said in people):
            raise UsageError(f"Question {row.get('question_id')!r} in '{path}' has no list of answers with 'answer'.")
        kept = [{"answer": said["answer"], "answer_id": said.get("answer_id", i)} for i, said in enumerate(people)]
        truths[pick_id(row, "question_id", path)] = Truth(kept, (str(pick(row, "answer_type", path)),))
    found = _find(questions, truths, path)
    readings = {"vqa-submitted": VQA_READINGS["vqa-submitted"], **VQA_READINGS}
    answers, means, notes = score_answers(texts, found, readings)
    notes.append("The published scores are those of test-dev, by the challenge's server.")
    groups = group(answers, _VQAV2_KINDS)
    return TaskScore("accuracy", {"accuracy": means["vqa-submitted"]}, groups, answers, means, notes)


def read_vizwiz_val(path: Path, images: Path) -> list[Question]:
    """VizWiz's own file of val; its questions' ids are the names of their images."""
    questions = []
    for row in _read_rows(path, None):
        name = _pick_text(row, "image", path)
        text = f"{_pick_text(row, 'question', path)}\n{ANSWER_FORMATS['vizwiz']}"
        questions.append(Question(name, (images / name,), text, text))
    return questions


def score_vizwiz_val(
    questions: Sequence[Question], texts: Sequence[str], data: Path, options: ScoringOptions
) -> TaskScore:
    """The soft accuracy by lmms-eval's scorer, which is LLaVA's, 0 to 100, by type of answer. A ``TaskScorer``."""
    path = data / _VIZWIZ_VAL
    truths = {}
    for row in _read_rows(path, None):
        people = pick(row, "answers", path)
        if not isinstance(people, list) or not all(isinstance(said, dict) and _has_answer(said) for said in people):
            raise UsageError(f"The row of image {row.get('image')!r} in '{path}' has no list of answers with 'answer'.")
        kinds = (str(row["answer_type"]),) if "answer_type" in row else ()
        # Its rows have no ids: people who said the same would not be told apart by scorers that compare rows.
        truths[_pick_text(row, "image", path)] = Truth([said["answer"] for said in people], kinds)
    found = _find(questions, truths, path)
    readings = {"lmms-eval-textvqa": VQA_READINGS["lmms-eval-textvqa"], **VQA_READINGS}
    answers, means, notes = score_answers(texts, found, readings)
    num_unanswerable = sum(answer.reading == "unanswerable" for answer in answers)
    notes.append(f"{num_unanswerable} of {len(answers)} answers are 'unanswerable'.")
    return TaskScore("accuracy", {"accuracy": means["lmms-eval-textvqa"]}, group(answers), answers, means, notes)


def _find(questions: Sequence[Question], truths: dict[Any, Truth], path: Path) -> list[Truth]:
    missing = [question.id for question in questions if question.id not in truths]
    if missing:
        raise UsageError(
            f"'{path}' has no answers to {len(missing)} of the {len(questions)} questions, the first of them "
            f"{missing[0]!r}: it is of another split."
        )
    return [truths[question.id] for question in questions]


def _read_rows(path: Path, key: str | None) -> list[dict[str, Any]]:
    """The rows of a JSON file that is a list, or that holds one under a key. Raises UsageError."""
    value = read_json(path)
    rows = value if key is None else value.get(key) if isinstance(value, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UsageError(f"'{path}' holds no list of objects{f' under {key!r}' if key else ''}.")
    return rows


def _has_answer(said: dict[str, Any]) -> bool:
    return isinstance(said.get("answer"), str)


def _pick_text(row: dict[str, Any], key: str, path: Path) -> str:
    value = pick(row, key, path)
    if not isinstance(value, str):
        raise UsageError(f"A row of '{path}' has {str(value)[:80]!r} as '{key}', which is no text.")
    return value


def _pick_number(row: dict[str, Any], key: str, path: Path) -> int:
    value = pick(row, key, path)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UsageError(f"A row of '{path}' has {str(value)[:80]!r} as '{key}', which is no number of an image.")
    return value


_SHORT = f'"{SHORT_ANSWER}"'
_VQA_SITE, _VIZWIZ_SITE = "https://visualqa.org/download.html", "https://vizwiz.org/tasks-and-datasets/vqa/"

VQAV2_VAL_TASK = Task(
    "vqav2_val",
    "VQAv2, the split whose answers are public",
    "val2014",
    214354,
    (
        File(_VQAV2_VAL_QUESTIONS, _VQA_SITE),
        File(_VQAV2_VAL_ANSWERS, _VQA_SITE),
        File("vqav2/val2014", "COCO's val2014 images, http://images.cocodataset.org/zips/val2014.zip"),
    ),
    "vqav2/val2014",
    read_vqav2_val,
    f"question, then {_SHORT}",
    128,
    "llava.eval.scoring.vqa_accuracy:score_vqa_submitted",
    "none",
    {},
    "none by the authors",
    score="llava.eval.tasks.vqav2_vizwiz:score_vqav2_val",
)
VIZWIZ_VAL_TASK = Task(
    "vizwiz_val",
    "VizWiz, the split whose answers are public",
    "val",
    4319,
    (File(_VIZWIZ_VAL, _VIZWIZ_SITE), File("vizwiz/val", _VIZWIZ_SITE)),
    "vizwiz/val",
    read_vizwiz_val,
    "question, \"When the provided information is insufficient, respond with 'Unanswerable'.\", " + _SHORT,
    128,
    "llava.eval.scoring.vqa_accuracy:score_lmms_textvqa",
    "none",
    {},
    "none by the authors",
    score="llava.eval.tasks.vqav2_vizwiz:score_vizwiz_val",
)
