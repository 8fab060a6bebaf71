"""The score of MMBench and MMBench-CN: circular accuracy. No torch.

A question stands in the table several times, its options rotated, under indices that are equal modulo a million. It
counts if each of these rows is right.

Source: ms-vlmeval 0.0.20 vlmeval/dataset/utils/multiple_choice.py, mcq_circular_eval; EvolvingLMMs-Lab/lmms-eval 0.7.3
lmms_eval/tasks/mmbench/mmbench_evals.py.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llava.errors import UsageError
from llava.eval.benchmark_table import TASKS
from llava.eval.mmbench_upload import write_upload
from llava.eval.scoring.letter_rules import LETTER_RULES, REFUSED, Rule
from llava.eval.task import Question, Task
from llava.eval.task_score import ScoredAnswer, ScoringOptions, TaskScore
from llava.eval.tasks.readings import find_mean, say_unread
from llava.eval.tsv_table import EMPTY_CELLS, read_table

LETTERS = "ABCD"
TURN = 1_000_000
"""By how much the indices of a question's rows differ."""

SEED = 2680
"""Of lmms-eval's dice."""

_CATEGORIES = ("l2-category", "L2-category", "category")


@dataclass(frozen=True)
class _Row:
    """An answer to a row of the table; ``shown`` are the options under the letters that the model saw.

    ``original`` are the letters that the options have in the table, by those shown.
    """

    place: int
    index: int
    text: str
    shown: Mapping[str, str]
    original: Mapping[str, str]
    truth: str
    categories: tuple[str, ...]

    def read(self, rule: Rule) -> str | None:
        """The letter that the rule reads, as the table has it."""
        letter = rule(self.text, self.shown)
        return self.original.get(letter, letter) if letter is not None else None


def score_mmbench(
    questions: Sequence[Question], texts: Sequence[str], data: Path, options: ScoringOptions
) -> TaskScore:
    """MMBench's circular accuracy. Raises UsageError for a table without answers, or of another version."""
    return _score(TASKS["mmbench"], questions, texts, data, options)


def score_mmbench_cn(
    questions: Sequence[Question], texts: Sequence[str], data: Path, options: ScoringOptions
) -> TaskScore:
    """MMBench-CN's circular accuracy. Raises UsageError for a table without answers, or of another version."""
    return _score(TASKS["mmbench_cn"], questions, texts, data, options)


def submit_mmbench(answers: Path, data: Path) -> Path:
    """Writes the table for MMBench's server; returns its path. Raises UsageError."""
    return _submit(TASKS["mmbench"], answers, data)


def submit_mmbench_cn(answers: Path, data: Path) -> Path:
    """Writes the table for MMBench-CN's server; returns its path. Raises UsageError."""
    return _submit(TASKS["mmbench_cn"], answers, data)


def _submit(task: Task, answers: Path, data: Path) -> Path:
    target = answers.with_name(f"{answers.name.removesuffix('.jsonl')}.xlsx")
    write_upload(data / task.files[0].path, answers, target)
    return target


def _score(
    task: Task, questions: Sequence[Question], texts: Sequence[str], data: Path, options: ScoringOptions
) -> TaskScore:
    path = data / task.files[0].path
    if not questions:
        raise UsageError("There are no answers to score.")
    rows, num_columns = _join(path, questions, texts)
    groups: dict[int, list[_Row]] = {}
    for row in sorted(rows, key=lambda row: row.index):
        groups.setdefault(row.index % TURN, []).append(row)
    headless = [index for index, group in groups.items() if group[0].index != index]
    for index in headless:  # the published scorers know a question by its first row, too
        del groups[index]
    if not groups:
        raise UsageError("Of no question the first row was asked, by which MMBench's questions are known.")
    sides = LETTERS[:num_columns] + "E" if options.throws_dice else ""
    headline, *others = LETTER_RULES
    judged = {name: _judge(groups, rule, sides) for name, rule in LETTER_RULES.items()}
    letters, hits = judged[headline]
    answers = [
        ScoredAnswer(
            row.place,
            float(letters[row.place] == row.truth),
            letters[row.place],
            tuple(part for part in (row.truth, _option(row)) if part is not None),
            row.categories,
            "it refuses" if letters[row.place] == REFUSED else "",
        )
        for row in sorted(rows, key=lambda row: row.place)
        if row.place in letters
    ]
    unread = sum(letter is None for letter in letters.values())
    published = "MMBench asks a judge for their letter, and without one guesses"
    notes = [say_unread(unread, len(letters), published)] if unread else []
    notes += _say_parts(rows, groups, headless)
    if options.throws_dice:
        notes.append(f"Dice are thrown as lmms-eval does without a judge: seed {SEED}, the options and E.")
    return TaskScore(
        "circular accuracy",
        {"circular accuracy": _percent(hits.values()), "accuracy of rows": find_mean(answers)},
        _by_category(groups, hits),
        answers,
        {name: _percent(judged[name][1].values()) for name in others},
        notes,
    )


