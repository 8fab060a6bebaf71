"""Captions: COCO and TextCaps, with the words that an OCR system read.

LLaVA-1.5 takes one caption per image of TextCaps. Which of the five it took was not published; the first is taken here.
No torch.

Source: of the schemas, cocodataset.org (captions_*.json) and textvqa.org/textcaps (TextCaps_0.1_*.json, and the OCR
file that TextVQA shares); llava_v1_5_mix665k.json has 21,953 rows of TextCaps, as many as there are images.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from llava.data.convert.converter import Options, Row, Source, make_row
from llava.data.convert.json_input import iterate_json, take
from llava.data.convert.merged_turns import group
from llava.data.convert.vqa import read_ocr_tokens
from llava.data.prompts import ANSWER_FORMATS, join_lines, write_ocr_tokens


def convert_textcaps(source: Source, options: Options) -> Iterator[Row]:
    """Captions that read. Formats: "ocr", the first caption of an image, with OCR tokens; "plain"; "all" captions."""
    path = source.file()
    tokens = dict(read_ocr_tokens(source.file(1))) if options.format == "ocr" else None
    prompt = options.choose_prompt(ANSWER_FORMATS["textcaps"])

    def pair() -> Iterator[tuple[str, tuple[str, str]]]:
        for i, entry in iterate_json(path, "data"):
            where = f"Caption {i} of '{path}'"
            caption = entry.get("caption_str") if isinstance(entry, dict) else None
            yield take(entry, "image_id", str, where), (str(entry.get("caption_id", i)), _clean(caption))

    for image, captions in group(pair()).items():
        question = prompt
        if tokens is not None:
            if image not in tokens:
                options.leave_out("is about an image that the OCR file lacks", f"image {image}")
                continue
            question = join_lines(prompt, write_ocr_tokens(tokens[image]))
        name = f"textvqa/{'test' if options.split == 'test' else 'train'}_images/{image}.jpg"
        yield from _make_rows(f"textcaps-{image}", name, question, captions, "textcaps", options)


def convert_coco_captions(source: Source, options: Options) -> Iterator[Row]:
    """Captions of COCO 2017 or 2014. Formats: "first", the first caption of an image; "all" captions, a row each."""
    path = source.file()
    names: dict[int, str] = {}
    for i, entry in iterate_json(path, "images"):
        where = f"Image {i} of '{path}'"
        names[take(entry, "id", int, where)] = _place(take(entry, "file_name", str, where), options.split)

    def pair() -> Iterator[tuple[int, tuple[str, str]]]:
        for i, entry in iterate_json(path, "annotations"):
            where = f"Caption {i} of '{path}'"
            image, number = take(entry, "image_id", int, where), take(entry, "id", int, where)
            if image in names:
                yield image, (str(number), _clean(entry.get("caption")))
            else:
                options.leave_out("is about an image that the file lacks", f"caption {number}")

    prompt = options.choose_prompt(ANSWER_FORMATS["coco_captions"])
    for image, captions in group(pair()).items():
        yield from _make_rows(f"coco_captions-{image:012}", names[image], prompt, captions, "coco_captions", options)


def _make_rows(
    id: str, image: str, question: str, captions: Iterable[tuple[str, str]], source: str, options: Options
) -> Iterator[Row]:
    """The rows about an image: one per (number, caption), or for the first only."""
    for number, caption in captions:
        if not caption:
            options.leave_out("is an empty caption", f"caption {number}")
            continue
        if options.format != "all":
            yield make_row(id, image, [(question, caption)], source)
            return
        yield make_row(f"{id}-{number}", image, [(question, caption)], source)


def _place(name: str, split: str) -> str:
    """The name of a COCO image below LLaVA's image folder; the names of 2014 say their folder."""
    folder = name.split("_")[1] if name.startswith("COCO_") and name.count("_") == 2 else f"{split}2017"
    return f"coco/{folder}/{name}"


def _clean(caption: object) -> str:
    """The caption on one line; "" for anything that is not a text."""
    return " ".join(caption.split()) if isinstance(caption, str) else ""
