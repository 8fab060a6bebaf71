"""DocVQA, InfographicVQA and SynDog-EN: a conversation about each page."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llava.data.convert.row_writer import make_image_saver
from llava.errors import UsageError
from tests.data.convert.converting import run, turns, write_json

SHORT = "\nAnswer the question using a single word or phrase."


def question(id: int, image: str, text: str, answers: list[str] | None) -> dict[str, Any]:
    """An entry of the competition's JSON, as train_v1.0_withQT.json has it."""
    entry = {
        "questionId": id, "question": text, "question_types": ["handwritten", "form"], "image": f"documents/{image}",
        "docId": 279, "ucsf_document_id": "xnbl0037", "ucsf_document_page_no": "1", "data_split": "train",
    }  # fmt: skip
    return entry if answers is None else {**entry, "answers": answers}


def documents(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"dataset_name": "SP-DocVQA", "dataset_version": "1.0", "dataset_split": "train", "data": list(entries)}


def test_all_questions_about_a_page_are_one_conversation(tmp_path: Path) -> None:
    write_json(
        tmp_path,
        "spdocvqa_qas/train_v1.0_withQT.json",
        documents(
            question(337, "xnbl0037_1.png", "what is the date mentioned in this letter?", ["1/8/93"]),
            question(338, "gnbx0223_7.png", "Wie heißt der “Autor”?", ["Müller", "müller ", "Müller, K."]),
            question(339, "xnbl0037_1.png", "What is the contact person name?", ["P. Carter", "p. carter"]),
        ),
    )
    rows, left_out = run("docvqa", tmp_path)
    assert [row["id"] for row in rows] == ["docvqa-xnbl0037_1", "docvqa-gnbx0223_7"]
    assert rows[0]["image"] == "docvqa/images/xnbl0037_1.png"
    assert turns(rows[0]) == [
        ("<image>\nwhat is the date mentioned in this letter?" + SHORT, "1/8/93"),
        ("What is the contact person name?", "P. Carter"),
    ]
    assert turns(rows[1]) == [("<image>\nWie heißt der “Autor”?" + SHORT, "Müller")]
    assert left_out == {}


def test_questions_without_answers_and_repeated_ones_are_left_out(tmp_path: Path) -> None:
    entries = [
        question(1, "a.png", "Total?", None),
        question(2, "a.png", "Total?", []),
        question(3, "a.png", "Total?", ["", "  "]),
        question(4, "a.png", " ", ["x"]),
        {**question(8, "a.png", "Total?", ["12"]), "image": ""},
        question(5, "a.png", "Total?", ["12"]),
        question(6, "a.png", "Total? ", ["12"]),
        question(7, "a.png", "Total?", ["13"]),
    ]
    write_json(tmp_path, "train_v1.0.json", documents(*entries))  # the older name, directly in the folder
    rows, left_out = run("docvqa", tmp_path)
    assert [turns(row) for row in rows] == [[("<image>\nTotal?" + SHORT, "12")]]
    assert left_out == {
        "has no answer": 3,
        "has no question": 1,
        "names no image": 1,
        "was asked about its image before": 1,
        "was asked about its image before, with another answer": 1,
    }


def test_the_prompt_can_be_replaced(tmp_path: Path) -> None:
    write_json(tmp_path, "train_v1.0.json", documents(question(1, "a.png", "Total?", ["12"])))
    rows, _ = run("docvqa", tmp_path, prompt="")
    assert turns(rows[0]) == [("<image>\nTotal?", "12")]


def test_an_entry_of_another_version_is_named(tmp_path: Path) -> None:
    write_json(tmp_path, "train_v1.0.json", documents({"question_id": 1, "question": "?"}))
    with pytest.raises(UsageError, match=r"Question 0 of '.*train_v1.0.json' needs .*'questionId', which is missing"):
        run("docvqa", tmp_path)


