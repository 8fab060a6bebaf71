"""A recipe that starts from a checkpoint trains the named parts, stage by stage, and writes checkpoints."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from llava.cli import main
from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import CheckpointError, UsageError
from llava.model.checkpoint import load_model
from llava.train.dataset.stage_data import Encoding, build_dataset, read_samples
from llava.train.recipe import JsonData, TuningStage, parse_recipe
from llava.train.recipe_file import read_recipe
from llava.train.run import check_recipe, run

STAGE: dict[str, Any] = {"steps": 2, "batch_size": 2, "lr": 1e-2, "log_steps": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Three samples about images of different shapes, and one about none."""
    folder = tmp_path_factory.mktemp("data")
    rows: list[dict[str, Any]] = [{"id": "text", "conversations": []}]
    for i, size in enumerate(((40, 20), (30, 50), (28, 28))):
        Image.new("RGB", size, (60 * i, 90, 120)).save(folder / f"{i}.png")
        rows.append({"id": str(i), "image": f"{i}.png", "conversations": []})
    for row in rows:
        marker = "<image>\n" if "image" in row else ""
        row["conversations"] += [
            {"from": "human", "value": f"{marker}What is it?"},
            {"from": "gpt", "value": "an image"},
        ]
    (folder / "data.json").write_text(json.dumps(rows), encoding="utf-8")
    return {"json": str(folder / "data.json"), "images": str(folder)}


def write(folder: Path, start: Path, data: dict[str, str], *stages: dict[str, Any]) -> Path:
    values = {"name": "tiny", "start": str(start), "stages": [{**STAGE, "data": data, **stage} for stage in stages]}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def load_tensors(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_model(folder, device="cpu", dtype="float32").model.state_dict())


