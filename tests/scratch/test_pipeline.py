"""Every stage of training from scratch runs, resumes, and passes on all weights that the next one needs."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from llava.cli import main
from llava.errors import CheckpointError, UsageError
from llava.scratch.pipeline import run
from llava.scratch.stage_trainer import StageTrainer
from llava.scratch.stage_weights import WEIGHTS
from llava.train.recipe_file import read_recipe
from tests.scratch.tiny_recipe import tiny_recipe, write_recipe

STAGES = tiny_recipe()["stages"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with all four stages done. Tests must not change it."""
    folder = tmp_path_factory.mktemp("whole")
    assert main(["train", str(write_recipe(folder)), "--output", str(folder / "run"), "--workers", "0"]) == 0
    return folder / "run"


def run_tiny(folder: Path, stage: str | None = None, **changes: Any) -> Path:
    return run(read_recipe(write_recipe(folder, **changes)), folder / "run", stage, workers=0)


def spoil(file: Path, change: Any) -> None:
    """Rewrites the file with its tensors changed by ``change``."""
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def test_a_recipe_runs_through_all_stages_to_a_checkpoint_that_answers(whole: Path) -> None:
    from llava.answer import Sampling, ask
    from llava.model.checkpoint import load_model

    for name in ("tower", "decoder", "align", "next"):
        assert (whole / name / "curves.png").stat().st_size > 1000
        assert json.loads((whole / name / "history.json").read_text())[-1]["step"] == 2
    image = Image.new("RGB", (70, 50), "red")
    answer = ask(load_model(whole / "model"), "What is this?", [image], Sampling(max_new_tokens=4))
    assert answer.new_tokens <= 4


def test_a_finished_stage_is_skipped_and_its_model_is_kept(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = [(whole / name).stat().st_mtime_ns for name in ("model/model.safetensors", f"tower/{WEIGHTS}")]
    run(read_recipe(whole.parent / "recipe.yaml"), whole, stage="tower", workers=0)
    assert "Stage 'tower' is done" in capsys.readouterr().out
    assert written == [(whole / name).stat().st_mtime_ns for name in ("model/model.safetensors", f"tower/{WEIGHTS}")]


def test_stage_1_takes_the_tower_from_its_own_stage_and_the_decoder_from_the_other(whole: Path) -> None:
    tower, decoder, align = (load_file(whole / name / WEIGHTS) for name in ("tower", "decoder", "align"))
    assert not set(tower) & set(decoder)
    for learnt in (tower, decoder):
        assert [name for name in learnt if not torch.equal(learnt[name], align[name])] == []
    assert set(align) - set(tower) - set(decoder) == {name for name in align if "mm_projector" in name}


def test_a_stage_whose_start_was_not_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has not been run"):
        run_tiny(tmp_path, "align")


@pytest.mark.parametrize(
    ("stage", "name"),
    [
        ("tower", "model.vision_tower.vision_tower.vision_model.embeddings.class_embedding"),
        ("tower", "heads.place_head.bias"),
        ("decoder", "oracle.tables.3.weight"),
        ("decoder", "lm_head.weight"),
    ],
)
def test_a_tensor_missing_from_an_earlier_stage_is_named(tmp_path: Path, whole: Path, stage: str, name: str) -> None:
    for each in ("tokenizer", "tower", "decoder"):
        shutil.copytree(whole / each, tmp_path / "run" / each)
    spoil(tmp_path / "run" / stage / WEIGHTS, lambda tensors: tensors.pop(name))
    with pytest.raises(CheckpointError, match=f"{stage}/{WEIGHTS} lacks '{re.escape(name)}'"):
        run_tiny(tmp_path, "align")
    assert not (tmp_path / "run/align" / WEIGHTS).exists()


def test_a_tensor_of_another_model_is_named_with_both_shapes(tmp_path: Path, whole: Path) -> None:
    for each in ("tokenizer", "tower", "decoder"):
        shutil.copytree(whole / each, tmp_path / "run" / each)
    file = tmp_path / "run/decoder" / WEIGHTS
    spoil(file, lambda tensors: tensors.update({"model.norm.weight": torch.ones(8)}))
    with pytest.raises(CheckpointError, match=r"'model\.norm\.weight' of shape \[8\].* \[16\]"):
        run_tiny(tmp_path, "align")
    spoil(file, lambda tensors: tensors.update({"model.norm.weight": torch.ones(16), "nose.weight": torch.ones(1)}))
    with pytest.raises(CheckpointError, match=r"holds 'nose\.weight'"):
        run_tiny(tmp_path, "align")
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="is damaged"):
        run_tiny(tmp_path, "align")


