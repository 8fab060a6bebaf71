"""The data of the page that compares a model's answers with Vicuna's. Loads no torch.

Source: haotian-liu/LLaVA@c121f04 llava/eval/generate_webpage_data_from_table.py.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from llava.data.collection.journal import write_whole
from llava.errors import UsageError
from llava.eval.json_files import pick, read_whole_lines

MODELS = ["vicuna"]
TABLES = {
    "questions": "table/question.jsonl",
    "vicuna": "table/answer/answer_vicuna-13b.jsonl",
    "ours": "table/results/llama-13b-hf-alpaca.jsonl",
    "reviews": "table/review/review_vicuna-13b_llama-13b-hf-alpaca.jsonl",
}
_SCORES = re.compile(r"\d+[, ]+\d+")


def read_table(path: str, key: str | None = None) -> Any:
    """The rows of a file of JSON lines; with ``key`` a dict by it, in its order. Raises UsageError."""
    path = os.path.expanduser(path)
    rows = read_whole_lines(path)
    if key is None:
        return rows
    return {item[key]: item for item in sorted(rows, key=lambda row: pick(row, key, path))}


def trim_hanging_lines(text: str, num: int) -> str:
    """The text without its first ``num`` lines and without outer blanks."""
    text = text.strip()
    for _ in range(num):
        text = text.split("\n", 1)[1].strip()
    return text


def write_page(folder: Path) -> None:
    """Reads ``table/`` of a folder and writes its ``webpage/data.json``. Raises UsageError."""
    missing = [name for name in TABLES.values() if not (folder / name).is_file()]
    if missing:
        raise UsageError(
            f"'{folder.resolve()}' has no {', '.join(missing)}: run this in llava/eval, and bring the files there as "
            "llava/eval/table/README.md says."
        )
    tables = {name: read_table(str(folder / path), "question_id") for name, path in TABLES.items()}
    records = []
    for key, question in tables["questions"].items():
        rows = {}
        for name in ("vicuna", "ours", "reviews"):
            if key not in tables[name]:
                raise UsageError(f"'{TABLES[name]}' has no row of question {key!r}.")
            rows[name] = tables[name][key]
        records.append(_make_record(key, question, rows))
    records.sort(key=lambda record: record["id"])
    data = json.dumps({"questions": records, "models": MODELS}, indent=2)
    write_whole((folder / "webpage/data.json").resolve(), data.encode())


def _make_record(key: Any, question: dict[str, Any], rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    if not isinstance(key, int):
        raise UsageError(
            f"Question {key!r} of '{TABLES['questions']}' has no number for an id, by which they are placed."
        )
    review = rows["reviews"]
    return {
        "id": _place(key),
        "category": pick(question, "category", TABLES["questions"]),
        "question": pick(question, "text", TABLES["questions"]),
        "answers": {name: pick(rows[name], "text", TABLES[name]) for name in ("vicuna", "ours")},
        "evaluations": {"vicuna": _clean(pick(review, "content", TABLES["reviews"]))},
        "scores": {"vicuna": pick(review, "tuple", TABLES["reviews"])},
    }


def _clean(review: str) -> str:
    """The review without its scores, and with the assistants' names in bold."""
    lines = review.strip().split("\n")
    text = "\n".join(lines[1:] if _SCORES.match(lines[0]) else lines)
    return text.replace("Assistant 1", "**Assistant 1**").replace("Assistant 2", "**Assistant 2**")


def _place(number: int) -> int:
    """Where the page shows a question: Vicuna's 80 in the order of its authors."""
    number = number + 60 if number <= 20 else number - 20
    if number <= 50:
        number += 10
    elif number <= 60:
        number -= 50
    if number == 7:
        return 1
    return number + 1 if number < 7 else number
