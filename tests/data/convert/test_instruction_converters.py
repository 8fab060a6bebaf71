"""LLaVA's own instruction files: they are checked and labelled, and otherwise stay as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llava.data.convert.instructions import name_source
from tests.data.convert.converting import run, turns, write_json

SHORT = "Answer the question using a single word or phrase."


def row(id: Any, image: str | None, *texts: str) -> dict[str, Any]:
    said = [{"from": "human" if i % 2 == 0 else "gpt", "value": text} for i, text in enumerate(texts)]
    return {"id": id, **({} if image is None else {"image": image}), "conversations": said}


def test_llava_instruct_passes_through_with_its_image_folder_and_unique_ids(tmp_path: Path) -> None:
    rows = [
        row("000000033471", "000000033471.jpg", "<image>\nWhat colors?", "White and red.", "Where? 🚌", "In a street."),
        row("000000033471", "000000033471.jpg", "Describe it.\n<image>", "A bus."),
        row("000000033471", "000000033471.jpg", "Describe it.\n<image>", "A bus."),
        row("1", "coco/train2017/000000000001.jpg", "What?\n<image>", "A cat."),
        row("2", "2.jpg", "No answer?\n<image>"),
        row("3", "3.jpg", "No slot?", "None."),
        row("4", "../../etc/passwd", "What?\n<image>", "A file."),
        ["not", "a", "row"],
        {"id": "5", "image": "5.jpg", "conversations": [{"from": "bot", "value": "Hi"}]},
    ]
    path = write_json(tmp_path, "llava_instruct_150k.json", rows)
    written, left_out = run("llava_instruct", path)
    assert [(row["id"], row["image"]) for row in written] == [
        ("000000033471", "coco/train2017/000000033471.jpg"),
        ("000000033471-2", "coco/train2017/000000033471.jpg"),
        ("1", "coco/train2017/000000000001.jpg"),
    ]
    assert turns(written[0]) == [("<image>\nWhat colors?", "White and red."), ("Where? 🚌", "In a street.")]
    assert turns(written[1]) == [("Describe it.\n<image>", "A bus.")]
    assert left_out == {
        "is the same row again": 1,
        "has a conversation that cannot be trained on": 2,
        "has <image> 0 times for 1 image": 1,
        "has an image outside the image folder": 1,
        "is not a row": 1,
    }


@pytest.mark.parametrize(
    ("image", "texts", "source"),
    [
        (None, ("Hi", "Hello"), "sharegpt"),
        ("gqa/images/2354786.jpg", (f"<image>\nIs it?\n{SHORT}", "Yes"), "gqa"),
        ("ocr_vqa/images/140031996X.jpg", (f"<image>\nWho?\n{SHORT}", "H. Jackson Brown"), "ocr_vqa"),
        ("textvqa/train_images/a.jpg", ("<image>\nProvide a one-sentence caption", "A sign."), "textcaps"),
        ("vg/VG_100K_2/1.jpg", ("<image>\nPlease provide the bounding box", "[0.0, 0.1, 0.2, 0.3]"), "vg"),
        ("coco/train2017/1.jpg", (f"<image>\nWhat?\n{SHORT}", "A", "B", "C"), "okvqa"),
        ("coco/train2017/1.jpg", (f"<image>\nWhat?\n{SHORT}", "A", "B", "C", "D", "E"), "vqav2"),
        (
            "coco/train2017/1.jpg",
            ("<image>\nQ\nA. a\nB. b\nAnswer with the option's letter from the given choices directly.", "A"),
            "aokvqa",
        ),
        (
            "coco/train2017/1.jpg",
            ("<image>\nPlease provide a short description for this region: [0.5, 0.3, 0.7, 0.7].", "Red jacket."),
            "refcoco",
        ),
        ("coco/train2017/1.jpg", ("What are the colors of the bus?\n<image>", "White."), "llava_instruct"),
    ],
)
def test_a_row_of_the_mixture_is_labelled_with_its_source(
    image: str | None, texts: tuple[str, ...], source: str, tmp_path: Path
) -> None:
    assert name_source(row("1", image, *texts)) == source
    path = write_json(tmp_path, "llava_v1_5_mix665k.json", [row("1", image, *texts)])
    (written,), left_out = run("mix665k", path)
    assert written == {**row("1", image, *texts), "data_source": source}
    assert left_out == {}
