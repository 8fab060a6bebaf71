"""Grades a model's answers to MM-Vet by a judge, and prints and writes the benchmark's tables. Loads no torch.

Grades that the published grader would take as 0, because no reply could be read, are null in the grade file, left out
of the means and counted; a "nan", which it takes for a grade, is asked for again.

Source: yuweihao/MM-Vet@7d717c2 mm-vet_evaluator.py (flags, file names, the grade file, the tables).
"""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.data.collection.journal import lock_file, write_whole
from llava.errors import UsageError
from llava.eval.json_files import pick, read_json
from llava.eval.judge import Ask, Judge, Review, ReviewRequest
from llava.eval.judge_flags import JudgeDefaults, open_judge
from llava.eval.reviews_file import find_journal
from llava.eval.scoring.judge_drift import warn_of_drift
from llava.eval.scoring.mm_vet import (
    JUDGE,
    MAX_TOKENS,
    PROMPT,
    TEMPERATURES,
    GradeTable,
    read_published_grade,
    read_strict_grade,
    summarize_grades,
    write_prompt,
)
from llava.text import write_line

Rows = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class GradingFiles:
    """Where things are: the folder of MM-Vet, and ``FOLDER/MODEL.json`` with the answers; grades go beside it."""

    benchmark: Path
    folder: Path
    model: str
    use_sub_set: bool = False

    @property
    def answers(self) -> Path:
        """The model's answers by id."""
        return self.folder / f"{self.model}.json"

    def grades(self, judge: str, num_runs: int) -> Path:
        """The grade file."""
        return self.folder / f"{self.model}_{_fit(judge)}-grade-{num_runs}runs.json"

    def table(self, judge: str, num_runs: int, kind: str) -> Path:
        """The table of ``kind`` "cap-score" or "cap-int-score"."""
        subset = "bardset_" if self.use_sub_set else ""
        return self.folder / f"{self.model}_{subset}{_fit(judge)}-{kind}-{num_runs}runs.csv"


def _fit(judge: str) -> str:
    return judge.replace("/", "_")


def read_questions(files: GradingFiles) -> tuple[Rows, dict[str, str]]:
    """The questions and the model's answers, both by id. Raises UsageError for files that do not fit."""
    path = files.benchmark / "mm-vet.json"
    data, answers = read_json(path), read_json(files.answers)
    if not (isinstance(data, dict) and isinstance(answers, dict)) or not data:
        raise UsageError(f"'{path}' and '{files.answers}' have to be objects by id, such as v1_0.")
    if files.use_sub_set:
        chosen = set(read_json(files.benchmark / "bard_set.json"))
        data = {key: row for key, row in data.items() if key in chosen}
    missing = [key for key in data if not isinstance(answers.get(key), str)]
    if missing:
        raise UsageError(
            f"'{files.answers}' has no answer to {len(missing)} of the {len(data)} questions, the first of them "
            f"{missing[0]}: make it of all answers with scripts/convert_mmvet_for_eval.py."
        )
    for row in data.values():
        for key in ("question", "answer", "capability"):
            pick(row, key, path)
    return data, answers


def make_requests(data: Rows, answers: Mapping[str, str], num_runs: int) -> dict[tuple[str, int], ReviewRequest]:
    """What the judge is asked, by question and run."""
    requests = {}
    for run in range(num_runs):
        for key, row in data.items():
            prompts = [
                write_prompt(row["question"], row["answer"], answers[key], again=again) for again in (False, True)
            ]
            asks = tuple(
                Ask(({"role": "user", "content": prompts[min(number, 1)]},), temperature)
                for number, temperature in enumerate(TEMPERATURES)
            )
            requests[key, run] = ReviewRequest(f"{key} {run}", asks)
    return requests


