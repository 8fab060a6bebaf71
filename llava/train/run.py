"""Runs a recipe that starts from a checkpoint, stage by stage: check, build, resume, train, save.

A stage's folder holds the Trainer's ``checkpoint-N``, the files of ``stage_record`` and, once it is done, ``model/``,
from which the next stage starts.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from llava.errors import CheckpointError, Notice, UsageError
from llava.model.checkpoint import LoadedModel
from llava.model.placement import read_dtype
from llava.text import write_line
from llava.train.cautions import list_template_cautions
from llava.train.dataset.packing import PackedCollator
from llava.train.dataset.stage_data import Encoding, build_collator, build_dataset, check_data, split_samples
from llava.train.devices.parallel import (
    choose_loading_device,
    claim_device,
    count_processes,
    read_rank,
    receives_weights,
    wait_for_all,
)
from llava.train.devices.precision import set_precision
from llava.train.devices.rank_faults import explaining_rank_faults, told_by_first_process
from llava.train.output_check import check_output, make_output
from llava.train.part_table import build_table, print_table
from llava.train.parts import PartParameter, choose_trainable, list_parts, scale_rates
from llava.train.recipe import Recipe, TuningStage, parse_recipe
from llava.train.recipe_file import RecipeFile, find_stage
from llava.train.report.html_report import REPORT
from llava.train.report.stage_record import recording
from llava.train.resumption import check_workers, find_changes, find_last, read_run_state
from llava.train.snapshots import mend_generation, save_result
from llava.train.speed.chunked_loss import build_target_loss
from llava.train.speed.levers import check_levers, choose_attention, pack_samples, set_levers
from llava.train.starting_model import build_start, open_outline, open_start, starts_from_llava
from llava.train.trainer import LLaVATrainer
from llava.train.trainer_arguments import make_arguments

# Beside the stages' folders: what packing knows of the lengths of samples.
LENGTHS = "lengths.safetensors"


def run(file: RecipeFile, output: str | Path, stage: str | None = None, workers: int = 1, resume: bool = True) -> Path:
    """Runs the recipe, or one stage of it; returns the folder of the last checkpoint that was written.

    Finished stages are skipped, and an interrupted one is resumed.

    Args:
        output: the run's folder, which gets one folder per stage.
        workers: processes that prepare samples; 0 is this process itself.
        resume: False refuses a stage that was interrupted.

    Raises:
        UsageError: the recipe is wrong. All its stages are checked against model and data before the first one starts.
        CheckpointError: the checkpoint to resume from is incomplete.
        LlavaError: training stopped; see ``LLaVATrainer.train``.
    """
    with explaining_rank_faults():
        check_workers(workers)
        claim_device()
        recipe, folder = parse_recipe(file), Path(output)
        chosen = recipe.stages if stage is None else (find_stage(recipe, stage),)
        with told_by_first_process():
            check_output(folder, [each.name for each in chosen], list_starts(recipe))
            check_recipe(recipe, [each for each in chosen if not _is_done(folder / each.name)], folder, workers)
            if read_rank() == 0:
                make_output(folder)
        for each in chosen:
            run_stage(recipe, each, folder, workers, resume)
        return folder / chosen[-1].name / "model"


def check_recipe(recipe: Recipe, stages: list[TuningStage], folder: Path, workers: int) -> None:
    """Checks parts, rates, settings, data and templates of the stages without reading a weight. Raises UsageError."""
    if not stages:
        return
    opened = open_start(recipe.start, recipe.stages[0])
    if starts_from_llava(opened):
        for caution in list_template_cautions(stages[0], opened.template):
            write_line(f"llava: {caution}")
    for stage in stages:
        check_levers(stage)
        model = opened.model if stage.lora is None else open_outline(recipe.start, stage)[0]
        choose_parameters(model, stage)  # names and shapes only, on the meta device
        with warnings.catch_warnings():  # notices are given when the stage begins
            warnings.simplefilter("ignore", Notice)
            make_arguments(stage, folder / stage.name, workers, world_size=count_processes())
        encoding = Encoding(
            opened.load_tokenizer(),
            opened.spec.tiling,
            opened.load_processor(),
            opened.template,
            opened.spec.context_tokens,
            bool(getattr(opened.model.config, "mm_use_im_start_end", False)),
        )
        for source in split_samples(stage):
            if source is not None:
                check_data(stage, build_dataset(stage, source, encoding))


def run_stage(recipe: Recipe, stage: TuningStage, folder: Path, workers: int = 1, resume: bool = True) -> None:
    """Trains one stage, unless it is done, and writes its checkpoint to ``folder/<stage>/model``."""
    here = folder / stage.name
    if _is_done(here):
        if read_rank() == 0:
            report = f" Its report is {here / REPORT}." if (here / REPORT).is_file() else ""
            print(f"Stage '{stage.name}' is done: {here / 'model'}{report}")
            for change in list_changes_of_done(recipe, stage, folder, workers):
                warnings.warn(change, Notice, stacklevel=2)
        return
    last = find_last(here)
    if last is not None and not resume:
        raise UsageError(f"Stage '{stage.name}' was interrupted: {last} exists. Resume it, or delete {here}.")
    with told_by_first_process():
        arguments = make_arguments(stage, here, workers, world_size=count_processes())
        start = _find_start(recipe, stage, folder)
        loaded = build_start(start, stage, dtype=None, is_outline=receives_weights(arguments))
        trainer = build_trainer(loaded, stage, here, workers, arguments)
    assert trainer.train_dataset is not None
    data = getattr(trainer.train_dataset, "samples", trainer.train_dataset)  # a packed row is made of those of another
    trainer.args.watched |= name_inputs(recipe, stage, data)
    model, share = loaded.model, stage.weight_averaging if read_rank() == 0 else 0.0
    began_with = {name: tensor.clone() for name, tensor in model.state_dict().items()} if share else {}
    with recording(trainer, stage, recipe.title(stage), recipe.start, here):
        trainer.train(resume_from_checkpoint=last)
    state = trainer.gather_weights(all_of_them=stage.weight_averaging > 0)
    if trainer.args.should_save:
        with torch.no_grad():
            for name, began in began_with.items():
                state[name].lerp_(began.to(state[name]), share)
        save_result(model, loaded.tokenizer, here / "model", dtype=read_dtype(loaded.spec.dtype), state=state)
    wait_for_all()  # the next stage starts from these files


def build_trainer(
    loaded: LoadedModel, stage: TuningStage, here: Path, workers: int = 1, arguments: Any = None
) -> LLaVATrainer:
    """The trainer of a stage, after it has printed what it trains. Raises UsageError."""
    model, tokenizer = loaded.model, loaded.tokenizer
    arguments = arguments or make_arguments(stage, here, workers, world_size=count_processes())
    trainable = choose_parameters(model, stage)
    fit_weights(model, trainable, arguments)
    spec = loaded.spec
    encoding = Encoding(
        *(tokenizer, spec.tiling, loaded.image_processor, loaded.template),
        *(loaded.context_tokens, bool(getattr(model.config, "mm_use_im_start_end", False))),
    )
    train, evaluated = (
        None if source is None else build_dataset(stage, source, encoding) for source in split_samples(stage)
    )
    assert train is not None
    choose_attention(model, arguments.device, arguments.mixed_precision, stage.packing)
    line = set_levers(model, stage, train, here.parent / "features")
    # A text-only row alone reaches neither the tower nor the projector.
    needs_images = arguments.world_size > 1 or not any(each.part == "language_model" for each in trainable)
    blank_px = encoding.tiling.tile_px if needs_images else None
    trainer = LLaVATrainer(
        model=model,
        tokenizer=tokenizer,
        args=arguments,
        train_dataset=pack_samples(stage, train, here.parent / LENGTHS) if stage.packing else train,
        eval_dataset=evaluated,
        data_collator=PackedCollator(blank_px or 0) if stage.packing else build_collator(tokenizer, blank_px),
        trainable=trainable,
    )
    trainer.target_loss = build_target_loss(tokenizer.eos_token_id, stage.answer_weighting)
    if arguments.should_save and line:
        print(line)
    if arguments.should_save:
        print_table(build_table(model, trainable, stage.lr, stage.weight_decay))
    return trainer


def fit_weights(model: Any, trainable: Sequence[PartParameter], arguments: Any) -> None:
    """Casts and places the weights as the arguments say, and mends generation settings that could not be saved."""
    set_precision(
        model,
        trainable,
        mixed_precision=arguments.mixed_precision,
        has_original_tower=bool(arguments.compatible_with),
        device=choose_loading_device(arguments),
        is_outline=receives_weights(arguments),
    )
    mend_generation(model)


def choose_parameters(model: Any, stage: TuningStage) -> list[PartParameter]:
    """The parameters that the stage trains, with their rates; freezes all others. Raises UsageError.

    With start and end tokens around images, the embeddings are trained too if the language model is not, as in the
    originals: the new tokens have no meaning yet.
    """
    parts, where, train = list_parts(model), f"Stage '{stage.name}'", stage.train
    if stage.vision.mm_use_im_start_end and "language_model" not in train:
        train = (*dict.fromkeys((*train, "embed_tokens")),)
    trainable, rates = choose_trainable(model, parts, train, where), dict(stage.lr_scales)
    if stage.compatible_with:  # both originals ignore the rate of a part that is frozen
        for part in set(rates) & set(parts) - {each.part for each in trainable}:
            warnings.warn(f"{where} freezes {part}, so its learning rate has no effect.", Notice, stacklevel=2)
            del rates[part]
    return scale_rates(trainable, parts, rates, where)


def list_starts(recipe: Recipe) -> list[str]:
    """The checkpoints that a recipe starts from, which no result may replace."""
    return [recipe.start, *(each.lora.start for each in recipe.stages if each.lora and each.lora.start)]


def name_inputs(recipe: Recipe, stage: TuningStage, data: Any) -> dict[str, Any]:
    """What a stage is made of beside its settings, so that a resumed run knows when it has changed."""
    position, source = recipe.stages.index(stage), data.source
    start = recipe.stages[position - 1].name if position else recipe.start
    return {"start": start, "samples": f"{len(source):,} with the digest {source.digest()}"}


def list_changes_of_done(recipe: Recipe, stage: TuningStage, folder: Path, workers: int) -> list[str]:
    """A sentence about the settings with which a finished stage was not trained; none where they are the same."""
    here = folder / stage.name
    last = find_last(here)
    if last is None:
        return []
    try:
        read_run_state(last)
    except CheckpointError:  # which a finished stage does not need
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)
        settings = make_arguments(stage, here, workers, world_size=count_processes()).watched
    changes = [change for change in find_changes(last, settings) if change[0] != "processes"]
    if not changes:
        return []
    said = ", ".join(f"{name} {before}, not {now}" for name, before, now in changes)
    return [
        f"Stage '{stage.name}' was trained with {said}, and is not trained again. Name another --output, or delete "
        f"{here}, to train with the new settings."
    ]


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
