"""Flags of the original's training command that have no effect here, and those that ask for what is not supported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_NO_RESAMPLER = "there is no resampler"
_NO_VIDEO = "no video is read, and a sample with one is refused"

# What is said when such a flag is given with another value than its default.
WITHOUT_EFFECT: dict[str, str] = {
    "model_class_name": "the checkpoint's config.json says which class it is",
    "vision_tower_pretrained": "it belongs to towers that are not supported",
    "unfreeze_language_model": "the original does not read it; mm_tunable_parts says what is trained",
    "delay_load": "a tower's weights are read once, with the others",
    "s2_scales": "it needs s2",
    "pos_skipping_range": "it needs use_pos_skipping",
    "mm_newline_position": "it belongs to videos; an image's rows end with the newline vector",
    "mm_spatial_pool_stride": "it pools the frames of videos",
    "mm_spatial_pool_mode": "it pools the frames of videos",
    "mm_spatial_pool_out_channels": "it pools the frames of videos",
    "faster_token_stride": "it belongs to videos",
    "mm_mask_drop_mode": _NO_RESAMPLER,
    "mm_mask_drop_skip_percentage": _NO_RESAMPLER,
    "mm_mask_drop_ratio": _NO_RESAMPLER,
    "mm_mask_drop_ratio_upper": _NO_RESAMPLER,
    "mm_mask_drop_ratio_lower": _NO_RESAMPLER,
    "mm_perceiver_depth": _NO_RESAMPLER,
    "mm_perceiver_latents": _NO_RESAMPLER,
    "mm_perceiver_ff_mult": _NO_RESAMPLER,
    "mm_perceiver_pretrained": _NO_RESAMPLER,
    "mm_qformer_depth": _NO_RESAMPLER,
    "mm_qformer_latents": _NO_RESAMPLER,
    "mm_qformer_pretrained": _NO_RESAMPLER,
    "freeze_mm_vision_resampler": _NO_RESAMPLER,
    "lazy_preprocess": "samples are always prepared when they are drawn",
    "is_multimodal": "it follows from the model",
    "image_crop_resolution": "it belongs to image_aspect_ratio crop_split and highres, which are not supported",
    "image_split_resolution": "it belongs to image_aspect_ratio crop_split and highres, which are not supported",
    "video_folder": _NO_VIDEO,
    "video_fps": _NO_VIDEO,
    "frames_upbound": _NO_VIDEO,
    "cache_dir": "the hub's cache is chosen with the environment variable HF_HUB_CACHE",
    "mpt_attn_impl": "MPT is not supported",
    "verbose_logging": "the run's settings are always printed",
    "attn_implementation": "the fastest attention that is installed is used",
    "zo_eps": "it needs trainer_mode zo",
    "zo_num_directions": "it needs trainer_mode zo",
    "remove_unused_columns": "samples have no columns to remove",
    "do_train": "this command always trains",
    "do_eval": "eval_strategy says when",
    "do_predict": "this command only trains",
}

_VIDEO = "it asks for video, which is not supported"
_RESAMPLER = "no released LLaVA has a resampler, and none is supported"

# Flag -> (whether its value asks for something, why that is refused).
_REFUSED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "mm_resampler_type": (lambda value: value is not None, _RESAMPLER),
    "tune_mm_vision_resampler": (bool, _RESAMPLER),
    "s2": (bool, "towers of several scales (S2) are not supported"),
    "rope_scaling_factor": (lambda value: value is not None, "set rope_scaling in the checkpoint's config.json"),
    "rope_scaling_type": (lambda value: value is not None, "set rope_scaling in the checkpoint's config.json"),
    "use_pos_skipping": (bool, "skipped positions are not supported"),
    "add_faster_video": (bool, _VIDEO),
    "add_time_instruction": (bool, _VIDEO),
    "force_sample": (bool, _VIDEO),
    "trainer_mode": (lambda value: value != "regular", "the only trainer mode is regular"),
    "enable_ring_attention": (bool, "ring attention is not supported"),
}
REFUSED = frozenset(_REFUSED)


def find_refusal(values: Mapping[str, Any]) -> str | None:
    """A sentence about the first flag whose value asks for something that is not supported."""
    for name, value in values.items():
        if name in _REFUSED and _REFUSED[name][0](value):
            return f"--{name} {value} is refused: {_REFUSED[name][1]}."
    return None
