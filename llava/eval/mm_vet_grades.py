"""Grades a model's answers to MM-Vet by a judge, and prints and writes the benchmark's tables. Loads no torch.

Grades that the published grader would take as 0, because no reply could be read, are null in the grade file, left out
of the means and counted; a "nan", which it takes for a grade, is asked for again.

Source: yuweihao/MM-Vet@7d717c2 mm-vet_evaluator.py (flags, file names, the grade file, the tables).
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.data.collection.journal import lock_file, write_whole
from llava.errors import UsageError
from llava.eval.json_files import pick, pick_text, read_json
from llava.eval.judge import Ask, Judge, Review, ReviewRequest
from llava.eval.judge_flags import JudgeDefaults, open_judge
from llava.eval.reviews_file import find_journal
from llava.eval.scoring.judge_drift import warn_of_drift
from llava.eval.scoring.mm_vet import (
    JUDGE,
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
Place = tuple[str, int]
"""A question and the number of a run."""


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
        data = _choose(data, files.benchmark / "bard_set.json")
    missing = [key for key in data if not isinstance(answers.get(key), str)]
    if missing:
        raise UsageError(
            f"'{files.answers}' has no answer to {len(missing)} of the {len(data)} questions, the first of them "
            f"{missing[0]}: make it of all answers with scripts/convert_mmvet_for_eval.py."
        )
    for name, row in data.items():
        if not isinstance(row, dict):
            raise UsageError(f"'{path}' has no question under {name!r}, but {row!r}.")
        for key in ("question", "answer"):
            pick_text(row, key, path)
        if not _are_texts(names := pick(row, "capability", path)):
            raise UsageError(f"'{path}' has {str(names)[:80]!r} as 'capability' of {name}, which is no list of texts.")
    return data, answers


def _choose(data: Rows, path: Path) -> Rows:
    """The questions whose ids the list at ``path`` has."""
    chosen = read_json(path)
    if not _are_texts(chosen) or not (rows := {key: row for key, row in data.items() if key in chosen}):
        raise UsageError(f"'{path}' has to be a list of ids of mm-vet.json, such as v1_0.")
    return rows


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


@dataclass(frozen=True)
class Grade:
    """A grade and the reply that it was read from; ``score`` is None if nothing could be read."""

    model: str
    content: str
    score: float | None


def make_requests(
    data: Rows, answers: Mapping[str, str], num_runs: int, *, as_published: bool = True
) -> dict[Place, ReviewRequest]:
    """What the judge is asked, by question and run; ``as_published``: at the published temperatures."""
    requests = {}
    for run in range(num_runs):
        for key, row in data.items():
            prompts = [
                write_prompt(row["question"], row["answer"], answers[key], again=again) for again in (False, True)
            ]
            asks = tuple(
                Ask(({"role": "user", "content": prompts[min(number, 1)]},), temperature if as_published else None)
                for number, temperature in enumerate(TEMPERATURES)
            )
            requests[key, run] = ReviewRequest(f"{key} {run}", asks)
    return requests


def read_grades(path: Path) -> dict[Place, Grade]:
    """The grades of a grade file, by question and run, that hold a number. Raises UsageError."""
    if not path.exists():
        return {}
    found = {}
    try:
        for key, row in read_json(path).items():
            for run, (model, content, score) in enumerate(zip(row["model"], row["content"], row["score"], strict=True)):
                if isinstance(score, (int, float)) and 0 <= score <= 1:
                    found[key, run] = Grade(model, content, score)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"'{path}' is not a grade file of MM-Vet: remove it, or name another --result_path."
        ) from error
    return found


def grade(arguments: argparse.Namespace, files: GradingFiles, num_runs: int, decimals: int) -> int:
    """Asks for the grades that are missing, and prints the tables; the exit code is 1 if replies are missing.

    Grades in the grade file stay as they are, unless the journal says that they are of other answers. To have all made
    again, remove both files.

    Raises:
        LlavaError: files, flags or the judge cannot be used.
    """
    data, answers = read_questions(files)
    path = files.grades(arguments.judge_model, num_runs)
    as_published = arguments.judge_temperature == "published"
    requests = make_requests(data, answers, num_runs, as_published=as_published)
    defaults = JudgeDefaults(JUDGE, 0.0, arguments.judge_max_tokens)
    with contextlib.nullcontext() if arguments.judge_dry_run else lock_file(find_journal(path)):
        prompt = json.dumps([PROMPT, TEMPERATURES])
        judge = open_judge(arguments, defaults, find_journal(path), _is_readable, prompt)
        known = set(judge.find_models())
        grades = {
            place: one
            for place, one in read_grades(path).items()
            if place in requests and requests[place].id not in known
        }
        if grades:
            write_line(f"llava: {len(grades)} grades are taken from '{path}', which does not say of which answers.")
        if arguments.judge_retry_failed:
            judge.forget(lambda text: not _is_readable(text))
        missing = [request for place, request in requests.items() if place not in grades]
        write_line(judge.describe_cost(missing, len(requests)))
        if arguments.judge_dry_run:
            return 0
        places = {request.id: place for place, request in requests.items()}
        replies: dict[Place, str] = {}

        def keep(review: Review) -> None:
            if not review.fault:
                replies[places[review.id]] = review.text

        judge.journal.open()
        try:
            judge.run(missing, keep)
        finally:
            judge.journal.close()
        models = judge.find_models()
        for place, text in replies.items():
            verdict = read_strict_grade(text)
            score = None if verdict.reading is None else verdict.score
            grades[place] = Grade(models[requests[place].id], verdict.reading or text, score)
        _write_grades(path, list(data), num_runs, grades)
    return _report(judge, files, data, [[grades.get((key, run)) for run in range(num_runs)] for key in data], decimals)


def _is_readable(text: str) -> bool:
    return read_strict_grade(text).reading is not None


def _write_grades(path: Path, keys: Sequence[str], num_runs: int, grades: Mapping[Place, Grade]) -> None:
    """Writes the grade file: for each question the models, replies and grades by run.

    A run without a reply is null where a later run has one, so that each grade stays at the place of its run.
    """
    table = {}
    for key in keys:
        runs = [run for run in range(num_runs) if (key, run) in grades]
        if runs:
            row = [grades.get((key, run)) for run in range(runs[-1] + 1)]
            table[key] = {
                "model": [one and one.model for one in row],
                "content": [one and one.content for one in row],
                "score": [one and one.score for one in row],
            }
    write_whole(path.resolve(), json.dumps(table, indent=4).encode())


def _report(
    judge: Judge, files: GradingFiles, data: Rows, rows: Sequence[Sequence[Grade | None]], decimals: int
) -> int:
    """Prints and writes the tables; returns the exit code."""
    scores = {key: [None if one is None else one.score for one in row] for key, row in zip(data, rows, strict=True)}
    capabilities = {key: row["capability"] for key, row in data.items()}
    table = summarize_grades(scores, capabilities, decimals=decimals)
    for kind, means in (("cap-score", table.by_capability), ("cap-int-score", table.by_combination)):
        text = _write_table(files.model, means, table)
        print(text, end="")
        write_whole(files.table(judge.client.model, len(rows[0]), kind).resolve(), text.encode())
    write_line(f"llava: {judge.describe().line}")
    write_line(f"llava: {warn_of_drift('mm-vet', JUDGE, judge.client.model)}")
    every = [one for row in rows for one in row]
    missing = every.count(None)
    if table.num_failed:
        zero = summarize_grades(scores, capabilities, failed_as_zero=True, decimals=decimals)
        write_line(
            f"llava: {table.num_failed} of {len(every)} grades failed and are left out: {missing} without a reply, "
            f"{table.num_failed - missing} whose replies could not be read. The published grader counts the latter as "
            f"0; with all of them as 0 the total is {zero.total}."
        )
    if num_other := sum(map(_differs, every)):
        write_line(f"llava: {num_other} of the replies that could not be read are grades to the published grader.")
    if missing:
        reasons = [f"{fault} ({num})" for fault, num in judge.faults.most_common(3)]
        reasons += [f"the budget {judge.limit} is spent"] if judge.limit else []
        write_line(
            f"llava: error: {missing} grades got no reply: {'; '.join(reasons)}. Run the same command again to ask for "
            "them."
        )
    return 1 if missing else 0


def _differs(one: Grade | None) -> bool:
    return one is not None and one.score is None and read_published_grade(one.content).reading is not None


def _write_table(model: str, scores: Mapping[str, float], table: GradeTable) -> str:
    """CSV with one row, as the published files have it."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["", *scores, "total", "std", "runs"])
    writer.writerow([model, *scores.values(), table.total, table.std, str(table.runs)])
    return out.getvalue()
