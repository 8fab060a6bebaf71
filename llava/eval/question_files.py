"""Reads the question files of LLaVA's evaluation, each format into ``Question``. No torch.

Source: haotian-liu/LLaVA@c121f04 llava/eval/model_vqa*.py; model_vqa_qbench.py of c9f19e9.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from llava.data.prompts import CHOOSE_BETWEEN, LETTER, LETTER_CN, OCR_TOKENS, write_options
from llava.errors import UsageError
from llava.eval.json_files import read_json
from llava.eval.task import Question
from llava.eval.tsv_table import read_cell, read_table

T = TypeVar("T")

_LETTERS = "ABCD"


def read_lines(path: Path, images: Path) -> list[Question]:
    """JSON lines with question_id, image and text, as most of LLaVA's benchmarks have them."""
    questions = []
    for number, row in _read_rows(path):
        where = f"Line {number} of '{path}'"
        text = _pick(row, "text", where, str)
        image = images / _pick(row, "image", where, str)
        questions.append(Question(_pick(row, "question_id", where, int | str), (image,), text, text))
    return questions


def read_without_ocr(path: Path, images: Path) -> list[Question]:
    """TextVQA's file, without the line of OCR tokens in each question."""
    questions = []
    for question in read_lines(path, images):
        text = "\n".join(line for line in question.text.split("\n") if not line.startswith(OCR_TOKENS.rstrip()))
        questions.append(replace(question, text=text, prompt=text))
    return questions


def read_seed_images(path: Path, images: Path) -> list[Question]:
    """SEED-Bench's questions about images, without those about a frame of a video, whose ids begin with "v"."""
    return [question for question in read_lines(path, images) if not str(question.id).startswith("v")]


def read_science(path: Path, images: Path, *, asks_letter: bool = True) -> list[Question]:
    """ScienceQA's JSON list of conversations, of which some have an image. ``asks_letter``: --single-pred-prompt."""
    questions = []
    for number, row in enumerate(_read_list(path), 1):
        where = f"Entry {number} of '{path}'"
        turns = _pick(row, "conversations", where, list)
        first: Any = turns[0] if turns and isinstance(turns[0], dict) else {}
        text = _pick(first, "value", f"The first turn in {where[0].lower()}{where[1:]}", str)
        text = text.replace("<image>", "").strip()
        has_image = "image" in row
        prompt = "<image>\n" + text if has_image else text
        if asks_letter:
            text, prompt = f"{text}\n{LETTER}", f"{prompt}\n{LETTER}"
        paths = (images / _pick(row, "image", where, str),) if has_image else ()
        questions.append(Question(_pick(row, "id", where, int | str), paths, text, prompt))
    return questions


def read_mmbench(
    path: Path,
    images: Path | None = None,
    *,
    lang: str = "en",
    asks_letter: bool = True,
    all_rounds: bool = False,
    chunk: tuple[int, int] = (1, 0),
) -> list[Question]:
    """MMBench's table with base64 images. ``all_rounds``: as many questions as options, the options' texts rotated.

    ``chunk``: how many slices of the rows there are, and which of them is read.

    As in the original, options end at the first empty cell, "nan" or "none" (also where that is a real option).
    """
    questions = []
    for number, row in take_chunk(list(read_table(path)), *chunk):
        where = f"Row {number} of '{path}'"
        index = _pick(row, "index", where, str)
        index_value: int | str = int(index) if index.isdecimal() else index
        image = _decode(_pick(row, "image", where, str), where)
        options: list[str] = []
        for letter in _LETTERS:
            cell = read_cell(row, letter)
            if cell is None:
                break
            options.append(cell)
        letters = list(_LETTERS[: len(options)])
        hint = read_cell(row, "hint")
        for round_id in range(len(options) if all_rounds else 1):
            lines = [] if hint is None else [hint]
            lines.append(_pick(row, "question", where, str))
            prompt = "\n".join([*lines, *([write_options(options)] if options else [])])
            text = f"{prompt}\n{LETTER_CN if lang == 'cn' else LETTER}" if asks_letter else prompt
            after = {"options": options, "option_char": letters}
            questions.append(Question(index_value, (image,), text, prompt, {"round_id": round_id}, after))
            options, letters = options[1:] + options[:1], letters[1:] + letters[:1]
    return questions


def read_mmbench_cn(path: Path, images: Path | None = None) -> list[Question]:
    """``read_mmbench`` with the Chinese sentence."""
    return read_mmbench(path, images, lang="cn")


def read_qbench(path: Path, images: str | Path, *, lang: str = "en") -> list[Question]:
    """Q-Bench's JSON list. A folder as a string is put before the name without a separator, as in the original."""
    # The backslash is the original's own: its line break is missing in the Chinese prompt.
    asked = {"en": f"\n{CHOOSE_BETWEEN}\n", "zh": "\\在下列选项中选择一个:\n"}
    if lang not in asked:
        raise UsageError(f"Q-Bench is in English and Chinese, en and zh; the language is {lang!r}.")
    questions = []
    for number, row in enumerate(_read_list(path), 1):
        where = f"Entry {number} of '{path}'"
        name = _pick(row, "img_path", where, str)
        text = _pick(row, "question", where, str) + asked[lang]
        for letter, option in zip(_LETTERS, _pick(row, "candidates", where, list), strict=False):
            text += f"{letter}. {option}\n"
        image = Path(images + name) if isinstance(images, str) else images / name
        questions.append(Question(name, (image,), text, text, row=row, view="center_crop"))
    return questions


def read_qbench_zh(path: Path, images: Path) -> list[Question]:
    """``read_qbench`` in Chinese."""
    return read_qbench(path, images, lang="zh")


def take_chunk(questions: Sequence[T], num_chunks: int, index: int) -> list[T]:
    """One of ``num_chunks`` contiguous slices; empty where there are more chunks than questions need.

    Raises UsageError for an index that is none of theirs.
    """
    if num_chunks < 1 or not 0 <= index < num_chunks:
        raise UsageError(
            f"The chunk is {index} of {num_chunks}; chunks are numbered from 0 to {max(num_chunks, 1) - 1}."
        )
    size = -(-len(questions) // num_chunks)
    return list(questions[index * size : (index + 1) * size])


def _read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig"))
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise UsageError(
                    f"Line {number} of '{path}' is not a JSON object: the file is half-written, or not one of JSON "
                    "lines. Get it again."
                )
            yield number, row


def _read_list(path: Path) -> list[dict[str, Any]]:
    rows = read_json(path)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UsageError(f"'{path}' is not a JSON list of objects.")
    return rows


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise UsageError(f"The question file '{path}' cannot be read: {error.strerror}.") from error


def _pick(row: Mapping[str, Any], key: str, where: str, kind: Any) -> Any:
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, kind):
        said = f"has {value!r} as '{key}'" if key in row else f"has no '{key}'; it has {', '.join(row) or 'nothing'}"
        raise UsageError(f"{where} {said[:300]}.")
    return value


def _decode(text: str, where: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError as error:
        raise UsageError(f"{where} has an image that is not valid base64: {error}.") from error