def test_each_stage_trains_its_parts_and_starts_from_the_previous_stage(
    tmp_path: Path, next_folder: Path, data: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write(
        tmp_path,
        next_folder,
        data,
        {"name": "align", "train": ["projector"]},
        # In bfloat16 the frozen tower would be rounded, as in both originals.
        {"name": "tune", "precision": "float32", "lr_scales": {"language_model": 0.5}, "answer_weighting": 1.0}
        | {"optimizer": "muon"},
    )
    assert main(["train", str(recipe), "--output", str(tmp_path / "run"), "--workers", "0"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "run/tune/model")
    began, aligned, tuned = (
        load_tensors(folder) for folder in (next_folder, tmp_path / "run/align/model", tmp_path / "run/tune/model")
    )
    moved = [name for name in began if not torch.equal(began[name], aligned[name])]
    assert moved
    assert [name for name in moved if "mm_projector" not in name] == []
    moved = [name for name in began if not torch.equal(aligned[name], tuned[name])]
    assert {"model.image_newline", "lm_head.weight", "model.layers.0.mlp.up_proj.weight"} < {*moved}
    assert not any("vision_tower" in name for name in moved)
    written = (tmp_path / "run/align/model/mm_projector.bin").stat().st_mtime_ns
    run(read_recipe(recipe), tmp_path / "run", workers=0)
    assert (tmp_path / "run/align/model/mm_projector.bin").stat().st_mtime_ns == written


def test_a_stage_interrupted_after_its_last_step_is_only_saved(
    tmp_path: Path, next_folder: Path, data: dict[str, str]
) -> None:
    stage = {"name": "tune", "train": ["projector"], "save_steps": 2}
    recipe = read_recipe(write(tmp_path, next_folder, data, stage))
    here = tmp_path / "run/tune"
    run(recipe, tmp_path / "run", workers=0)
    tensors, history = load_tensors(here / "model"), json.loads((here / "history.json").read_text())
    shutil.rmtree(here / "model")
    run(recipe, tmp_path / "run", workers=0)
    assert [path.name for path in here.glob("checkpoint-*")] == ["checkpoint-2"]
    assert all(torch.equal(value, tensors[name]) for name, value in load_tensors(here / "model").items())
    assert json.loads((here / "history.json").read_text()) == history[:-1]  # without the summary of the whole run

    shutil.rmtree(here / "model")
    shorter = read_recipe(write(tmp_path, next_folder, data, {**stage, "steps": 1}))
    with pytest.raises(UsageError, match=r"has 1 steps, but .*checkpoint-2 is of a later step"):
        run(shorter, tmp_path / "run", workers=0)

    weights = torch.load(here / "checkpoint-2/mm_projector.bin", weights_only=True)
    name = next(name for name in weights if "mm_projector" in name)
    del weights[name]
    torch.save(weights, here / "checkpoint-2/mm_projector.bin")
    with pytest.raises(CheckpointError, match=f"mm_projector.bin lacks '{name}'"):
        run(recipe, tmp_path / "run", workers=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr_scales": {"vision_towr": 0.1}}, "Did you mean 'vision_tower'"),
        ({"train": ["projector", "lm_hed"]}, r"unknown part 'lm_hed'\. Did you mean 'lm_head'"),
        ({"lora": {"rank": 2}, "lr_scales": {"embed_tokens": 0.1}}, "what it names is frozen in this stage"),
        ({"lora": {"rank": 2, "targets": ["q_prj"]}}, r"lora\.targets names 'q_prj'.* Did you mean 'q_proj'"),
        ({"data": {"json": "no-such.json"}}, "does not exist"),
    ],
)
def test_a_mistake_in_a_later_stage_is_found_before_the_first_begins(
    tmp_path: Path, next_folder: Path, data: dict[str, str], change: dict[str, Any], message: str
) -> None:
    recipe = write(tmp_path, next_folder, data, {"name": "one"}, {"name": "two", **change})
    with pytest.raises(UsageError, match=message):
        run(read_recipe(recipe), tmp_path / "run", workers=0)
    assert not (tmp_path / "run").exists()


def test_adapters_may_have_rates_of_their_own(tmp_path: Path, next_folder: Path, data: dict[str, str]) -> None:
    stage = {"name": "one", "lora": {"rank": 2}, "lr_scales": {"lora_B": 16.0}}
    recipe = parse_recipe(read_recipe(write(tmp_path, next_folder, data, stage)))
    check_recipe(recipe, list(recipe.stages), tmp_path / "run", workers=0)


def test_a_single_stage_needs_the_previous_one_and_a_known_name(
    tmp_path: Path, next_folder: Path, data: dict[str, str]
) -> None:
    recipe = read_recipe(write(tmp_path, next_folder, data, {"name": "one"}, {"name": "two"}))
    with pytest.raises(UsageError, match="starts from 'one', which has not been run"):
        run(recipe, tmp_path / "run", "two", workers=0)
    with pytest.raises(UsageError, match=r"no stage 'tow'\. Did you mean 'two'"):
        run(recipe, tmp_path / "run", "tow", workers=0)
    with pytest.raises(UsageError, match="workers is -1"):
        run(recipe, tmp_path / "run", workers=-1)


@pytest.mark.parametrize("trained_with_marks", [True, False])
def test_a_checkpoint_whose_images_have_start_and_end_tokens_is_trained_with_them(
    next_folder: Path, data: dict[str, str], trained_with_marks: bool
) -> None:
    loaded = load_model(next_folder, device="cpu", dtype="float32")
    loaded.tokenizer.add_tokens(["<im_start>", "<im_end>"], special_tokens=True)
    marks = loaded.tokenizer.convert_tokens_to_ids(["<im_start>", "<im_end>"])
    stage = TuningStage(name="tune", **STAGE, data=JsonData(**data))
    encoding = Encoding(
        loaded.tokenizer, loaded.spec.tiling, loaded.image_processor, loaded.template, 1024, trained_with_marks
    )
    ids = build_dataset(stage, read_samples(stage), encoding)[1]["input_ids"].tolist()
    slot = ids.index(IMAGE_TOKEN_INDEX)
    assert ([ids[slot - 1], ids[slot + 1]] == marks) == trained_with_marks
