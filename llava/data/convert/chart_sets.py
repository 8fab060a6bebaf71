"""ChartQA and DVQA: charts to read.

Source: vis-nlp/ChartQA@3dab8e8 "ChartQA Dataset" ({split}_human.json and {split}_augmented.json: lists of ``imgname``,
``query``, ``label``; png/, tables/*.csv). kushalkafle/DVQA_dataset@53cff67 README, and salesforce/LAVIS's DVQA dataset,
which names the fields as the files have them (``image``, ``question``, ``answer``, ``question_id``).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from llava.data import prompts
from llava.data.convert.converter import Options, Row, Source, make_row
from llava.data.convert.image_questions import ImageQuestions
from llava.data.convert.json_input import iterate_json, take
from llava.data.convert.merged_turns import ask_all, choose_majority

CHARTQA_FORMATS = {
    "all": "questions that people wrote and those that were generated",
    "human": "questions that people wrote",
    "augmented": "questions that were generated from statements about the charts",
    "tables": "the chart's table, a line for each row",
}
DVQA_FORMATS = {"questions": "questions and answers", "labels": "the chart's texts in reading order, from the metadata"}

# Of the two boxes of a text, how much of the smaller height has to overlap so that they are on one line.
_SAME_LINE = 0.5


def convert_chartqa(source: Source, options: Options) -> Iterator[Row]:
    """A row for each chart, with all its questions, or with its table."""
    if options.format == "tables":
        yield from _convert_tables(source, options)
        return
    questions = ImageQuestions(options)
    for index, kind in enumerate(("human", "augmented")):
        if options.format not in ("all", kind):
            continue
        path = source.file(index)
        for number, entry in iterate_json(path):
            where = f"Question {number} of '{path}'"
            image = PurePosixPath(take(entry, "imgname", str, where)).name
            answer = _read_label(entry, where)
            questions.add(image, take(entry, "query", str, where), answer, f"question {number} of {path.name}")
    for image, pairs in questions.items():
        turns = ask_all(pairs, prompts.ANSWER_FORMATS["chartqa"], options)
        yield make_row(_name_chart(image), f"chartqa/{options.split}/png/{image}", turns, "chartqa")


def _read_label(entry: Any, where: str) -> str | None:
    """The answer: a text, or, in later releases, a list of texts."""
    label: Any = take(entry, "label", (str, int, float, list), where)
    return choose_majority([str(item) for item in label]) if isinstance(label, list) else str(label)


def _name_chart(image: str) -> str:
    return f"chartqa-{PurePosixPath(image).stem}"


def _convert_tables(source: Source, options: Options) -> Iterator[Row]:
    for path in sorted(source.file(2).glob("*.csv")):
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                rows = [[cell.strip() for cell in row] for row in csv.reader(file) if any(cell.strip() for cell in row)]
        except (OSError, UnicodeDecodeError, csv.Error):
            options.leave_out("has a table that cannot be read", path.name)
            continue
        if len(rows) < 2:
            options.leave_out("has a table without rows", path.name)
            continue
        image = f"{path.stem}.png"
        table = "\n".join(" | ".join(row) for row in rows)
        turns = [(options.choose_prompt(prompts.DATA_TABLE), table)]
        yield make_row(_name_chart(image), f"chartqa/{options.split}/png/{image}", turns, "chartqa")


def convert_dvqa(source: Source, options: Options) -> Iterator[Row]:
    """A row for each chart, with all its questions, or with its texts."""
    if options.format == "labels":
        yield from _convert_labels(source, options)
        return
    path = source.file(0)
    questions = ImageQuestions(options)
    for number, entry in iterate_json(path):
        where = f"Question {number} of '{path}'"
        image = PurePosixPath(take(entry, "image", str, where)).name
        answer = str(take(entry, "answer", (str, int, float), where))
        thing = f"question {entry.get('question_id', number)}"
        questions.add(image, take(entry, "question", str, where), answer, thing)
    for image, pairs in questions.items():
        turns = ask_all(pairs, prompts.ANSWER_FORMATS["dvqa"], options)
        yield make_row(_name_bars(image), f"dvqa/images/{image}", turns, "dvqa")


def _name_bars(image: str) -> str:
    return f"dvqa-{PurePosixPath(image).stem}"


def _convert_labels(source: Source, options: Options) -> Iterator[Row]:
    path = source.file(1)
    for number, entry in iterate_json(path):
        where = f"Chart {number} of '{path}'"
        image = PurePosixPath(take(entry, "image", str, where)).name
        texts = [
            (take(text, "text", str, where).strip(), text.get("bbox")) for text in take(entry, "texts", list, where)
        ]
        texts = [(text, box) for text, box in texts if text]
        if not texts:
            options.leave_out("has no texts", image)
            continue
        if not all(_is_box(box) for _, box in texts):
            options.leave_out("has a text without a box", image)
            continue
        said = " ".join(sort_for_reading(texts))
        turns = [(options.choose_prompt(prompts.TRANSCRIBE), said)]
        yield make_row(_name_bars(image), f"dvqa/images/{image}", turns, "dvqa")


def _is_box(box: Any) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(isinstance(side, (int, float)) for side in box)


def sort_for_reading(texts: list[tuple[str, Any]]) -> list[str]:
    """Texts with boxes (x, y, width, height), line by line from the top, and from left to right in each line."""
    lines: list[list[tuple[str, Any]]] = []
    for text, box in sorted(texts, key=lambda item: item[1][1] + item[1][3] / 2):
        _, y, _, height = box
        _, line_y, _, line_height = lines[-1][0][1] if lines else (0, 0, 0, 0)
        shared = min(y + height, line_y + line_height) - max(y, line_y)
        if lines and shared >= _SAME_LINE * min(height, line_height):
            lines[-1].append((text, box))
        else:
            lines.append([(text, box)])
    return [text for line in lines for text, _ in sorted(line, key=lambda item: item[1][0])]
