"""Runs a recipe: every stage in order, each resumable, with Transformers' Trainer.

A run's folder holds ``tokenizer/``, one folder per stage (``weights.safetensors``, Trainer checkpoints,
``history.json``, ``curves.png``) and, after the last stage, ``model/``: a checkpoint in the original layout.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset, SequentialSampler
from transformers import PreTrainedTokenizerFast, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from llava.errors import UsageError
from llava.model.checkpoint import save_checkpoint
from llava.model.placement import cpu_has_bfloat16
from llava.train import build
from llava.train.loss import build_answer_loss
from llava.train.optimizer import build_optimizer
from llava.train.oracle import ProjectorAlignment, attach_oracle, see_labels
from llava.train.pictures import LabelledTiles, PictureMix, collate_tiles
from llava.train.plot import plot_history
from llava.train.recipe import Recipe, Stage, load_recipe
from llava.train.samples import DrawnSamples, InstructionCollator, InstructionData, JsonSamples
from llava.train.tower import AnsweringLabeller, LabelHeads, PatchLabeller
from llava.train.vocabulary import build_tokenizer, collect_words

# Both wordings of the system prompt: released models are trained with the first and asked with the second.
TEMPLATES = {"vicuna_v1": ("vicuna_v1", "llava_v1")}
# Tiles of one drawn picture that the tower's warm-up takes; the rest would be more of the same.
TILES_PER_PICTURE = 2


class StageTrainer(Trainer):
    """The Trainer with a recipe's optimizer, drawn data in its own order, and the model's own measures in the log."""

    def __init__(self, stage: Stage, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stage = stage
        self.measures: dict[str, list[float]] = defaultdict(list)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        chosen: torch.optim.Optimizer | None = getattr(self, "optimizer", None)
        if chosen is None:
            stage, scales = self.stage, tuple(self.stage.lr_scales.items())
            chosen = build_optimizer(model or self.model, stage.optimizer, stage.lr, stage.weight_decay, scales)
            self.optimizer = chosen
        return chosen

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> Any:
        # Drawn picture i is as random as any other; in order, a resumed run goes on where it stopped.
        if self.stage.data.kinds:
            return SequentialSampler(train_dataset or self.train_dataset)  # type: ignore[arg-type]
        return super()._get_train_sampler(train_dataset)

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if "input_ids" in inputs:
            inputs = {**inputs, "logits_at_targets_only": True}
        outputs = model(**inputs)
        for name, value in outputs.items():
            if name.endswith("_right") and not torch.isnan(value):  # not a number where there was nothing to name
                self.measures[name].append(float(value))
        return (outputs["loss"], outputs) if kwargs.get("return_outputs") else outputs["loss"]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs.update({name: sum(values) / len(values) for name, values in self.measures.items()})
            self.measures.clear()
            _return_free_memory()
        super().log(logs, start_time)


def _return_free_memory() -> None:
    """Gives memory that is free inside the C library's heap back to the system.

    Batches of ever different lengths leave holes there; without this a training on a CPU grows by 1 GB in 100 steps.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, musl does not
        if trim is not None:
            trim(0)


def run(recipe_path: str | Path, output: str | Path, stage: str | None = None, workers: int = 1) -> Path:
    """Runs the recipe, or one stage of it, into ``output``; finished stages are passed over, a begun one goes on.

    Returns the folder of the checkpoint if the last stage is done, else the run's folder.
    """
    recipe = load_recipe(recipe_path)
    folder = Path(output)
    if stage is not None:
        recipe.stage(stage)
    for each in recipe.stages:
        if stage is None or each.name == stage:
            run_stage(recipe, each, folder, workers)
    last = recipe.stages[-1]
    if stage in (None, last.name) and last.kind == "instruct":
        return export(recipe, folder)
    return folder


def run_stage(recipe: Recipe, stage: Stage, folder: Path, workers: int = 1) -> None:
    """Trains one stage and leaves its weights in ``folder/<stage>/``."""
    here = folder / stage.name
    if (here / build.WEIGHTS).is_file():
        print(f"Stage '{stage.name}' is done: {here / build.WEIGHTS}")
        return
    tokenizer = get_tokenizer(folder)
    model = build.build_model(recipe.model, len(tokenizer), stage.seed)
    if stage.kind in ("oracle", "align"):
        attach_oracle(model)
    heads = LabelHeads(recipe.model.tower.hidden_size)
    build.load_stage_weights(model, heads, [folder / name for name in stage.start])
    build.use_fast_attention(model)
    began_with = {name: tensor.clone() for name, tensor in model.state_dict().items()} if stage.learnt_share < 1 else {}
    module, dataset, collate = _assemble(recipe, stage, model, heads, tokenizer)
    arguments = _arguments(stage, here, workers)
    torch.manual_seed(stage.seed)
    trainer = StageTrainer(stage, model=module, args=arguments, train_dataset=dataset, data_collator=collate)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(here)) if here.is_dir() else None)
    (here / "history.json").write_text(json.dumps(trainer.state.log_history, indent=1), encoding="utf-8")
    plot_history(trainer.state.log_history, here / "curves.png", f"{recipe.name}: {stage.name}")
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name in began_with:
                tensor.lerp_(began_with[name].to(tensor.device), 1 - stage.learnt_share)
    parts: dict[str, nn.Module] = {"": model, "heads.": heads}
    if stage.kind == "tower":
        parts = {"model.vision_tower.": model.model.vision_tower, "heads.": heads}
    elif stage.kind == "oracle":
        parts = {"": model}
    build.save_weights(parts, here, without=("vision_tower", "mm_projector") if stage.kind == "oracle" else ())


