"""Training takes parquet and tar archives as it takes JSON, and knows the lengths of samples without reading them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from llava.cli import main
from llava.data.rows import Rows
from llava.train.dataset.order import count_all_words, count_all_words_by_modality, count_words, count_words_by_modality
from llava.train.dataset.row_lengths import RowMeter
from llava.train.dataset.samples import JsonSamples
from llava.train.dataset.stage_data import ChosenSamples, count_skippable
from llava.train.recipe import TuningStage

ANSWERS = ("one", "an image", "a somewhat longer answer than the others", "x")


def make_turns(answer: str, slot: str = "<image>\n") -> list[dict[str, str]]:
    return [{"from": "human", "value": f"{slot}What is it?"}, {"from": "gpt", "value": answer}]


def png(width: int) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (width, 20), "blue").save(data, "PNG")
    return data.getvalue()


@pytest.fixture(params=["parquet", "tar", "json"])
def data(request: Any, tmp_path: Path) -> Path:
    """Three samples about images and one about none."""
    path = tmp_path / f"x.{request.param}"
    images = [None if i == 2 else png(20 + 10 * i) for i in range(4)]
    turns = [make_turns(answer, "" if i == 2 else "<image>\n") for i, answer in enumerate(ANSWERS)]
    if request.param == "parquet":
        pa = pytest.importorskip("pyarrow")
        pq = pytest.importorskip("pyarrow.parquet")
        stored = [None if image is None else {"bytes": image, "path": None} for image in images]
        pq.write_table(pa.table({"id": list("abcd"), "image": stored, "conversations": turns}), path, row_group_size=3)
        return path
    if request.param == "json":
        rows = [{"id": name, "conversations": each} for name, each in zip("abcd", turns, strict=True)]
        for row, image in zip(rows, images, strict=True):
            if image is not None:
                row["image"] = f"{row['id']}.png"
                (tmp_path / f"{row['id']}.png").write_bytes(image)
        path.write_text(json.dumps(rows))
        return path
    with tarfile.open(path, "w") as archive:
        for name, each, image in zip("abcd", turns, images, strict=True):
            members = {"json": json.dumps({"conversations": each}).encode()} | ({"png": image} if image else {})
            for suffix, content in members.items():
                info = tarfile.TarInfo(f"{name}.{suffix}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("door", ["recipe", "flag"])
def test_a_recipe_and_the_command_line_take_any_format(
    tmp_path: Path, next_folder: Path, data: Path, door: str, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    named = {"json": str(data), "images": str(tmp_path)} if door == "recipe" else {"json": "none.json"}
    values = {"name": "tiny", "start": str(next_folder), "data": named, "epochs": 1, "batch_size": 2, "lr": 1e-3}
    recipe.write_text(yaml.safe_dump(values))
    words = ["train", str(recipe), "--dry-run"]
    assert main(words if door == "recipe" else [*words, "--data", str(data), "--images", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "of 2 samples each" in out
    assert "[ one</s>]" in out
    assert "<image: " in out


def test_lengths_are_those_of_the_records_and_no_row_is_read(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = JsonSamples(str(data), tmp_path)
    chosen = ChosenSamples(samples, [3, 2])
    records = [chosen.record(i) for i in range(2)]
    monkeypatch.setattr(Rows, "record", lambda *_: pytest.fail("a row was read"))
    assert count_all_words(chosen.sizes()) == [count_words(record) for record in records] == [5 + 128, 10]
    by_modality = [count_words_by_modality(record) for record in records]
    assert count_all_words_by_modality(chosen.sizes()) == by_modality == [5, -10]


def test_a_check_counts_the_tokens_of_a_model_as_training_does(
    data: Path, tmp_path: Path, next_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["data", "check", str(data), "--images", ".", "--model", str(next_folder), "--workers", "1"]
    assert main(words) == 0
    meter, samples = RowMeter(str(next_folder)), JsonSamples(str(data), tmp_path)
    meter.data.source = samples
    counted = [meter.data.count_positions(i) for i in range(4)]
    assert [meter(samples.record(i).turns, samples.measure(i))[0] for i in range(4)] == counted
    assert f"{sum(counted):,}" in capsys.readouterr().out


def test_training_takes_a_mixture_with_its_sources_and_failures(
    tmp_path: Path, next_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(png(30))
        rows = [{"id": f"{name}{i}", "image": f"{name}.png", "conversations": make_turns(name * 4)} for i in range(3)]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    sources = {"first": {"data": "a.json"}, "second": {"data": "b.json", "weight": 2, "prompt": "Be brief."}}
    mixture = tmp_path / "mix.yaml"
    mixture.write_text(yaml.safe_dump({"sources": sources, "failures": "40%"}))
    samples = JsonSamples(str(mixture), tmp_path)
    assert [samples.sample(i).source for i in range(9)] == ["first"] * 3 + ["second"] * 6
    assert samples.sample(8).turns[0][1].endswith("What is it?\nBe brief.")
    stage = TuningStage(name="tune", epochs=1, batch_size=2, lr=1e-3)
    assert (count_skippable(stage, samples), count_skippable(stage, ChosenSamples(samples, [0]))) == (3, 3)
    recipe = tmp_path / "recipe.yaml"
    values = {
        "name": "tiny",
        "start": str(next_folder),
        "data": {"json": "x"},
        "epochs": 1,
        "batch_size": 2,
        "lr": 1e-3,
    }
    recipe.write_text(yaml.safe_dump(values))
    words = ["train", str(recipe), "--dry-run", "--images", str(tmp_path), "--data"]
    (tmp_path / "a.png").unlink()  # of three samples of nine, which may fail
    assert main([*words, str(mixture)]) == 0
    assert "Be brief." in capsys.readouterr().out
    (tmp_path / "b.png").unlink()
    assert main([*words, str(mixture)]) == 2
    assert "has samples that cannot be trained on" in capsys.readouterr().err
    assert main([*words, "665k"]) == 2
    assert "vqav2: 'vqav2.json', from `llava data convert vqav2 SRC DST`" in capsys.readouterr().err
