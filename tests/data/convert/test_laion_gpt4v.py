"""LAION-GPT-V's images are found in a folder, or fetched if that is asked for."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llava.data import prompts
from llava.data.convert import laion_gpt4v
from llava.data.convert.row_writer import make_image_saver
from llava.errors import FetchError, UsageError
from tests.data.convert.converting import run, turns


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({
        "link": ["https://x.org/a.png", "https://x.org/b.png", "https://x.org/c.png", "", "https://x.org/e.png"],
        "caption": ["A red square.", "Ein Würfel.", "Gone.", "No address.", None],
        "message_id": ["1170", "1171", "1172", "1173", "1174"],
        "timestamp": ["2023-11-04T12:00:00"] * 5,
        "image": pa.nulls(5),
    })  # fmt: skip
    (tmp_path / "data").mkdir()
    pq.write_table(table, tmp_path / "data/train-00000-of-00001-ea83b05a4d8a5a5b.parquet")
    return tmp_path


def test_images_are_found_by_message_and_by_address(folder: Path) -> None:
    images = folder / "images"
    (images / "laion-gpt4v/00000").mkdir(parents=True)
    (images / "laion-gpt4v/1170.png").write_bytes(png())
    (images / "laion-gpt4v/00000/000000001.jpg").write_bytes(png())
    details = {"url": "https://x.org/b.png", "status": "success"}
    (images / "laion-gpt4v/00000/000000001.json").write_text(json.dumps(details))
    (images / "laion-gpt4v/00000/000000002.json").write_text("not JSON")
    rows, left_out = run("laion-gpt4v", folder, images=images)
    assert [(row["id"], row["image"]) for row in rows] == [
        ("laion-gpt4v-1170", "laion-gpt4v/1170.png"),
        ("laion-gpt4v-1171", "laion-gpt4v/00000/000000001.jpg"),
    ]
    question, answer = turns(rows[1])[0]
    assert question.removeprefix("<image>\n") in prompts.DESCRIBE
    assert answer == "Ein Würfel."
    assert left_out == {"has no address": 1, "has no description": 1, "has an image that the folder lacks": 1}
    assert run("laion-gpt4v", folder, images=images)[0] == rows
    assert turns(run("laion-gpt4v", folder, images=images, prompt="What is it?")[0][0])[0][0] == "<image>\nWhat is it?"


def test_nothing_is_fetched_unless_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(laion_gpt4v, "fetch", lambda *_, **__: pytest.fail("fetched"))
    with pytest.raises(UsageError, match="--format fetch --save-images DIR"):
        run("laion-gpt4v", folder)


def test_images_are_fetched_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fetch(url: str, **_: Any) -> bytes:
        asked.append(url)
        if url.endswith("c.png"):
            raise FetchError("404")
        return png() if url.endswith("a.png") else b"<html>expired</html>"

    monkeypatch.setattr(laion_gpt4v, "fetch", fetch)
    stored = folder / "images"
    stored.mkdir()
    options: dict[str, Any] = {"format": "fetch", "images": stored, "save_image": make_image_saver(stored)}
    rows, left_out = run("laion-gpt4v", folder, **options)
    assert [row["image"] for row in rows] == ["laion-gpt4v/1170.png"]
    assert (stored / "laion-gpt4v/1170.png").read_bytes() == png()
    assert left_out["has an address that is no image's"] == 1
    assert left_out["has an image that cannot be fetched"] == 1
    assert sorted(asked) == [f"https://x.org/{name}.png" for name in "abc"]
    asked.clear()
    assert run("laion-gpt4v", folder, **options)[0] == rows
    assert "https://x.org/a.png" not in asked
