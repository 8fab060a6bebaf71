"""DocVQA, InfographicVQA and SynDog-EN: pages to read.

Source: Robust Reading Competition, https://rrc.cvc.uab.es/?ch=17 (tasks 1 and 3). Its JSON, as chu0802/MLLM-playground
src/datasets/vqa/doc_vqa.py and google-research/big_vision@11eea57 big_vision/datasets/infovqa/infovqa.py read it:
``data``, a list of ``questionId``, ``question``, ``image`` ("documents/x.png") or ``image_local_name`` ("20471.jpeg"),
and ``answers``, which the test split lacks. SynDog: clovaai/donut; naver-clova-ix/synthdog-en (parquet: ``image``,
``ground_truth``); ``metadata.jsonl`` beside the images of a set that its generator made.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from llava.data import prompts
from llava.data.convert.converter import Options, Row, Source, make_row
from llava.data.convert.image_questions import ImageQuestions
from llava.data.convert.json_input import iterate_json, iterate_lines, take, take_list
from llava.data.convert.merged_turns import ask_all, choose_majority
from llava.data.convert.parquet_input import choose_suffix, find_bytes, iterate_parquet
from llava.errors import UsageError


def convert_docvqa(source: Source, options: Options) -> Iterator[Row]:
    """A row for each page, with all its questions."""
    yield from _convert_pages(source, options, "docvqa", "image")


def convert_infovqa(source: Source, options: Options) -> Iterator[Row]:
    """A row for each infographic, with all its questions."""
    yield from _convert_pages(source, options, "infovqa", "image_local_name")


def _convert_pages(source: Source, options: Options, name: str, image_key: str) -> Iterator[Row]:
    questions = ImageQuestions(options)
    for number, entry in iterate_json(source.file(0), "data"):
        where = f"Question {number} of '{source.file(0)}'"
        thing = f"question {take(entry, 'questionId', (int, str), where)}"
        image = PurePosixPath(take(entry, image_key, str, where)).name
        answers = take_list(entry, "answers", str, where) if entry.get("answers") is not None else []
        questions.add(image, take(entry, "question", str, where), choose_majority(answers), thing)
    for image, pairs in questions.items():
        turns = ask_all(pairs, prompts.ANSWER_FORMATS[name], options)
        yield make_row(f"{name}-{PurePosixPath(image).stem}", f"{name}/images/{image}", turns, name)


def convert_synthdog(source: Source, options: Options) -> Iterator[Row]:
    """A row for each page: its text in reading order."""
    for id, image, ground_truth, thing in _iterate_synthdog(source, options):
        text = _read_sequence(ground_truth)
        if text is None:
            options.leave_out("has a ground_truth without a text_sequence", thing)
        elif not text:
            options.leave_out("has no text", thing)
        else:
            yield make_row(
                id, image, [(options.choose_prompt(prompts.ANSWER_FORMATS["synthdog-en"]), text)], "synthdog-en"
            )


def _iterate_synthdog(source: Source, options: Options) -> Iterator[tuple[str, str, Any, str]]:
    """(id, name of the image, ground truth, what messages call it) of each page that has an image."""
    for shard, path in enumerate(source.files(0)):
        if path.suffix == ".jsonl":
            yield from _iterate_folder(path)
            continue
        for number, row in iterate_parquet(path, ("image", "ground_truth")):
            thing = f"row {number} of {path.name}"
            data = find_bytes(row["image"], f"Row {number} of '{path}'")
            suffix = choose_suffix(data) if data else None
            if data is None or suffix is None:
                options.leave_out("holds no image" if data is None else "holds bytes that are no image", thing)
                continue
            name = f"synthdog-en/images/{shard:05d}_{number:06d}{suffix}"
            save_image(options, "SynDog-EN holds its images in its own files.", name, data)
            yield f"synthdog-en-{shard:05d}_{number:06d}", name, row["ground_truth"], thing


def _iterate_folder(path: Path) -> Iterator[tuple[str, str, Any, str]]:
    """The pages of a folder that SynthDoG's generator filled: images beside metadata.jsonl."""
    for number, entry in iterate_lines(path):
        where = f"Line {number + 1} of '{path}'"
        name = take(entry, "file_name", str, where)
        truth = entry.get("ground_truth")
        yield f"synthdog-en-{PurePosixPath(name).stem}", f"synthdog-en/images/{name}", truth, f"line {number + 1}"


def _read_sequence(ground_truth: Any) -> str | None:
    """The text of a page on one line, as the prompt asks for it; None if there is no such field."""
    if isinstance(ground_truth, str):
        try:
            ground_truth = json.loads(ground_truth)
        except (ValueError, RecursionError):
            return None
    parse = ground_truth.get("gt_parse") if isinstance(ground_truth, Mapping) else None
    text = parse.get("text_sequence") if isinstance(parse, Mapping) else None
    return " ".join(text.split()) if isinstance(text, str) else None


def save_image(options: Options, why: str, name: str, data: bytes) -> None:
    """Stores an image that no folder has yet.

    Raises:
        UsageError: the user did not say where; ``why`` is the sentence that says why images are stored.
    """
    if options.save_image is None:
        raise UsageError(f"{why} Name the folder that they are stored in: --save-images DIR.")
    options.save_image(name, data)
