"""ScienceQA's problems and splits, and answers to them. Loads no torch.

Source: lupantech/ScienceQA data/scienceqa (problems.json, pid_splits.json).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.errors import UsageError
from llava.eval.json_files import find_repeated, pick, pick_text, read_object, read_whole_lines
from llava.eval.scoring.science_qa import OPTIONS
from llava.text import write_line


@dataclass(frozen=True)
class Problem:
    """A problem of ScienceQA: its choices, the number of the right one from 0, and the row in problems.json."""

    choices: Sequence[Any]
    answer: int
    row: dict[str, Any]

    def find_groups(self) -> tuple[str, ...]:
        """The columns of ScienceQA's tables in which it counts: subject, context and grade, as far as they are given.

        Source: lupantech/ScienceQA@360b71c tools/evaluate_acc.py.
        """
        row, groups = self.row, []
        subject = _SUBJECTS.get(str(row.get("subject")))
        has_text, has_image = bool(row.get("hint")), bool(row.get("image"))
        groups += [subject] if subject else []
        if "hint" in row and "image" in row:
            groups += [name for name, counts in (("TXT", has_text), ("IMG", has_image)) if counts] or ["NO"]
        grades = (grade for grade, names in _GRADES.items() if row.get("grade") in names)
        return (*groups, *grades)


_GRADES = {name: [f"grade{n}" for n in range(*span)] for name, span in (("G1-6", (1, 7)), ("G7-12", (7, 13)))}
_SUBJECTS = {"natural science": "NAT", "social science": "SOC", "language science": "LAN"}
GROUPS = ("NAT", "SOC", "LAN", "TXT", "IMG", "NO", "G1-6", "G7-12")
"""The columns in the papers' order."""


def read_problems(base_dir: str | Path, split: str, options: Sequence[str] = OPTIONS) -> dict[str, Problem]:
    """The problems of a split by their ids, in its order. Raises UsageError for files that are damaged or do not fit.

    ``options``: the letters; an answer beyond them is refused.
    """
    path = Path(base_dir) / "problems.json"
    splits, rows = read_object(Path(base_dir) / "pid_splits.json"), read_object(path)
    ids = pick(splits, split, Path(base_dir) / "pid_splits.json")
    if not isinstance(ids, list) or not ids or not all(isinstance(key, str) for key in ids):
        raise UsageError(f"The split '{split}' of '{base_dir}' has to be a list of ids, which are texts such as \"1\".")
    absent = [key for key in ids if key not in rows]
    if absent:
        raise UsageError(
            f"{len(absent)} of the {len(ids)} ids of the split '{split}' are not in '{path}', the first of them "
            f"{absent[0]!r}: take both files of one version."
        )
    return {key: _read_problem(rows[key], f"Problem {key} of '{path}'", len(options)) for key in ids}


def _read_problem(row: Any, where: str, num_options: int) -> Problem:
    choices, answer = (row.get("choices"), row.get("answer")) if isinstance(row, dict) else (None, None)
    num = min(num_options, len(choices)) if isinstance(choices, list) else 0
    if not isinstance(choices, list) or not isinstance(answer, int) or not 0 <= answer < num:
        raise UsageError(
            f"{where} has {str(choices)[:80]} as 'choices' and {str(answer)[:80]} as 'answer'; these are a list, and "
            f"the number from 0 on of the right choice, of which {num_options} can have a letter."
        )
    return Problem(choices, answer, row)


def read_science_answers(path: str | Path, *, has_prompts: bool = True) -> dict[str, dict[str, Any]]:
    """The rows of an answers file by their ids, the last of each. Raises UsageError for rows that lack something."""
    rows = read_whole_lines(path)
    given = {}
    for row in rows:
        key = pick(row, "question_id", path)
        for name in ("text", "prompt") if has_prompts else ("text",):
            pick_text(row, name, path)
        if not isinstance(key, str):
            raise UsageError(
                f"'{path}' answers the question {str(key)[:80]!r}; ScienceQA's ids are texts, such as \"1\"."
            )
        given[key] = row
    if repeated := find_repeated(row["question_id"] for row in rows):
        write_line(
            f"llava: {len(repeated)} questions are answered more than once in '{path}', such as {repeated[0]!r}; the "
            "last answer counts."
        )
    return given


def read_outputs(path: str | Path) -> dict[str, str]:
    """The texts by id of a file that ``eval_science_qa --output-result`` writes. Raises UsageError."""
    outputs = pick(read_object(path), "outputs", path)
    if not isinstance(outputs, dict) or not all(isinstance(text, str) for text in outputs.values()):
        raise UsageError(f"'outputs' in '{path}' has to be an object of texts by the ids of questions.")
    return outputs
