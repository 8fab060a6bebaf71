"""MM-Vet: the score of a run by a judge's grades. Loads no torch.

The answers for the grader are in ``ANSWERS.json``, its grades and tables beside them. A grade that cannot be read is
left out and counted.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from llava.errors import UsageError
from llava.eval.answer_matching import MatchedAnswers
from llava.eval.mm_vet_grades import GradingFiles, grade, read_grades, read_questions
from llava.eval.scoring.judge_drift import warn_of_drift
from llava.eval.scoring.mm_vet import JUDGE, MAX_TOKENS, summarize_grades
from llava.eval.submission import write_mmvet
from llava.eval.task_score import ScoredAnswer, TaskScore

_FOLDER = "mm-vet"


def submit_mmvet(answers: Path, data: Path) -> Path:
    """Writes the answers for MM-Vet's grader; returns the file's path. Raises UsageError."""
    target = answers.with_name(f"{answers.name.removesuffix('.jsonl')}.json")
    write_mmvet(answers, target)
    return target


def judge_mmvet(
    matched: MatchedAnswers, path: Path, data: Path, judge: argparse.Namespace
) -> tuple[TaskScore | None, int]:
    """The score of the answers in ``path``, and the exit code; no score if only the cost was asked, or grades miss.

    ``judge`` holds the flags of ``add_judge_flags``. Raises LlavaError: files, flags or the judge cannot be used.
    """
    if not (data / _FOLDER / "mm-vet.json").is_file():
        raise UsageError(
            f"'{data / _FOLDER / 'mm-vet.json'}' is missing, which the judge needs: it is in mm-vet.zip of "
            "https://github.com/yuweihao/MM-Vet."
        )
    judge.judge_model = judge.judge_model or JUDGE
    judge.judge_max_tokens = judge.judge_max_tokens or MAX_TOKENS
    answers = submit_mmvet(path, data)
    files = GradingFiles(data / _FOLDER, answers.parent, answers.stem)
    code = grade(judge, files, 1, 1)
    if code or judge.judge_dry_run:
        return None, code
    return _score(matched, files, judge.judge_model), 0


def _score(matched: MatchedAnswers, files: GradingFiles, judge: str) -> TaskScore:
    data, _ = read_questions(files)
    graded = read_grades(files.grades(judge, 1))
    capabilities = {key: row["capability"] for key, row in data.items()}
    scores: dict[str, list[float | None]] = {
        key: [graded[key, 0].score if (key, 0) in graded else None] for key in data
    }
    table = summarize_grades(scores, capabilities)
    if not graded:
        raise UsageError(f"No grade of the judge {judge} could be read. Try --judge-retry-failed.")
    places = {f"v1_{question.id}": place for place, question in enumerate(matched.questions)}
    answers = [
        ScoredAnswer(
            places[key],
            score,
            graded[key, 0].content,
            (str(row["answer"]),),
            tuple(capabilities[key]),
        )
        for key, row in data.items()
        if key in places and (score := scores[key][0]) is not None
    ]
    counts = {
        name: sum(name in capabilities[key] for key in data if scores[key][0] is not None)
        for name in table.by_capability
    }
    groups = {name: (score, counts[name]) for name, score in table.by_capability.items() if counts[name]}
    combined = {name: score for name, score in table.by_combination.items() if score == score}
    notes = [f"The judge is {judge}."]
    readings = {}
    if table.num_failed:
        readings["published"] = summarize_grades(scores, capabilities, failed_as_zero=True).total
        notes.append(f"{table.num_failed} of {len(data)} grades could not be read and are left out.")
    notes.append(warn_of_drift("mm-vet", JUDGE, judge))
    return TaskScore("total", {"total": table.total, **combined}, groups, answers, readings, notes)