def test_a_stage_may_save_the_average_of_its_start_and_its_end(tmp_path: Path, whole: Path) -> None:
    second = {**STAGES[0], "name": "more", "start": ["tower"]}
    saved = {}
    for share in (0.0, 0.75):
        folder = tmp_path / f"{share}"
        shutil.copytree(whole / "tokenizer", folder / "run/tokenizer")
        shutil.copytree(whole / "tower", folder / "run/tower")
        run_tiny(folder, stages=[STAGES[0], {**second, "weight_averaging": share}])
        saved[share] = load_file(folder / "run/more" / WEIGHTS)
    began = load_file(whole / "tower" / WEIGHTS)
    learnt = [name for name in began if name.startswith("model.") and not torch.equal(began[name], saved[0.0][name])]
    assert len(learnt) > 5
    for name in learnt:
        mean = 0.75 * began[name] + 0.25 * saved[0.0][name]
        torch.testing.assert_close(saved[0.75][name], mean, atol=1e-6, rtol=1e-5)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory, whole: Path) -> Path:
    """A folder whose run was interrupted at step 4 of 4, with a checkpoint of step 2, and its recipe."""
    folder = tmp_path_factory.mktemp("interrupted")
    stages = [{**STAGES[0], "steps": 4, "save_steps": 2}]
    compute_loss, calls = StageTrainer.compute_loss, []

    def interrupt(self: StageTrainer, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return compute_loss(self, *args, **kwargs)

    shutil.copytree(whole / "tokenizer", folder / "run/tokenizer")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StageTrainer, "compute_loss", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_tiny(folder, stages=stages)
    assert not (folder / "run/tower" / WEIGHTS).exists()
    return folder


def test_an_interrupted_stage_resumes_to_the_same_weights(
    tmp_path: Path, interrupted: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(interrupted / "run", tmp_path / "parts")
    shutil.copytree(whole / "tokenizer", tmp_path / "whole/tokenizer")
    compute_loss, calls = StageTrainer.compute_loss, []

    def count(self: StageTrainer, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return compute_loss(self, *args, **kwargs)

    monkeypatch.setattr(StageTrainer, "compute_loss", count)
    recipe = read_recipe(interrupted / "recipe.yaml")
    run(recipe, tmp_path / "parts", workers=0)
    assert len(calls) == 2  # steps 3 and 4 again, from the checkpoint at step 2
    run(recipe, tmp_path / "whole", workers=0)
    once, twice = (load_file(tmp_path / name / "tower" / WEIGHTS) for name in ("whole", "parts"))
    for name, value in once.items():
        assert torch.allclose(value, twice[name], atol=1e-6), name


def test_a_checkpoint_that_lacks_a_tensor_or_a_file_is_not_resumed(tmp_path: Path, interrupted: Path) -> None:
    shutil.copytree(interrupted / "run", tmp_path / "run")
    recipe = read_recipe(interrupted / "recipe.yaml")
    checkpoint = tmp_path / "run/tower/checkpoint-2"
    spoil(checkpoint / "model.safetensors", lambda tensors: tensors.pop("heads.norm.weight"))
    with pytest.raises(CheckpointError, match=r"checkpoint-2 lacks 'heads\.norm\.weight'\. Delete"):
        run(recipe, tmp_path / "run", workers=0)
    (checkpoint / "optimizer.pt").unlink()
    with pytest.raises(CheckpointError, match=r"it has no optimizer\.pt"):
        run(recipe, tmp_path / "run", workers=0)


def test_an_output_that_is_a_file_is_refused_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").write_text("mine")
    assert main(["train", str(write_recipe(tmp_path)), "--output", str(tmp_path / "run"), "--workers", "0"]) == 2
    assert "run, which is a file: name another folder with --output." in capsys.readouterr().err
    assert (tmp_path / "run").read_text() == "mine"


def test_a_mistake_in_the_last_stage_is_found_before_the_first_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path, stages=[*STAGES[:3], {**STAGES[3], "lr_scales": {"vision_towr": 0.1}}])
    assert main(["train", str(recipe), "--output", str(tmp_path / "run")]) == 2
    assert "Did you mean 'vision_tower'?" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
