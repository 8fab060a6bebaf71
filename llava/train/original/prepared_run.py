"""Prepares and ends a run of the original's training command: its flags become a recipe, and that a model to train.

What lies between, data and trainer, ``llava.train.train`` builds from its own names, which research code replaces.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llava import conversation as templates
from llava.errors import Notice
from llava.model import layouts
from llava.model.folder import Folder
from llava.model.sources import find_checkpoint
from llava.train.dataset.stage_data import TuningData, check_data
from llava.train.devices.parallel import claim_device, receives_weights
from llava.train.devices.rank_faults import told_by_first_process
from llava.train.original.flag_translation import OriginalRun, translate
from llava.train.original.parsed_flags import Flags, read_flags
from llava.train.original.state_dicts import add_special_tokens
from llava.train.part_table import build_table, print_table
from llava.train.recipe import TuningStage
from llava.train.report.stage_record import recording
from llava.train.resumption import check_workers, find_last
from llava.train.run import choose_parameters, fit_weights
from llava.train.snapshots import refuse_output
from llava.train.speed.chunked_loss import build_target_loss
from llava.train.speed.levers import choose_attention
from llava.train.starting_model import StartingPoint, build_start
from llava.train.trainer import LLaVATrainer
from llava.train.trainer_arguments import make_arguments


@dataclass(frozen=True)
class PreparedRun:
    """What the original's ``train()`` has in hand before it builds data and trainer."""

    model: Any
    tokenizer: Any
    data_args: Any
    training_args: Any
    run: OriginalRun

    @property
    def stage(self) -> TuningStage:
        """The only stage of the run's recipe."""
        return self.run.recipe.stages[0]


def prepare_run(words: Sequence[str], kinds: Sequence[Any]) -> PreparedRun:
    """The model and arguments that these flags ask for; sets the default template, as the original does.

    Args:
        kinds: the dataclasses for the model, the data and the training.

    Raises:
        UsageError: a flag is unknown or wrong, or flags ask for what is not supported.
        CheckpointError: a file of the model is missing or damaged.
    """
    claim_device()
    with told_by_first_process():
        return _prepare(words, kinds)


def _prepare(words: Sequence[str], kinds: Sequence[Any]) -> PreparedRun:
    flags = read_flags(words, kinds)
    start = flags.values["model_name_or_path"]
    run = translate(flags, starts_from_llava=_is_llava(start))
    check_workers(run.workers)
    for name in ("model_name_or_path", "pretrain_mm_mlp_adapter", "lora_weight_path"):
        if flags.values[name]:
            refuse_output(flags.values[name], run.output)
    for notice in run.notices:
        warnings.warn(notice, Notice, stacklevel=3)
    if run.log_folder is not None:
        os.environ["TENSORBOARD_LOGGING_DIR"] = run.log_folder  # Transformers reads it there
    (stage,) = run.recipe.stages
    training_args = _make_arguments(run, stage, flags, kinds[2])
    adds_padding = flags.values["version"] == "v0" and not _has_padding(start)
    dtype = "float32" if adds_padding else None  # its rows are the mean of the others
    loaded = build_start(start, stage, dtype, is_outline=receives_weights(training_args))
    model, tokenizer = loaded.model, loaded.tokenizer
    if adds_padding:
        _add_padding(model, tokenizer)
    trainable = choose_parameters(model, stage)
    fit_weights(model, trainable, training_args)
    choose_attention(model, training_args.device, training_args.mixed_precision)
    assert stage.data is not None
    templates.default_conversation = templates.conv_templates[stage.data.templates[0]]
    if training_args.should_save:
        print_table(build_table(model, trainable, stage.lr, stage.weight_decay))
    data_args = flags.make(kinds[1], 1)
    config = model.config
    data_args.image_processor = loaded.image_processor
    data_args.is_multimodal = True
    data_args.mm_use_im_start_end = config.mm_use_im_start_end
    data_args.image_aspect_ratio = config.image_aspect_ratio
    data_args.image_grid_pinpoints = getattr(config, "image_grid_pinpoints", None)
    data_args.tiling = loaded.spec.tiling
    data_args.compatible_with = stage.compatible_with
    config.use_cache = False
    config.truncate_to_model_max_length = True  # longer rows are cut on the right
    return PreparedRun(model, tokenizer, data_args, training_args, run)


