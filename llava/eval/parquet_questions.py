"""Reads the questions of LLaVA-NeXT's further benchmarks from Hugging Face's parquet files. No torch.

Prompts are those by which lmms-eval asks LLaVA. An image is the bytes of its file.

Source: EvolvingLMMs-Lab/lmms-eval 0.7.3 lmms_eval/tasks/mmmu, mathvista and ai2d; README.md of lmms-lab/MMMU,
AI4Math/MathVista and lmms-lab/ai2d on Hugging Face.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.data.convert.parquet_input import find_bytes, iterate_parquet
from llava.data.prompts import (
    INTEGER,
    LETTER,
    ONE_DECIMAL,
    PYTHON_LIST,
    SHORT_ANSWER,
    TWO_DECIMALS,
    join_lines,
    write_options,
)
from llava.errors import UsageError
from llava.eval.scoring.letter_rules import name_options
from llava.eval.shards import expand_path
from llava.eval.task import Question

MMMU_FILES = "mmmu/*/validation-*.parquet | mmmu/validation*.parquet"
MATH_VISTA_FILES = "mathvista/*/testmini-*.parquet | mathvista/testmini*.parquet"
AI2D_FILES = "ai2d/*/test-*.parquet | ai2d/test*.parquet"

_IMAGE_WORD = re.compile(r"<image (\d+)>")
_HINTS = {
    ("integer", None): INTEGER,
    ("float", 1): ONE_DECIMAL,
    ("float", 2): TWO_DECIMALS,
    ("list", None): PYTHON_LIST,
}
_NUM_IMAGES = 7  # columns image_1 to image_7 of MMMU


def iterate_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row of a parquet file or of its shards, with the words that say where it is.

    Raises UsageError for a file that is damaged, or lacks a column.
    """
    for part in expand_path(path):
        for number, row in iterate_parquet(part, columns):
            yield f"Row {number} of '{part}'", row


def read_mmmu(path: Path, images: Path | None = None) -> list[Question]:
    """MMMU's questions. Their text keeps the words ``<image 1>``, and the images come in the words' order.

    As in lmms-eval, an image that only an option names is shown too, and one that nothing names is not.
    """
    columns = ("id", "question", "options", "question_type", *(f"image_{i}" for i in range(1, _NUM_IMAGES + 1)))
    questions = []
    for where, row in iterate_rows(path, columns):
        asked = pick_text(row, "question", where)
        if pick_text(row, "question_type", where) == "multiple-choice":
            lines = f"{asked}\n{write_options(read_options(row, where))}"
            text = f"{lines}\n\n{LETTER}"
        else:
            lines, text = asked, f"{asked}\n\n{SHORT_ANSWER}"
        shown = [_pick_image(row, f"image_{number}", where) for number in sorted(set(_IMAGE_WORD.findall(lines)))]
        questions.append(Question(pick_text(row, "id", where), tuple(shown), text, text))
    return questions


def read_mmmu_own(path: Path, images: Path | None = None) -> list[Question]:
    """MMMU's questions as its own script asks LLaVA-1.5: with the first image only, and options as "(A) x".

    Source: MMMU-Benchmark/MMMU@bb0b95a mmmu/configs/llava1.5.yaml and mmmu/utils/data_utils.py.
    """
    questions = []
    for where, row in iterate_rows(path, ("id", "question", "options", "question_type", "image_1")):
        asked = pick_text(row, "question", where)
        if pick_text(row, "question_type", where) == "multiple-choice":
            options = name_options(read_options(row, where))
            lines = "\n".join(f"({letter}) {option}" for letter, option in options.items())
            text = f"{asked}\n\n{lines}\n\n\n{LETTER}"
        else:
            text = f"{asked}\n\n{SHORT_ANSWER}"
        questions.append(Question(pick_text(row, "id", where), (_pick_image(row, "image_1", where),), text, text))
    return questions


def read_options(row: Mapping[str, Any], where: str) -> list[str]:
    """The options of a row of MMMU: a list, or the text of one as Python writes it. Raises UsageError for neither."""
    options = row.get("options")
    if isinstance(options, str):
        try:
            options = ast.literal_eval(options)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            options = None
    if not isinstance(options, list):
        raise UsageError(f"{where} has no list of options, but {str(row.get('options'))[:80]!r}.")
    return [str(option) for option in options]


def read_math_vista(path: Path, images: Path | None = None) -> list[Question]:
    """MathVista's questions, each with a sentence on the form of its answer."""
    columns = ("pid", "question", "decoded_image", "choices", "unit", "precision", "question_type", "answer_type")
    questions = []
    for where, row in iterate_rows(path, columns):
        unit = f" (Unit: {row['unit']})" if row["unit"] else ""
        lines = [
            pick_text(row, "question", where) + unit,
            write_options(read_choices(row, where)),
            _choose_hint(row, where),
        ]
        text = join_lines(*lines).strip()
        questions.append(
            Question(pick_text(row, "pid", where), (_pick_image(row, "decoded_image", where),), text, text)
        )
    return questions


def read_choices(row: Mapping[str, Any], where: str) -> list[str]:
    """The choices of a row of MathVista, which a question of free form lacks. Raises UsageError for a wrong type."""
    is_choice = row.get("question_type") == "multi_choice"
    return pick_list(row, "choices", where) if is_choice or row.get("choices") else []


def _choose_hint(row: Mapping[str, Any], where: str) -> str:
    if pick_text(row, "question_type", where) == "multi_choice":
        return LETTER
    kind, precision = pick_text(row, "answer_type", where), row["precision"]
    digits = precision if kind == "float" and isinstance(precision, int | float) else None
    found = _HINTS.get((kind, digits))
    if found is None:
        raise UsageError(
            f"{where} wants the answer type {kind!r} with precision {precision!r}; MathVista has integer, list, and "
            "float with 1 or 2 digits."
        )
    return found


def read_ai2d(path: Path, images: Path | None = None) -> list[Question]:
    """AI2D's questions; the data set has no ids, so a question's id is its row's number over all shards, from 0."""
    questions = []
    for number, (where, row) in enumerate(iterate_rows(path, ("question", "options", "image"))):
        lines = f"{pick_text(row, 'question', where)}\n{write_options(pick_list(row, 'options', where))}"
        text = f"{lines}\n{LETTER}"
        questions.append(Question(number, (_pick_image(row, "image", where),), text, text))
    return questions


def pick_text(row: Mapping[str, Any], key: str, where: str) -> str:
    """The text under a key of a row. Raises UsageError if it is none."""
    value = row.get(key)
    if not isinstance(value, str):
        raise UsageError(f"{where} has {value!r} as '{key}', which is no text.")
    return value


def pick_list(row: Mapping[str, Any], key: str, where: str) -> list[str]:
    """The list of texts under a key of a row. Raises UsageError if it is none, or empty."""
    value = row.get(key)
    if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
        raise UsageError(f"{where} has {str(value)[:80]} as '{key}', which is no list of texts.")
    return value


def _pick_image(row: Mapping[str, Any], key: str, where: str) -> bytes:
    data = find_bytes(row.get(key), where)
    if data is None:
        raise UsageError(f"{where} names the image '{key}', which it does not hold. Get the file again.")
    return data
