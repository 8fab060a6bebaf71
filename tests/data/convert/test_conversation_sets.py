"""Sets in LLaVA's own format pass through with unique ids, a common image root, and their source."""

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


def row(id: Any, image: Any = None, *texts: str, **fields: Any) -> dict[str, Any]:
    said = [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]
    return {"id": id, **({} if image is None else {"image": image}), "conversations": said, **fields}


COCO = "coco/train2017/000000000009.jpg"


def test_sharegpt4v_keeps_its_conversations(tmp_path: Path) -> None:
    rows = [
        row(
            "000000000009", COCO, "What do you see happening in this image?\n<image>", "In the center of the image, é."
        ),
        row("000000000009", COCO, "Describe it.\n<image>", "Food."),
        row("000000000009", COCO, "Describe it.\n<image>", "Food."),
    ]
    write_json(tmp_path, "sharegpt4v_instruct_gpt4-vision_cap100k.json", rows)
    converted, left_out = run("sharegpt4v", tmp_path)
    assert [(item["id"], item["image"], item["data_source"]) for item in converted] == [
        ("sharegpt4v-000000000009", COCO, "sharegpt4v"),
        ("sharegpt4v-000000000009-2", COCO, "sharegpt4v"),
    ]
    assert converted[0]["conversations"] == rows[0]["conversations"]
    assert left_out == {"is the same row again": 1}


def test_a_mixtures_rows_say_which_set_they_are_from(tmp_path: Path) -> None:
    rows = [
        row("1", "gqa/images/1.jpg", "<image>\nQ", "A"),
        row("ab_0", "", "Hi", "Hello"),
        row("ab_3", None, "see <image>", "Hello"),
        row("5", "sam/images/5.jpg", "Q", "A"),
        row("6", "sam/images/6.jpg", "<image>\nQ", ""),
        row("7", "../7.jpg", "<image>\nQ", "A"),
    ]
    name = "sharegpt4v_mix665k_cap23k_coco-ap9k_lcs3k_sam9k_div2k.json"
    write_json(tmp_path, name, rows)
    converted, left_out = run("sharegpt4v", tmp_path, split="mix665k")
    assert [(item["id"], item["data_source"]) for item in converted] == [
        ("sharegpt4v-1", "gqa"),
        ("sharegpt4v-ab_0", "text"),
    ]
    assert "image" not in converted[1]
    assert sum(left_out.values()) == 4
    assert left_out["is a row that cannot be trained on"] == 1
    assert left_out["has an image outside the image folder"] == 1


def test_allava_keeps_its_image_names_and_numbers_texts(tmp_path: Path) -> None:
    image = "allava_vflan/images/images_191task_1k/VQA-E+x_574_COCO_train2014_000000119456.jpg"
    write_json(
        tmp_path, "allava_vflan/ALLaVA-Instruct-VFLAN-4V.json", [row("allava_vflan_inst_9", image, "<image>\nQ", "A")]
    )
    converted, _ = run("allava", tmp_path)
    assert [(item["id"], item["image"]) for item in converted] == [("allava-train-vflan_inst_9", image)]
    text = {"idx": "heR0vZB", "conversations": row(0, None, "Q", "A")["conversations"]}
    write_json(tmp_path, "allava_text/Evol-Instruct-GPT4-Turbo-143K.json", [text])
    converted, _ = run("allava", tmp_path, split="text")
    assert converted[0]["id"] == "allava-text-heR0vZB"


def test_llavars_images_go_where_its_authors_put_them(tmp_path: Path) -> None:
    rows = [row("000000033471", "000000033471.jpg", "<image>\nQ", "A")]
    write_json(tmp_path, "llava_instruct_150k_llavar_16k.json", rows)
    write_json(tmp_path, "chat_llavar.json", [row("GCC_train_001", "GCC_train_001.jpg", "Q\n<image>", "A")])
    assert run("llavar", tmp_path, split="finetune")[0][0]["image"] == "coco/train2017/000000033471.jpg"
    assert run("llavar", tmp_path, split="pretrain")[0][0]["image"] == "llavar/pretrain/GCC_train_001.jpg"


def test_json_lines_are_read(tmp_path: Path) -> None:
    line = json.dumps(row(0, "images/0.png", "<image>\n如图, AB=？", "答案:A"), ensure_ascii=False)
    (tmp_path / "geoqa+.jsonl").write_text(line + "\n", encoding="utf-8")
    converted, _ = run("geoqa-plus", tmp_path)
    assert converted[0]["image"] == "geoqa+/images/0.png"
    assert turns(converted[0]) == [("<image>\n如图, AB=？", "答案:A")]


def test_a_file_that_is_cut_off_is_named(tmp_path: Path) -> None:
    path = write_json(tmp_path, "open-llava-next_instruct_mix1M.json", [row("1", "gqa/1.jpg", "<image>\nQ", "A")] * 3)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(UsageError, match=r"open-llava-next_instruct_mix1M.json' .*get it again"):
        run("open-llava-next", tmp_path)


def image_bytes(format: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(file, format)
    return file.getvalue()


def test_llava_next_datas_images_are_stored_under_names_of_their_own(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    said = row(0, None, "<image>\nQ", "A")["conversations"]
    text = row(0, None, "financial inflation", "Content Brief")["conversations"]
    ids = ["2384780", "2384780", "VG_100K/2317533", "bar_train_00157767.png", "M9Nb6So_0", "ai2d_1", "x"]
    images: list[Any] = [
        {"bytes": image_bytes("JPEG"), "path": "2384780.jpg"},
        {"bytes": image_bytes("PNG"), "path": "2384780.png"},
        {"bytes": image_bytes("JPEG"), "path": None},
        {"bytes": image_bytes("PNG"), "path": None},
        {"bytes": None, "path": None},
        {"bytes": None, "path": "1.png"},
        {"bytes": b"<!DOCTYPE html>", "path": "1.png"},
    ]
    table = pa.table({
        "id": ids, "conversations": [said] * 4 + [text] + [said] * 2,
        "data_source": ["llava-next-instruct"] * 7, "image": images,
    })  # fmt: skip
    (tmp_path / "data").mkdir()
    pq.write_table(table, tmp_path / "data/train-00000-of-00250.parquet")
    stored = tmp_path / "stored"
    converted, left_out = run("llava-next", tmp_path, save_image=make_image_saver(stored))
    assert [(item["id"], item.get("image"), item["data_source"]) for item in converted] == [
        ("llava-next-2384780", "llava-next/00000/000000.jpg", "llava-1.5"),
        ("llava-next-2384780-2", "llava-next/00000/000001.png", "llava-1.5"),
        ("llava-next-VG_100K/2317533", "llava-next/00000/000002.jpg", "vg"),
        ("llava-next-bar_train_00157767.png", "llava-next/00000/000003.png", "dvqa"),
        ("llava-next-M9Nb6So_0", None, "text"),
    ]
    assert (stored / "llava-next/00000/000001.png").read_bytes() == image_bytes("PNG")
    assert left_out == {"holds no image": 1, "holds bytes that are no image": 1}


def test_llava_next_datas_raw_format_keeps_its_paths(tmp_path: Path) -> None:
    entry = row("docvqa_1", "docvqa/images/x.png", "<image>\nQ", "A", data_source="llava_next_raw_format")
    write_json(tmp_path, "llava_next_raw_format/llava_next_raw_format_processed.json", [entry])
    converted, _ = run("llava-next", tmp_path, split="raw")
    assert [(item["image"], item["data_source"]) for item in converted] == [("docvqa/images/x.png", "docvqa")]
