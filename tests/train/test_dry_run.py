"""``llava train --dry-run`` says what a recipe would do, from headers alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from llava.cli import main
from llava.image.geometry import Size
from llava.train import dry_run
from llava.train.dataset.batches import InstructionCollator
from llava.train.dataset.sample_sizes import measure_sizes
from llava.train.dataset.stage_data import Encoding, TuningData, build_dataset, split_samples
from llava.train.recipe import parse_recipe
from llava.train.recipe_file import read_recipe
from llava.train.starting_model import open_start

ANSWERS = ("one", "an image", "a somewhat longer answer than the others", "x")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Three samples about images of different shapes, and one about none."""
    folder = tmp_path_factory.mktemp("data")
    rows = []
    for i, (size, answer) in enumerate(zip(((40, 20), (30, 50), None, (28, 28)), ANSWERS, strict=True)):
        row: dict[str, Any] = {"id": f"s{i}"}
        if size is not None:
            Image.new("RGB", size).save(folder / f"{i}.png")
            row["image"] = f"{i}.png"
        asked = "What is it?" if size is None else "<image>\nWhat is it?"
        row["conversations"] = [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}]
        rows.append(row)
    (folder / "data.json").write_text(json.dumps(rows), encoding="utf-8")
    return {"json": str(folder / "data.json"), "images": str(folder)}


def write(folder: Path, start: Path, data: dict[str, str], **changes: Any) -> Path:
    values = {"name": "tiny", "start": str(start), "data": data, "epochs": 1, "batch_size": 2, "lr": 1e-3, **changes}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def make_data(recipe: Path) -> TuningData:
    parsed = parse_recipe(read_recipe(recipe))
    (stage,) = parsed.stages
    opened = open_start(parsed.start, stage)
    encoding = Encoding(
        opened.load_tokenizer(),
        opened.spec.tiling,
        opened.load_processor(),
        opened.template,
        opened.spec.context_tokens,
    )
    return build_dataset(stage, split_samples(stage)[0], encoding)