def _join(path: Path, questions: Sequence[Question], texts: Sequence[str]) -> tuple[list[_Row], int]:
    """The answers with their rows of the table, and how many columns of options it has."""
    wanted = {question.id for question in questions}
    table: dict[int | str, dict[str, str]] = {}
    for _, cells in read_table(path):
        index = cells.get("index", "")
        key: int | str = int(index) if index.isdecimal() else index
        if key in wanted:
            table[key] = {name: cell for name, cell in cells.items() if name != "image"}
    rows = []
    for place, (question, text) in enumerate(zip(questions, texts, strict=True)):
        found = table.get(question.id)
        if not isinstance(question.id, int):
            raise UsageError(f"The index {question.id!r} is no whole number, by which MMBench's rotations are known.")
        if found is None:
            raise UsageError(
                f"'{path}' has no row with the index {question.id!r}: the questions are of another version."
            )
        truth = found.get("answer", "").strip()
        if len(truth) != 1 or truth not in LETTERS:
            raise UsageError(
                f"'{path}' has {truth!r} as the answer of index {question.id}: only the dev split is published with "
                "its answers. Submit the others, as scripts/convert_mmbench_for_submission.py writes them."
            )
        rows.append(_make_row(place, question, text, found, truth))
    return rows, sum(letter in next(iter(table.values()), {}) for letter in LETTERS)


def _make_row(place: int, question: Question, text: str, cells: Mapping[str, str], truth: str) -> _Row:
    categories = tuple(cells[name] for name in _CATEGORIES if cells.get(name, "") not in EMPTY_CELLS)
    assert isinstance(question.id, int)
    table = {letter: cells[letter] for letter in LETTERS if cells.get(letter, "") not in EMPTY_CELLS}
    if not question.before.get("round_id"):
        return _Row(place, question.id, text, table, {}, truth, categories)
    shown = dict(zip(LETTERS, question.after["options"], strict=False))
    original = dict(zip(LETTERS, question.after["option_char"], strict=False))
    return _Row(place, question.id, text, shown, original, truth, categories)


def _option(row: _Row) -> str | None:
    shown = next((letter for letter, own in row.original.items() if own == row.truth), row.truth)
    return row.shown.get(shown)


def _judge(
    groups: Mapping[int, Sequence[_Row]], rule: Rule, sides: str
) -> tuple[dict[int, str | None], dict[int, float]]:
    """The letter of each answer by its place, and 1.0 for each question whose rows are all right.

    ``sides``: of the dice for letters that cannot be read; "" for none. They are thrown where all letters that could be
    read are right, up to the first that is wrong.
    """
    letters = {row.place: row.read(rule) for group in groups.values() for row in group}
    dice, hits = random.Random(SEED), {}
    for index, group in groups.items():
        is_right = all(letters[row.place] in (row.truth, None) for row in group)
        for row in group:
            if is_right and letters[row.place] is None:
                letters[row.place] = sides[dice.randint(0, len(sides) - 1)] if sides else None
                is_right = letters[row.place] == row.truth
        hits[index] = float(is_right)
    return letters, hits


def _percent(scores: Collection[float]) -> float:
    return 100 * sum(scores) / len(scores) if scores else 0.0


def _by_category(groups: Mapping[int, Sequence[_Row]], hits: Mapping[int, float]) -> dict[str, tuple[float, int]]:
    found: dict[str, list[float]] = {}
    for index, group in groups.items():
        for name in group[0].categories:
            found.setdefault(name, []).append(hits[index])
    return {name: (_percent(scores), len(scores)) for name, scores in sorted(found.items())}


def _say_parts(rows: Sequence[_Row], groups: Mapping[int, Sequence[_Row]], headless: Sequence[int]) -> list[str]:
    notes = []
    if headless:
        notes.append(
            f"{len(headless)} questions are left out, since their first row was not asked, such as index {headless[0]}."
        )
    lost = [row.index for row in rows if _option(row) is None]
    if lost:
        notes.append(
            f"The right option of {len(lost)} rows is an empty cell, 'None' or 'nan', such as index {lost[0]}: it was "
            "not shown, and its letter cannot be read."
        )
    fewer = sum(len(group) < len(group[0].shown) for group in groups.values())
    if fewer:
        notes.append(f"{fewer} of {len(groups)} questions were asked in fewer rotations than they have options.")
    return notes
