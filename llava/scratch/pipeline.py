"""Runs a recipe that trains a model from scratch: every stage in order, each resumable.

A run's folder holds ``tokenizer/``, one folder per stage (``weights.safetensors`` and what
``llava.scratch.stage_trainer`` writes) and, after the last stage, ``model/``: a checkpoint in the original layout.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from llava.model.checkpoint import save_checkpoint
from llava.scratch.assemble import build_module, build_setup, choose_parameters
from llava.scratch.build import build_model, build_processor, use_fast_attention
from llava.scratch.oracle import attach_oracle
from llava.scratch.stage_trainer import train_stage
from llava.scratch.stage_weights import WEIGHTS, load_stages, save_stage
from llava.scratch.stages import ScratchRecipe, ScratchStage, parse_scratch_recipe
from llava.scratch.tokenizer import build_tokenizer, collect_words
from llava.scratch.tower import LabelHeads
from llava.train.dataset.samples import JsonSamples
from llava.train.output_check import check_output, make_output
from llava.train.recipe import JsonData
from llava.train.recipe_file import RecipeFile, find_stage
from llava.train.resumption import check_workers


def run(file: RecipeFile, output: str | Path, stage: str | None = None, workers: int = 1) -> Path:
    """Runs the recipe, or one stage of it; returns the checkpoint's folder, or before the last stage the run's folder.

    Finished stages are skipped, and an interrupted one is resumed.

    Args:
        output: the run's folder.
        workers: processes that draw samples; 0 is this process itself.

    Raises:
        UsageError: the recipe is wrong, or the output cannot be written. All stages that run are checked before the
            first one starts.
        CheckpointError: an earlier stage's file, or the checkpoint to resume from, is incomplete or damaged.
    """
    check_workers(workers)
    recipe, folder = parse_scratch_recipe(file), Path(output)
    chosen = recipe.stages if stage is None else (find_stage(recipe, stage),)
    check_output(folder, ["tokenizer", *(each.name for each in chosen)], ())
    for each in chosen:
        check_against_model(recipe, each)
    make_output(folder)
    for each in chosen:
        run_stage(recipe, each, folder, workers)
    last = recipe.stages[-1]
    if chosen[-1] is last and last.kind == "instruct":
        return export(recipe, folder)
    return folder


def check_against_model(recipe: ScratchRecipe, stage: ScratchStage) -> None:
    """Raises UsageError if the stage's parts or rates do not fit the model, on the meta device, or its data file."""
    with torch.device("meta"):
        model, heads = _build(recipe, stage, num_tokens=300)
        choose_parameters(stage, build_module(stage, model, heads), model, heads)
    if isinstance(stage.data, JsonData):
        JsonSamples(stage.data.files, stage.data.images)


def _build(recipe: ScratchRecipe, stage: ScratchStage, num_tokens: int) -> tuple[Any, LabelHeads]:
    """A model with random weights, with an oracle if the stage needs one, and its label heads."""
    model = build_model(recipe.model, num_tokens, stage.seed)
    if stage.kind in ("oracle", "align"):
        attach_oracle(model)
    return model, LabelHeads(recipe.model.tower.hidden_size)


def run_stage(recipe: ScratchRecipe, stage: ScratchStage, folder: Path, workers: int = 1) -> None:
    """Trains one stage, unless it is done, and writes its weights to ``folder/<stage>/``."""
    here = folder / stage.name
    if (here / WEIGHTS).is_file():
        print(f"Stage '{stage.name}' is done: {here / WEIGHTS}")
        return
    tokenizer = get_tokenizer(folder)
    model, heads = _build(recipe, stage, len(tokenizer))
    load_stages(model, heads, [find_stage(recipe, name) for name in stage.start], folder)
    use_fast_attention(model)
    setup = build_setup(recipe.model, stage, model, heads, tokenizer)
    train_stage(stage, setup, model, here, f"{recipe.name}: {stage.name}", workers)
    save_stage(stage.kind, model, heads, here)


def get_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The run's tokenizer: read from its folder, or built from the phrasing of the questions and written there."""
    place = folder / "tokenizer"
    if not (place / "tokenizer.json").is_file():
        build_tokenizer(collect_words()).save_pretrained(place)
    return PreTrainedTokenizerFast.from_pretrained(place)


def export(recipe: ScratchRecipe, folder: Path) -> Path:
    """Writes the finished model as a checkpoint in the original layout, in bfloat16; returns its folder."""
    tokenizer = get_tokenizer(folder)
    last = recipe.stages[-1]
    model, heads = _build(recipe, last, len(tokenizer))
    load_stages(model, heads, [last], folder)
    if hasattr(model, "oracle"):
        del model.oracle
    model.config.use_cache = True
    save_checkpoint(model.to(torch.bfloat16), tokenizer, build_processor(recipe.model), folder / "model")
    return folder / "model"