def grade(arguments: argparse.Namespace, files: GradingFiles, num_runs: int, decimals: int) -> int:
    """Asks for the grades that are missing, and prints the tables; the exit code is 1 if replies are missing.

    Raises:
        LlavaError: files, flags or the judge cannot be used.
    """
    data, answers = read_questions(files)
    requests = make_requests(data, answers, num_runs)
    path = files.grades(arguments.judge_model, num_runs)
    journal = find_journal(path)
    defaults = JudgeDefaults(JUDGE, 0.0, MAX_TOKENS)
    with lock_file(journal):
        judge = open_judge(arguments, defaults, journal, _is_readable, json.dumps([PROMPT, TEMPERATURES]))
        if arguments.judge_retry_failed:
            judge.forget(lambda text: not _is_readable(text))
        write_line(judge.describe_cost(list(requests.values())))
        if arguments.judge_dry_run:
            return 0
        replies: dict[str, Review] = {}

        def keep(review: Review) -> None:
            replies[review.id] = review

        judge.journal.open()
        try:
            judge.run(list(requests.values()), keep)
        finally:
            judge.journal.close()
    found = {key: [replies.get(f"{key} {run}") for run in range(num_runs)] for key in data}
    models = judge.find_models()
    write_whole(path.resolve(), json.dumps(_make_grades(found, models), indent=4).encode())
    return _report(judge, files, data, found, decimals)


def _is_readable(text: str) -> bool:
    return read_strict_grade(text).reading is not None


def _make_grades(found: Mapping[str, Sequence[Review | None]], models: Mapping[str, str]) -> dict[str, Any]:
    """The grade file: for each question the models, replies and grades of all runs that got a reply."""
    grades: dict[str, Any] = {}
    for key, row in found.items():
        reviews = [review for review in row if review is not None and not review.fault]
        verdicts = [read_strict_grade(review.text) for review in reviews]
        if reviews:
            grades[key] = {
                "model": [models.get(review.id, "") for review in reviews],
                "content": [v.reading or review.text for v, review in zip(verdicts, reviews, strict=True)],
                "score": [None if v.reading is None else v.score for v in verdicts],
            }
    return grades


def _report(
    judge: Judge,
    files: GradingFiles,
    data: Rows,
    found: Mapping[str, Sequence[Review | None]],
    decimals: int,
) -> int:
    """Prints and writes the tables; returns the exit code."""
    num_runs = len(next(iter(found.values())))
    grades = {key: [_read_grade(review) for review in row] for key, row in found.items()}
    capabilities = {key: row["capability"] for key, row in data.items()}
    table = summarize_grades(grades, capabilities, decimals=decimals)
    for kind, scores in (("cap-score", table.by_capability), ("cap-int-score", table.by_combination)):
        text = _write_table(files.model, scores, table)
        print(text, end="")
        write_whole(files.table(judge.client.model, num_runs, kind).resolve(), text.encode())
    write_line(f"llava: {judge.describe().line}")
    write_line(f"llava: {warn_of_drift('mm-vet', JUDGE, judge.client.model)}")
    missing = sum(review is None or bool(review.fault) for row in found.values() for review in row)
    if table.num_failed:
        zero = summarize_grades(grades, capabilities, failed_as_zero=True, decimals=decimals)
        write_line(
            f"llava: {table.num_failed} of {num_runs * len(found)} grades failed and are left out: {missing} without a "
            f"reply, {table.num_failed - missing} whose replies could not be read. The published grader counts the "
            f"latter as 0; with all of them as 0 the total is {zero.total}."
        )
    num_other = sum(_differs(review) for row in found.values() for review in row)
    if num_other:
        write_line(
            f"llava: {num_other} of the replies that could not be read are grades to the published grader (nan)."
        )
    if missing:
        reasons = "; ".join(f"{fault} ({num})" for fault, num in judge.faults.most_common(3))
        limit = f"the budget {judge.limit} is spent" if judge.limit else ""
        write_line(
            f"llava: error: {missing} grades got no reply: {'; '.join(filter(None, (reasons, limit)))}. Run the same "
            "command again to ask for them."
        )
    return 1 if missing else 0


def _read_grade(review: Review | None) -> float | None:
    if review is None or review.fault:
        return None
    verdict = read_strict_grade(review.text)
    return None if verdict.reading is None else verdict.score


def _differs(review: Review | None) -> bool:
    if review is None or review.fault or _is_readable(review.text):
        return False
    return read_published_grade(review.text).reading is not None


def _write_table(model: str, scores: Mapping[str, float], table: GradeTable) -> str:
    """CSV with one row, as the published files have it."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["", *scores, "total", "std", "runs"])
    writer.writerow([model, *scores.values(), table.total, table.std, str(table.runs)])
    return out.getvalue()