def _arguments(stage: Stage, here: Path, workers: int) -> TrainingArguments:
    batch = stage.batch_size // TILES_PER_PICTURE if stage.kind in ("tower", "align") else stage.batch_size
    return TrainingArguments(
        output_dir=str(here),
        max_steps=stage.steps,
        per_device_train_batch_size=max(1, batch),
        learning_rate=stage.lr,
        lr_scheduler_type=stage.schedule,
        warmup_steps=round(stage.warmup * stage.steps),
        max_grad_norm=stage.max_grad_norm,
        bf16=_multiplies_bfloat16(),
        use_cpu=not torch.cuda.is_available(),
        logging_steps=stage.log_steps,
        save_steps=stage.save_steps,
        save_total_limit=1,
        dataloader_num_workers=workers,
        dataloader_prefetch_factor=8 if workers else None,
        remove_unused_columns=False,
        report_to="none",
        seed=stage.seed,
    )


def _multiplies_bfloat16() -> bool:
    """Whether mixed precision pays here. Where bfloat16 is emulated it takes five times as long as float32."""
    return torch.cuda.is_bf16_supported() if torch.cuda.is_available() else cpu_has_bfloat16()


def _assemble(
    recipe: Recipe, stage: Stage, model: Any, heads: LabelHeads, tokenizer: PreTrainedTokenizerFast
) -> tuple[nn.Module, Dataset[Any], Any]:
    """What learns, from what, and how a batch of it is put together."""
    shape, data = recipe.model, stage.data
    tiling = build.build_tiling(shape, stage.aspect)
    processor = build.build_processor(shape)
    mix = PictureMix(tuple(data.kinds.items()), data.sizes, data.spoil, stage.seed, group=stage.batch_size)
    if stage.kind in ("tower", "align"):
        if not data.kinds:
            raise UsageError(f"Stage '{stage.name}' needs dense labels, which only drawn pictures have (data.kinds).")
        num_pictures = stage.steps * max(1, stage.batch_size // TILES_PER_PICTURE)
        tiles = LabelledTiles(mix, tiling, processor, num_pictures, TILES_PER_PICTURE)
        if stage.kind == "align":
            build.freeze_parts(model, ("projector",))
            return ProjectorAlignment(model), tiles, collate_tiles
        build.freeze_parts(model, ("tower",))
        return PatchLabeller(model.get_vision_tower(), heads), tiles, collate_tiles

    with_pixels = stage.kind == "instruct"
    if not with_pixels:
        see_labels(model)
    if stage.patch_loss and not data.kinds:
        raise UsageError(f"Stage '{stage.name}' asks for patch_loss, which only drawn pictures allow (data.kinds).")
    if data.json:
        source: Any = JsonSamples(data.json, data.images)
    else:
        labels = tiling if stage.patch_loss or not with_pixels else None
        source = DrawnSamples(mix, stage.steps * stage.batch_size, data.turns, data.caption_rate, labels)
    build.freeze_parts(model, stage.train if with_pixels else ("language_model",))
    model.config.image_aspect_ratio = stage.aspect
    model.config.mm_patch_merge_type = tiling.merge
    model.config.use_cache = False
    if stage.answer_power:
        model.loss_function = build_answer_loss(tokenizer.eos_token_id, stage.answer_power)
    templates = data.templates or TEMPLATES.get(shape.template, (shape.template,))
    samples = InstructionData(
        source, tokenizer, tiling, processor, templates, shape.decoder.context_tokens, with_pixels
    )
    module = AnsweringLabeller(model, heads, stage.patch_loss) if stage.patch_loss else model
    return module, samples, InstructionCollator(tokenizer.pad_token_id)


def get_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The run's tokenizer: read, or made from the phrasing of the drawn pictures' questions and kept."""
    place = folder / "tokenizer"
    if not (place / "tokenizer.json").is_file():
        build_tokenizer(collect_words()).save_pretrained(place)
    return PreTrainedTokenizerFast.from_pretrained(place)


def export(recipe: Recipe, folder: Path) -> Path:
    """The finished model as a checkpoint in the original layout, bfloat16."""
    tokenizer = get_tokenizer(folder)
    model = build.build_model(recipe.model, len(tokenizer), 0)
    heads = LabelHeads(recipe.model.tower.hidden_size)
    build.load_stage_weights(model, heads, [folder / recipe.stages[-1].name])
    if hasattr(model, "oracle"):
        del model.oracle
    model.config.use_cache = True
    save_checkpoint(model.to(torch.bfloat16), tokenizer, build.build_processor(recipe.model), folder / "model")
    return folder / "model"
