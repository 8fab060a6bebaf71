"""The three dataclasses of the original's command line: every field and default of both repositories.

``transformers.HfArgumentParser`` makes flags of them. ``flag_translation`` makes a recipe of the flags;
what a field means there is written beside the translation. Where the repositories' defaults differ, these are those of
LLaVA-1.5, and ``NEXT_DEFAULTS`` holds the others.

Source: haotian-liu/LLaVA@c121f04 and LLaVA-VL/LLaVA-NeXT@df17966, both llava/train/train.py.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, fields
from typing import Any

import transformers

from llava.errors import Notice
from llava.train.original.renamed_arguments import OLD_NAMES, REMOVED_OPTIMIZERS, OlderArguments, modernize
from llava.train.trainer_arguments import LlavaTrainingArguments


@dataclass
class ModelArguments:
    """The model to start from, how images enter it, and which of its parts are trained."""

    model_name_or_path: str | None = field(default="facebook/opt-125m")
    model_class_name: str | None = field(default=None)
    version: str | None = field(default="v0", metadata={"help": "the conversation template"})

    mm_tunable_parts: str | None = field(
        default=None, metadata={"help": "mm_vision_tower, mm_mlp_adapter, mm_language_model: a list with commas"}
    )
    freeze_backbone: bool = field(default=False)
    tune_mm_mlp_adapter: bool = field(default=False)
    tune_mm_vision_resampler: bool = field(default=False)
    unfreeze_mm_vision_tower: bool = field(default=False)
    unfreeze_language_model: bool = field(default=False)

    vision_tower: str | None = field(default=None)
    vision_tower_pretrained: str | None = field(default=None)
    mm_vision_select_layer: int | None = field(default=-1)
    mm_vision_select_feature: str | None = field(default="patch")
    pretrain_mm_mlp_adapter: str | None = field(default=None)
    mm_projector_type: str | None = field(default="linear")
    mm_patch_merge_type: str | None = field(default="flat")
    mm_use_im_start_end: bool = field(default=False)
    mm_use_im_patch_token: bool = field(default=True)
    mm_newline_position: str | None = field(default="grid")
    s2: bool | None = field(default=False)
    s2_scales: str | None = field(default="336,672,1008")
    delay_load: bool | None = field(default=True)

    mm_resampler_type: str | None = field(default=None)
    mm_mask_drop_mode: str = field(default="fixed")
    mm_mask_drop_skip_percentage: float = field(default=0.0)
    mm_mask_drop_ratio: float = field(default=0.25)
    mm_mask_drop_ratio_upper: float | None = field(default=None)
    mm_mask_drop_ratio_lower: float | None = field(default=None)
    mm_spatial_pool_stride: int | None = field(default=None)
    mm_spatial_pool_mode: str = field(default="bilinear")
    mm_spatial_pool_out_channels: int | None = field(default=None)
    mm_perceiver_depth: int | None = field(default=3)
    mm_perceiver_latents: int | None = field(default=32)
    mm_perceiver_ff_mult: float | None = field(default=4)
    mm_perceiver_pretrained: str | None = field(default=None)
    mm_qformer_depth: int | None = field(default=3)
    mm_qformer_latents: int | None = field(default=32)
    mm_qformer_pretrained: str | None = field(default=None)

    rope_scaling_factor: float | None = field(default=None)
    rope_scaling_type: str | None = field(default=None)
    use_pos_skipping: bool | None = field(default=False)
    pos_skipping_range: int | None = field(default=4096)
    add_faster_video: bool | None = field(default=False)
    faster_token_stride: int | None = field(default=10)


@dataclass
class DataArguments:
    """The samples, and how their images are cut."""

    data_path: str = field(default=None, metadata={"help": "a .json or .yaml file, or /path/to/{a,b,c}.json"})  # type: ignore[assignment]
    eval_data_path: str | None = field(default=None, metadata={"help": "samples to evaluate on; not in the original"})
    lazy_preprocess: bool = False
    is_multimodal: bool = False
    early_mix_text: bool = False
    image_folder: str | None = field(default=None)
    image_aspect_ratio: str = "square"
    image_grid_pinpoints: str | None = field(default=None)
    image_crop_resolution: int | None = field(default=None)
    image_split_resolution: int | None = field(default=None)

    video_folder: str | None = field(default=None)
    video_fps: int | None = field(default=1)
    frames_upbound: int | None = field(default=0)
    add_time_instruction: bool | None = field(default=False)
    force_sample: bool | None = field(default=False)


@dataclass
class TrainingArguments(OlderArguments, LlavaTrainingArguments):
    """Transformers' training arguments, those that it no longer has, and LLaVA's own."""

    report_to: list[str] | None = field(default=None)
    model_max_length: int = field(default=512, metadata={"help": "of a sample in positions; LLaVA-NeXT's is 4096"})
    gradient_checkpointing: bool = field(default=False, metadata={"help": "LLaVA-NeXT's default is True"})
    attn_implementation: str = field(default="flash_attention_2")
    trainer_mode: str = field(default="regular")
    zo_eps: float = field(default=1e-3)
    zo_num_directions: int = field(default=1)
    enable_ring_attention: bool = field(default=False)

    def __post_init__(self) -> None:
        given = {each.name: getattr(self, each.name) for each in fields(OlderArguments)}
        values, notices = modernize(given)
        for notice in notices:
            warnings.warn(notice, Notice, stacklevel=3)
        for name, value in values.items():
            setattr(self, name, value)
        if (newer := REMOVED_OPTIMIZERS.get(self.optim)) is not None:
            warnings.warn(f"--optim {self.optim} is {newer} now.", Notice, stacklevel=3)
            self.optim = newer
        self.report_to = self.report_to or []
        super().__post_init__()


NEXT_DEFAULTS: dict[str, Any] = {"model_max_length": 4096, "gradient_checkpointing": True}

_FLAGS_OF_BOTH = frozenset(
    """
    model_name_or_path version freeze_backbone tune_mm_mlp_adapter vision_tower mm_vision_select_layer
    pretrain_mm_mlp_adapter mm_projector_type mm_use_im_start_end mm_use_im_patch_token mm_patch_merge_type
    mm_vision_select_feature data_path lazy_preprocess is_multimodal image_folder image_aspect_ratio cache_dir optim
    remove_unused_columns report_to freeze_mm_mlp_adapter mpt_attn_impl model_max_length double_quant quant_type bits
    lora_enable lora_r lora_alpha lora_dropout lora_weight_path lora_bias mm_projector_lr group_by_modality_length
    auto_find_batch_size gradient_checkpointing eval_data_path
    """.split()
)

_ALL_FLAGS = frozenset(
    each.name for kind in (ModelArguments, DataArguments, TrainingArguments) for each in fields(kind) if each.init
)
_FLAGS_OF_TRANSFORMERS = frozenset(each.name for each in fields(transformers.TrainingArguments)) | OLD_NAMES

# The flags that only LLaVA-NeXT has, by which its command lines are recognized.
NEXT_FLAGS = _ALL_FLAGS - _FLAGS_OF_BOTH - _FLAGS_OF_TRANSFORMERS
