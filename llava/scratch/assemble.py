"""The setup of each kind of stage: its module, its trainable parameters and its data."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerFast

from llava.scratch.build import build_processor, build_tiling
from llava.scratch.drawn import (
    DrawnMix,
    DrawnSamples,
    LabelledCollator,
    LabelledData,
    LabelledTiles,
    OracleData,
    collate_tiles,
)
from llava.scratch.oracle import ProjectorAlignment, see_labels
from llava.scratch.stage_trainer import StageSetup
from llava.scratch.stages import (
    AlignStage,
    DrawnData,
    InstructStage,
    ModelShape,
    OracleStage,
    ScratchStage,
    TowerStage,
)
from llava.scratch.tower import AnsweringLabeller, LabelHeads, PatchLabeller
from llava.train.dataset.batches import InstructionCollator
from llava.train.dataset.samples import InstructionData, JsonSamples
from llava.train.loss import build_answer_loss
from llava.train.parts import PartParameter, Parts, choose_trainable, list_parts, scale_rates
from llava.train.recipe import JsonData

# Both wordings of the system prompt: released models are trained with the first and prompted with the second.
TEMPLATES = {"vicuna_v1": ("vicuna_v1", "llava_v1")}
# The tower's warm-up uses this many tiles of each drawn image: the others would be much alike.
TILES_PER_IMAGE = 2


def list_scratch_parts(model: Any, heads: LabelHeads) -> Parts:
    """The parts of a LLaVA model, its label heads, and its oracle if it has one."""
    parts = {**list_parts(model), "heads": {"": heads}}
    if hasattr(model, "oracle"):
        parts["oracle"] = {"oracle": model.oracle}
    return parts


def build_module(stage: ScratchStage, model: Any, heads: LabelHeads) -> nn.Module:
    """The module that a stage of this kind trains: the model itself, or a wrapper with the heads or the oracle."""
    if isinstance(stage, TowerStage):
        return PatchLabeller(model.get_vision_tower(), heads)
    if isinstance(stage, AlignStage):
        return ProjectorAlignment(model)
    if isinstance(stage, InstructStage) and stage.patch_loss:
        return AnsweringLabeller(model, heads, stage.patch_loss)
    return model


def choose_parameters(stage: Any, module: nn.Module, model: Any, heads: LabelHeads) -> list[PartParameter]:
    """The parameters that the stage trains, with their rates; freezes all others. Raises UsageError.

    With ``patch_loss`` the label heads are trained, too.
    """
    where, parts = f"Stage '{stage.name}'", list_scratch_parts(model, heads)
    train = stage.train
    if isinstance(module, AnsweringLabeller):
        train = (*dict.fromkeys((*train, "heads")),)
    return scale_rates(choose_trainable(module, parts, train, where), parts, stage.lr_scales, where)


def build_setup(
    shape: ModelShape, stage: ScratchStage, model: Any, heads: LabelHeads, tokenizer: PreTrainedTokenizerFast
) -> StageSetup:
    """The stage's module, its trainable parameters and its data. Raises UsageError."""
    module = build_module(stage, model, heads)
    trainable = choose_parameters(stage, module, model, heads)
    if isinstance(stage, TowerStage | AlignStage):
        return _build_labelling_setup(shape, stage, module, trainable)
    assert isinstance(stage, OracleStage | InstructStage)
    return _build_answering_setup(shape, stage, model, tokenizer, module, trainable)


def _build_labelling_setup(
    shape: ModelShape, stage: TowerStage | AlignStage, module: nn.Module, trainable: list[PartParameter]
) -> StageSetup:
    num_images = max(1, stage.batch_size // TILES_PER_IMAGE)  # a batch
    tiles = LabelledTiles(
        _mix(stage, stage.data),
        build_tiling(shape, stage.aspect),
        build_processor(shape),
        stage.steps * num_images,
        TILES_PER_IMAGE,
    )
    return StageSetup(module, trainable, tiles, collate_tiles, in_order=True, items_per_batch=num_images)


def _build_answering_setup(
    shape: ModelShape,
    stage: OracleStage | InstructStage,
    model: Any,
    tokenizer: PreTrainedTokenizerFast,
    module: nn.Module,
    trainable: list[PartParameter],
) -> StageSetup:
    tiling, data = build_tiling(shape, stage.aspect), stage.data
    is_labelled = isinstance(module, AnsweringLabeller)
    is_oracle = isinstance(stage, OracleStage)
    if is_oracle:
        see_labels(model)
    model.config.image_aspect_ratio = stage.aspect
    model.config.mm_patch_merge_type = tiling.merge
    model.config.use_cache = False
    if stage.answer_weighting:
        model.loss_function = build_answer_loss(tokenizer.eos_token_id, stage.answer_weighting)
    if isinstance(data, JsonData):
        source: Any = JsonSamples(data.files, data.images)
    else:
        labels = tiling if is_labelled or is_oracle else None
        num_samples = stage.steps * stage.batch_size
        source = DrawnSamples(_mix(stage, data), num_samples, data.turns, data.caption_rate, labels)
    kind = OracleData if is_oracle else LabelledData if is_labelled else InstructionData
    templates = data.templates or TEMPLATES.get(shape.template, (shape.template,))
    samples = kind(source, tokenizer, tiling, build_processor(shape), templates, shape.decoder.context_tokens)
    collator = LabelledCollator if is_labelled else InstructionCollator
    return StageSetup(
        module, trainable, samples, collator(tokenizer.pad_token_id), in_order=not isinstance(data, JsonData)
    )


def _mix(stage: ScratchStage, data: DrawnData) -> DrawnMix:
    return DrawnMix(tuple(data.kinds.items()), data.sizes, data.spoil, stage.seed, group=stage.batch_size)
