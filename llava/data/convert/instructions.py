"""LLaVA's own instruction files, checked and labelled: LLaVA-Instruct, and the mixture of LLaVA-1.5 by source.

No torch.

Source: liuhaotian/LLaVA-Instruct-150K; of the counts by source, haotian-liu/LLaVA issue 702.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llava.data.convert.converter import Options, Row, Source
from llava.data.convert.json_input import iterate_json, say_kind
from llava.data.prompts import DESCRIBE_REGION, FIND_REGION, LETTER, SHORT_ANSWER
from llava.data.records import parse_turns
from llava.errors import UsageError

_REGIONS = tuple(sentence.partition("{}")[0] for sentence in (DESCRIBE_REGION, FIND_REGION))
_BY_FOLDER = {"gqa": "gqa", "ocr_vqa": "ocr_vqa", "textvqa": "textcaps", "vg": "vg"}


def convert_llava_instruct(source: Source, options: Options) -> Iterator[Row]:
    """Each row as it is, with the image's folder, coco/train2017, in front of a bare name, and ``data_source``."""
    for row in _read_rows(source.file(), options):
        image = row.get("image")
        if isinstance(image, str) and "/" not in image:
            row = {**row, "image": f"coco/train2017/{image}"}
        yield {**row, "data_source": "llava_instruct"}


def convert_mix665k(source: Source, options: Options) -> Iterator[Row]:
    """Each row as it is, with the dataset that it comes from in ``data_source``."""
    for row in _read_rows(source.file(), options):
        yield {**row, "data_source": name_source(row)}


def name_source(row: Row) -> str:
    """Which dataset a row of llava_v1_5_mix665k.json comes from, told by its folder and its answer-format sentence.

    A conversation of OK-VQA has one or two questions, one of VQAv2 at least three.

    Source: the folders, haotian-liu/LLaVA@c121f04 README.md; the numbers of questions, as counted in the data.
    """
    image = row.get("image")
    if not isinstance(image, str):
        return "sharegpt"
    folder = image.split("/")[0]
    if folder in _BY_FOLDER:
        return _BY_FOLDER[folder]
    turns = row["conversations"]
    first = next((turn.get("value", "") for turn in turns if turn.get("from") == "human"), "")
    if first.endswith(LETTER):
        return "aokvqa"
    if any(sentence in first for sentence in _REGIONS):
        return "refcoco"
    if first.endswith(SHORT_ANSWER):
        return "vqav2" if len(turns) > 4 else "okvqa"
    return "llava_instruct"


def _read_rows(path: Path, options: Options) -> Iterator[dict[str, Any]]:
    """The rows with a valid conversation; the others are left out."""
    for number, row in iterate_json(path):
        if not isinstance(row, dict):
            options.leave_out("is not a row", f"row {number}, {say_kind(row)}")
            continue
        try:
            parse_turns(row.get("conversations"), f"Row {number} of '{path.name}'")
        except UsageError as error:
            options.leave_out("has a conversation that cannot be trained on", str(error))
            continue
        yield row
