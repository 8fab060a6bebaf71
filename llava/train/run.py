"""Runs a recipe that starts from a checkpoint, stage by stage: build, resume, train, save.

A stage's folder holds what ``llava.train.trainer`` writes and, once it is done, ``model/``: a checkpoint in the
original layout, from which the next stage starts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from llava.errors import UsageError
from llava.model.checkpoint import LoadedModel, load_model, save_checkpoint
from llava.model.checkpoint_reader import open_checkpoint
from llava.model.placement import read_dtype
from llava.train.batches import InstructionCollator
from llava.train.loss import build_answer_loss
from llava.train.parts import PartParameter, choose_trainable, list_parts, scale_rates
from llava.train.recipe import Recipe, TuningStage, parse_recipe
from llava.train.recipe_file import RecipeFile, find_stage
from llava.train.samples import InstructionData, JsonSamples
from llava.train.trainer import StageSetup, check_workers, train_stage


def run(file: RecipeFile, output: str | Path, stage: str | None = None, workers: int = 1) -> Path:
    """Runs the recipe, or one stage of it; returns the folder of the last checkpoint that was written.

    Finished stages are skipped, and an interrupted one is resumed.

    Args:
        output: the run's folder, which gets one folder per stage.
        workers: processes that prepare samples; 0 is this process itself.

    Raises:
        UsageError: the recipe is wrong. All its stages are checked against the model before the first one starts.
        CheckpointError: the checkpoint to resume from is incomplete.
    """
    check_workers(workers)
    recipe, folder = parse_recipe(file), Path(output)
    chosen = recipe.stages if stage is None else (find_stage(recipe, stage),)
    if not all(_is_done(folder / each.name) for each in chosen):
        model = open_checkpoint(recipe.start).model  # names and shapes only, on the meta device
        for each in chosen:
            choose_parameters(model, each)
            read_samples(each)
    for each in chosen:
        run_stage(recipe, each, folder, workers)
    return folder / chosen[-1].name / "model"


def run_stage(recipe: Recipe, stage: TuningStage, folder: Path, workers: int = 1) -> None:
    """Trains one stage, unless it is done, and writes its checkpoint to ``folder/<stage>/model``."""
    here = folder / stage.name
    if _is_done(here):
        print(f"Stage '{stage.name}' is done: {here / 'model'}")
        return
    # Trained in float32, whatever dtype the checkpoint has: small updates are lost in 16 bits.
    loaded = load_model(_find_start(recipe, stage, folder), device="cpu", dtype="float32")
    setup = build_setup(loaded, stage)
    train_stage(stage, setup, loaded.model, here, f"{recipe.name}: {stage.name}", workers)
    model = loaded.model.to(read_dtype(loaded.spec.dtype) or torch.float32)
    model.config.use_cache = True
    save_checkpoint(model, loaded.tokenizer, loaded.image_processor, here / "model")


def _is_done(here: Path) -> bool:
    return (here / "model" / "config.json").is_file()


def _find_start(recipe: Recipe, stage: TuningStage, folder: Path) -> str | Path:
    position = recipe.stages.index(stage)
    if not position:
        return recipe.start
    before = folder / recipe.stages[position - 1].name
    if not _is_done(before):
        raise UsageError(
            f"Stage '{stage.name}' starts from '{before.name}', which has not been run: {before / 'model'} "
            "does not exist."
        )
    return before / "model"


def choose_parameters(model: Any, stage: TuningStage) -> list[PartParameter]:
    """The parameters that the stage trains, with their rates; freezes all others. Raises UsageError."""
    parts, where = list_parts(model), f"Stage '{stage.name}'"
    return scale_rates(choose_trainable(model, parts, stage.train, where), parts, stage.lr_scales, where)


def read_samples(stage: TuningStage) -> JsonSamples:
    """The stage's samples. Raises UsageError for a missing or invalid file."""
    if stage.data is None:
        raise UsageError(f"Stage '{stage.name}' has no data: name a file with --data, or data.json in the recipe.")
    return JsonSamples(stage.data.files, stage.data.images)


def build_setup(loaded: LoadedModel, stage: TuningStage) -> StageSetup:
    """The model, its trainable parameters and the stage's samples, tiled and rendered exactly as at inference."""
    model, tokenizer = loaded.model, loaded.tokenizer
    trainable = choose_parameters(model, stage)
    model.config.use_cache = False
    if stage.answer_weighting:
        model.loss_function = build_answer_loss(tokenizer.eos_token_id, stage.answer_weighting)
    samples = InstructionData(
        read_samples(stage),
        tokenizer,
        loaded.spec.tiling,
        loaded.image_processor,
        (stage.data.templates if stage.data else ()) or (loaded.template,),
        loaded.context_tokens,
    )
    pad_id = tokenizer.pad_token_id
    return StageSetup(
        model, trainable, samples, InstructionCollator(tokenizer.eos_token_id if pad_id is None else pad_id)
    )