def check_samples(run: PreparedRun, samples: TuningData) -> None:
    """Raises UsageError for a template that does not fit the tokenizer, and, as LLaVA-1.5 stops at one, a bad row.

    LLaVA-NeXT takes the next row in place of a bad one; here it is counted and named when it is met.
    """
    stage = run.stage
    check_data(replace(stage, max_skipped=len(samples)) if stage.compatible_with == "llava-next" else stage, samples)


def finish_run(run: PreparedRun, trainer: Any) -> None:
    """Trains, from the last checkpoint in the run's folder if there is one, and saves the trainer's state.

    What a recipe's stage writes about itself is written beside; not for a trainer that is not ours.

    Raises:
        LlavaError: training stopped; see ``LLaVATrainer.train``.
    """
    folder, recipe = Path(run.training_args.output_dir), run.run.recipe
    with ExitStack() as stack:
        if isinstance(trainer, LLaVATrainer):
            if trainer.target_loss is None:  # which tells the loss of each source
                trainer.target_loss = build_target_loss(run.tokenizer.eos_token_id, run.stage.answer_weighting)
            stack.enter_context(recording(trainer, run.stage, recipe.title(run.stage), recipe.start, folder))
        trainer.train(resume_from_checkpoint=run.run.resume or find_last(folder))
    trainer.save_state()


def _is_llava(start: str) -> bool:
    """Whether a checkpoint is a LLaVA, or a part of one, by its config.json."""
    folder = Folder.of(find_checkpoint(start))
    if not folder.has("config.json"):
        return True
    config = folder.read_json("config.json")
    return any(key in config for key in ("mm_vision_tower", "mm_vision_config", "vision_config"))


def _has_padding(start: str) -> bool:
    """Whether the files of the start's tokenizer name a token for padding."""
    folder = Folder.of(find_checkpoint(start))
    files = [name for name in ("tokenizer_config.json", "special_tokens_map.json") if folder.has(name)]
    return any(folder.read_json(name).get("pad_token") is not None for name in files)


def _add_padding(model: Any, tokenizer: Any) -> None:
    """Adds ``[PAD]`` for ``--version v0``, as the original does, with rows of embeddings and head of its own."""
    tokenizer.pad_token = None
    add_special_tokens({"pad_token": "[PAD]"}, tokenizer, model)
    llava = model.get_base_model() if hasattr(model, "get_base_model") else model
    point: StartingPoint = llava.starting_point
    llava.starting_point = replace(point, beside=point.beside | {layouts.EMBEDDINGS, layouts.HEAD})


def _make_arguments(run: OriginalRun, stage: TuningStage, flags: Flags, kind: Any) -> Any:
    """The trainer's arguments; those that the recipe has by other names are set by the original's, too."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    arguments = make_arguments(stage, run.output, run.workers, world_size=world_size, kind=kind)
    for name in ("lora_enable", "lora_r", "lora_alpha", "lora_dropout", "lora_bias", "lora_weight_path", "bits"):
        setattr(arguments, name, flags.values[name])
    for name, part in (("mm_projector_lr", "projector"), ("mm_vision_tower_lr", "vision_tower")):
        setattr(arguments, name, flags.values[name] if part in stage.lr_scales else None)
    by_modality = ("group_by_modality_length", "group_by_modality_length_auto")
    if stage.group_by == "length" and not flags.values["group_by_length"] and any(map(flags.values.get, by_modality)):
        arguments.group_by_length = False  # with early_mix_text the dataset says that all rows are of one modality
        for name in by_modality:
            setattr(arguments, name, flags.values[name])
    arguments.mm_tunable_parts = flags.values["mm_tunable_parts"]
    arguments.use_im_start_end = flags.values["mm_use_im_start_end"]
    return arguments