def test_missing_files_are_named_with_their_source(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'spdocvqa_qas/val_v1.0_withQT.json'.*They come from https://rrc.cvc.uab.es"):
        run("docvqa", tmp_path, split="val")


def test_infographics_are_named_by_their_local_names(tmp_path: Path) -> None:
    entry = {
        "questionId": 98313, "question": "Which social platform has heavy female audience?", "answers": ["pinterest"],
        "image_local_name": "20471.jpeg", "image_url": "https://blogs.constantcontact.com/x.jpg",
        "ocr_output_file": "20471.json", "data_split": "train",
    }  # fmt: skip
    write_json(tmp_path, "infographicVQA_train_v1.0.json", documents(entry))  # the released name, without an s
    rows, _ = run("infovqa", tmp_path)
    assert rows[0]["id"] == "infovqa-20471"
    assert rows[0]["image"] == "infovqa/images/20471.jpeg"


def jpeg(color: str = "white") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), color).save(file, "JPEG")
    return file.getvalue()


def write_parquet(folder: Path, name: str, **columns: list[Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / name)


def truth(text: Any) -> str:
    return json.dumps({"gt_parse": {"text_sequence": text}}, ensure_ascii=False)


SHARD = "data/train-00000-of-00084-26dbc51a09be7b1f.parquet"


def test_pages_of_parquet_are_stored_and_transcribed(tmp_path: Path) -> None:
    image = {"bytes": jpeg(), "path": "image_0.jpg"}
    write_parquet(
        tmp_path,
        SHARD,
        image=[image, image, {"bytes": b"<html>gone</html>", "path": None}, None, image, image],
        ground_truth=[truth("ut. The unsupe\nrvised  é中"), truth(" "), truth("x"), truth("y"), "no JSON", truth(5)],
    )
    stored = tmp_path / "images"
    rows, left_out = run("synthdog-en", tmp_path, save_image=make_image_saver(stored))
    assert [row["id"] for row in rows] == ["synthdog-en-00000_000000"]
    asked = (
        "<image>\nOCR this image section by section, from top to bottom, and left to right. Do not insert line breaks "
        "in the output text. If a word is split due to a line break in the image, use a space instead."
    )
    assert turns(rows[0]) == [(asked, "ut. The unsupe rvised é中")]
    assert rows[0]["image"] == "synthdog-en/images/00000_000000.jpg"
    assert (stored / rows[0]["image"]).read_bytes() == jpeg()
    assert left_out == {
        "has no text": 1,
        "holds bytes that are no image": 1,
        "holds no image": 1,
        "has a ground_truth without a text_sequence": 2,
    }


def test_where_images_are_stored_has_to_be_said(tmp_path: Path) -> None:
    write_parquet(tmp_path, SHARD, image=[{"bytes": jpeg(), "path": None}], ground_truth=[truth("x")])
    with pytest.raises(UsageError, match="--save-images DIR"):
        run("synthdog-en", tmp_path)


def test_a_truncated_parquet_file_is_named(tmp_path: Path) -> None:
    write_parquet(tmp_path, SHARD, image=[{"bytes": jpeg(), "path": None}], ground_truth=[truth("x")])
    whole = (tmp_path / SHARD).read_bytes()
    (tmp_path / SHARD).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match=r"train-00000.* is no complete parquet file"):
        run("synthdog-en", tmp_path)


def test_a_column_of_another_dataset_is_named(tmp_path: Path) -> None:
    write_parquet(tmp_path, SHARD, image=[{"bytes": jpeg(), "path": None}], text=["x"])
    with pytest.raises(UsageError, match="has no column 'ground_truth'; it has 'image', 'text'"):
        run("synthdog-en", tmp_path)


def test_a_column_of_another_type_is_named(tmp_path: Path) -> None:
    write_parquet(tmp_path, SHARD, image=[7], ground_truth=[truth("x")])
    with pytest.raises(UsageError, match=r"Row 0 of .*: its column of images holds int, which is no image"):
        run("synthdog-en", tmp_path)


def test_a_folder_that_the_generator_filled_is_read(tmp_path: Path) -> None:
    line = json.dumps({"file_name": "image_1.jpg", "ground_truth": truth("some text")})
    (tmp_path / "train").mkdir()
    (tmp_path / "train/metadata.jsonl").write_text(line + "\n\n", encoding="utf-8")
    rows, _ = run("synthdog-en", tmp_path)
    assert rows[0]["image"] == "synthdog-en/images/image_1.jpg"
    assert turns(rows[0])[0][1] == "some text"
