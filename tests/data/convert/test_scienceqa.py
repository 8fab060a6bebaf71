"""ScienceQA's rows are those of the original's script, in every format that it has."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from llava.data.convert.scienceqa import FORMATS, LETTER
from llava.errors import UsageError
from tests.data.convert.converting import run, turns, write_json

# The rows of "train" in four formats, and the start of sha256 of json.dumps of the rows in all eighty: what
# convert_to_llava of haotian-liu/LLaVA@82bc69e scripts/convert_sqa_to_llava.py makes of PROBLEMS, run with Python 3.
GOLD = json.loads((Path(__file__).parent / "scienceqa_gold.json").read_text(encoding="utf-8"))


def problem(question: str, choices: list[str], answer: int, **fields: Any) -> dict[str, Any]:
    rest = {"hint": "", "image": None, "lecture": "", "solution": "", "task": "closed choice", "grade": "grade2"}
    return {**rest, "question": question, "choices": choices, "answer": answer, **fields}


PROBLEMS = {
    "1": problem(
        "Which of these states is farthest north?", ["West Virginia", "Louisiana"], 0, image="image.png",
        lecture="Maps have four cardinal directions.\nA compass rose points north.",
        solution="To find the answer, look at the compass rose.\n\nWest Virginia is farthest north.",
    ),
    "2": problem("Question: is this  a question?", ["yes", "no", "Über-ja 中文"], 2, hint="  A hint   with blanks. "),
    "3": problem(
        "What is expressed?", list("abcde"), 4, hint="Figure: Answer: x.", image="choice_0.png",
        lecture="The words: Answer: A, then BECAUSE: of it.\\nA literal backslash n.",
    ),
    "5": problem("Ends with BECAUSE:", ["one"], 0, hint="\n", lecture="   ", solution="Answer: only here."),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_json(tmp_path, "problems.json", PROBLEMS)
    write_json(tmp_path, "pid_splits.json", {"train": ["3", "1", "2", "5"], "val": ["1"]})
    return tmp_path


def without_source(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "data_source"} for row in rows]


@pytest.mark.parametrize("format", GOLD["rows"])
def test_rows_are_those_of_the_original(folder: Path, format: str) -> None:
    rows, left_out = run("scienceqa", folder, format=format)
    assert without_source(rows) == GOLD["rows"][format]
    assert left_out == {}


def test_all_eighty_formats_are_those_of_the_original(folder: Path) -> None:
    digests = {}
    for format in GOLD["digests"]:
        rows, _ = run("scienceqa", folder, format=format)
        digests[format] = hashlib.sha256(json.dumps(without_source(rows)).encode()).hexdigest()[:16]
    assert digests == GOLD["digests"]
    assert set(FORMATS) == {*digests, LETTER}


def test_llava_1_5_is_asked_for_the_letter(folder: Path) -> None:
    rows, _ = run("scienceqa", folder, format="letter")
    assert turns(rows[0]) == [
        (
            "<image>\nContext: Figure: Answer: x.\nWhat is expressed?\nA. a\nB. b\nC. c\nD. d\nE. e\n"
            "Answer with the option's letter from the given choices directly.",
            "E",
        )
    ]
    assert turns(rows[3])[0][0].startswith("Ends with BECAUSE:\nA. one\n")  # no context, no image
    assert "image" not in rows[3]


def test_what_cannot_be_asked_is_left_out_and_counted(folder: Path) -> None:
    problems = {**PROBLEMS, "6": problem("?", list("abcdef"), 0), "7": problem("?", ["a"], 3)}
    write_json(folder, "problems.json", problems)
    write_json(folder, "pid_splits.json", {"test": ["6", "7", "8", "1"]})
    rows, left_out = run("scienceqa", folder, split="test")
    assert [row["id"] for row in rows] == ["1"]
    assert left_out == {
        "has more options than letters, A to E": 1,
        "has an answer that is none of its options": 1,
        "is in pid_splits.json, but not in problems.json": 1,
    }


def test_a_split_that_the_file_lacks_is_named(folder: Path) -> None:
    with pytest.raises(UsageError, match="has no list 'minival'"):
        run("scienceqa", folder, split="minival")


def test_a_problem_of_another_version_is_named(folder: Path) -> None:
    write_json(folder, "problems.json", {**PROBLEMS, "1": {"question": "?"}})
    with pytest.raises(UsageError, match=r"Problem 1 of '.*problems.json' needs a list 'choices', which is missing"):
        run("scienceqa", folder, split="val")
