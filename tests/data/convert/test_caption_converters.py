"""Converters of COCO captions and TextCaps, on small files in the datasets' own schemas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llava.errors import UsageError
from tests.data.convert.converting import run, turns, write_json

CAPTION = "Provide a one-sentence caption for the provided image."


def write_textcaps(folder: Path) -> None:
    def entry(number: int, image: str, caption: Any) -> dict[str, Any]:
        return {
            "image_id": image,
            "image_name": image,
            "image_path": f"train/{image}.jpg",
            "image_width": 1024,
            "image_height": 768,
            "set_name": "train",
            "caption_id": number,
            "caption_str": caption,
            "caption_tokens": [],
            "reference_strs": [caption],
        }

    data = [
        entry(0, "d48e9e9e64d31c93", "   "),
        entry(1, "d48e9e9e64d31c93", "Five Listerine Zero mouthwash bottles\n on a store shelf. "),
        entry(2, "d48e9e9e64d31c93", "Bottles of mouthwash."),
        entry(3, "0a1b", "Ein Schild, auf dem „Grüß Gott“ steht."),
        entry(4, "ffff", None),
        entry(5, "ffff", "Not read by the OCR."),
    ]
    write_json(folder, "TextCaps_0.1_train.json", {"dataset_name": "textcaps", "data": data})
    words = [
        {"image_id": "d48e9e9e64d31c93", "ocr_tokens": ["LESS", "IN", "$S", "ZERO"], "ocr_info": []},
        {"image_id": "0a1b", "ocr_tokens": [], "ocr_info": []},
    ]
    write_json(folder, "TextVQA_Rosetta_OCR_v0.2_train.json", {"data": words})


def test_textcaps_has_one_caption_per_image_asked_for_with_ocr_tokens(tmp_path: Path) -> None:
    write_textcaps(tmp_path)
    rows, left_out = run("textcaps", tmp_path)
    assert rows[0] == {
        "id": "textcaps-d48e9e9e64d31c93",
        "image": "textvqa/train_images/d48e9e9e64d31c93.jpg",
        "conversations": [
            {"from": "human", "value": f"<image>\n{CAPTION}\nReference OCR token: LESS, IN, $S, ZERO"},
            {"from": "gpt", "value": "Five Listerine Zero mouthwash bottles on a store shelf."},
        ],
        "data_source": "textcaps",
    }
    assert turns(rows[1]) == [
        (f"<image>\n{CAPTION}\nReference OCR token: ", "Ein Schild, auf dem „Grüß Gott“ steht."),
    ]
    assert left_out == {"is an empty caption": 1, "is about an image that the OCR file lacks": 1}


def test_textcaps_has_all_captions_as_rows_when_asked(tmp_path: Path) -> None:
    write_textcaps(tmp_path)
    rows, left_out = run("textcaps", tmp_path, format="all")
    assert [row["id"] for row in rows] == [
        "textcaps-d48e9e9e64d31c93-1",
        "textcaps-d48e9e9e64d31c93-2",
        "textcaps-0a1b-3",
        "textcaps-ffff-5",
    ]
    assert {turns(row)[0][0] for row in rows} == {f"<image>\n{CAPTION}"}
    assert left_out == {"is an empty caption": 2}
    rows, _ = run("textcaps", tmp_path, format="plain")
    assert [row["id"] for row in rows] == ["textcaps-d48e9e9e64d31c93", "textcaps-0a1b", "textcaps-ffff"]


@pytest.mark.parametrize(
    ("file", "image", "place"),
    [
        ("annotations/captions_train2017.json", "000000000009.jpg", "coco/train2017/000000000009.jpg"),
        (
            "captions_train2014.json",
            "COCO_train2014_000000000009.jpg",
            "coco/train2014/COCO_train2014_000000000009.jpg",
        ),
    ],
)
def test_coco_captions_are_taken_from_both_years(tmp_path: Path, file: str, image: str, place: str) -> None:
    captions = {
        "info": {},
        "images": [{"license": 3, "file_name": image, "height": 480, "width": 640, "id": 9}],
        "licenses": [],
        "annotations": [
            {"image_id": 9, "id": 661611, "caption": "Closeup of bins of food.\n"},
            {"image_id": 8, "id": 2, "caption": "Of an image that is not listed."},
            {"image_id": 9, "id": 661977, "caption": "A meal is presented in brightly colored plastic trays."},
        ],
    }
    write_json(tmp_path, file, captions)
    rows, left_out = run("coco_captions", tmp_path)
    assert left_out == {"is about an image that the file lacks": 1}
    assert [row["image"] for row in rows] == [place]
    assert turns(rows[0]) == [(f"<image>\n{CAPTION}", "Closeup of bins of food.")]
    rows, _ = run("coco_captions", tmp_path, format="all", prompt="")
    assert [row["id"] for row in rows] == ["coco_captions-000000000009-661611", "coco_captions-000000000009-661977"]
    assert turns(rows[0])[0][0] == "<image>"


def test_an_unknown_format_is_refused_with_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"COCO captions has no format 'frist'\. Did you mean 'first'"):
        run("coco_captions", tmp_path, format="frist")