def test_a_dry_run_says_parts_steps_memory_and_trained_tokens_and_writes_nothing(
    tmp_path: Path, next_folder: Path, data: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write(tmp_path, next_folder, data, lr_scales={"projector": 0.5}, accumulation=2, steps=3, epochs=0)
    assert main(["train", str(recipe), "--dry-run"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]
    out = capsys.readouterr().out
    assert "mm_projector" in out
    assert "0.0005" in out
    assert "3 (3 epochs), of 4 samples each: batch_size 2 x accumulation 2" in out
    longest = measure_sizes(make_data(recipe), 10).find_longest_batch(2)
    assert f"{longest.num_positions:,} positions with padding, {longest.num_targets} targets" in out
    assert "It fits: " in out
    assert "[ one</s>]" in out
    assert "<image: " in out
    assert "x</s>" not in out  # only the first three samples are shown


def test_no_weight_is_read(
    tmp_path: Path, next_folder: Path, data: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    build = dry_run.build_table

    def keep(model: Any, *rest: Any) -> Any:
        seen.extend(model.parameters())
        return build(model, *rest)

    monkeypatch.setattr(dry_run, "build_table", keep)
    assert main(["train", str(write(tmp_path, next_folder, data, lora={"rank": 2})), "--dry-run"]) == 0
    assert seen
    assert all(parameter.is_meta for parameter in seen)
    assert sum(parameter.numel() for parameter in seen if parameter.requires_grad and parameter.shape[0] == 2) > 0


def test_sizes_from_headers_are_those_of_the_batches(tmp_path: Path, next_folder: Path, data: dict[str, str]) -> None:
    samples = make_data(write(tmp_path, next_folder, data))
    sizes = measure_sizes(samples, 10)
    assert sizes.is_complete
    for index, size in enumerate(sizes.typical):
        item = samples[index]
        plans = samples.plan([Size(*pair) for pair in item["image_sizes"]])
        positions = len(item["input_ids"]) - len(plans) + sum(plan.num_positions for plan in plans)
        assert (size.num_positions, size.num_whole) == (positions, positions)
        assert size.num_targets == int((item["labels"] != -100).sum())
        assert size.num_tiles == sum(len(image) for image in item["images"])
    batch = InstructionCollator(0)([samples[0], samples[1]])
    assert len(batch["images"]) == 2
    longest = sizes.find_longest_batch(2)
    assert longest.num_positions == 2 * max(size.num_positions for size in sizes.typical)


def test_of_many_samples_some_are_measured_and_the_wordiest_are_among_them(
    tmp_path: Path,
    next_folder: Path,
    data: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [
        {"conversations": [{"from": "human", "value": "Go."}, {"from": "gpt", "value": "a " * (300 if i == 7 else 1)}]}
        for i in range(40)
    ]
    (tmp_path / "many.json").write_text(json.dumps(rows), encoding="utf-8")
    recipe = write(tmp_path, next_folder, {"json": str(tmp_path / "many.json")}, max_length=200)
    sizes = measure_sizes(make_data(recipe), 10, finds_longest=True)
    assert (sizes.num_samples, len(sizes.typical)) == (40, 8)
    assert max(size.num_whole for size in sizes.longest) > 300
    assert max(size.num_positions for size in sizes.longest) == 200
    monkeypatch.setattr(dry_run, "_MOST_MEASURED", 10)
    assert main(["train", str(recipe), "--dry-run"]) == 0
    assert "found among " in capsys.readouterr().out


def test_what_would_make_it_fit_is_said(
    tmp_path: Path,
    next_folder: Path,
    data: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    needs = []
    estimate = dry_run.estimate_memory

    def keep(*arguments: Any) -> Any:
        needs.append(estimate(*arguments).total)
        return estimate(*arguments)

    monkeypatch.setattr(dry_run, "estimate_memory", keep)
    monkeypatch.setattr(dry_run, "find_free_bytes", lambda _: 1000)
    recipe = write(tmp_path, next_folder, data, batch_size=4)
    assert main(["train", str(recipe), "--dry-run"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "It does not fit: this CPU has 0 MiB free" in out
    tried = "gradient_checkpointing=[language_model] batch_size=1 accumulation=4 lora={rank: 128}"
    assert f"Even with {tried} it takes about" in out
    assert needs[0] > needs[1] > needs[2] > needs[3]
    monkeypatch.setattr(dry_run, "find_free_bytes", lambda _: needs[2])
    assert main(["train", str(recipe), "--dry-run"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "It would fit with gradient_checkpointing=[language_model] batch_size=2 accumulation=2: about" in out


def test_packed_rows_are_as_long_as_the_context(
    tmp_path: Path, next_folder: Path, data: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write(tmp_path, next_folder, data, packing=True, max_length=1000)
    assert main(["train", str(recipe), "--dry-run"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "of 2 packed rows each" in out
    assert "Longest batch 2,000 positions with padding" in out


def test_a_mistake_ends_a_dry_run_with_exit_code_2(
    tmp_path: Path, next_folder: Path, data: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write(tmp_path, next_folder, data, train=["projecter"])
    assert main(["train", str(recipe), "--dry-run"]) == 2
    assert "Did you mean 'projector'" in capsys.readouterr().err
    assert main(["train", "default", "--dry-run"]) == 2
    assert "trains a model from scratch" in capsys.readouterr().err
    assert main(["train", str(write(tmp_path, next_folder, data))]) == 2
    assert "--output" in capsys.readouterr().err


def test_targets_are_green_on_a_terminal_and_long_texts_are_shortened(next_folder: Path) -> None:
    class Words:
        def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
            return "".join(f"w{i} " for i in ids)

    ids = [1, -200, 2, 3, 4]
    labels = [-100, -100, -100, 3, 4]
    plain = dry_run.mark_targets(Words(), ids, labels, [576], in_colour=False)
    assert plain.plain == "w1 <image: 576 positions>w2 [w3 w4 ]"
    coloured = dry_run.mark_targets(Words(), ids, labels, [576], in_colour=True)
    assert [coloured.plain[span.start : span.end] for span in coloured.spans] == ["w3 w4 "]
    long = dry_run.mark_targets(Words(), list(range(1000)), [-100] * 1000, [], in_colour=False)
    assert len(long.plain) < 500
