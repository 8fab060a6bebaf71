"""The command lines of LLaVA-NeXT's gold runs, ``{work}`` being the folder that ``next_inputs.write_everything`` fills.

The flags are those of the published scripts (scripts/train/pretrain_clip.sh, finetune_clip.sh, finetune_ov.sh), with
rates and sizes for the tiny model, in float32 on a CPU. Used by make_next.py and by our tests.
"""

from __future__ import annotations

from tests.gold.training.next_inputs import PINPOINTS

Flags = dict[str, str]

ALL_PARTS = "mm_vision_tower,mm_mlp_adapter,mm_language_model"
SHARED: Flags = {
    "model_name_or_path": "{work}/llama",
    "version": "v1",
    "data_path": "{work}/mix.json",
    "image_folder": "{work}/images",
    "vision_tower": "{work}/tower",
    "mm_projector_type": "mlp2x_gelu",
    "mm_vision_select_layer": "-2",
    "mm_use_im_start_end": "False",
    "mm_use_im_patch_token": "False",
    "bf16": "False",
    "num_train_epochs": "1",
    "per_device_train_batch_size": "4",
    "per_device_eval_batch_size": "4",
    "gradient_accumulation_steps": "1",
    "evaluation_strategy": "no",
    "save_strategy": "steps",
    "save_steps": "6",
    "save_total_limit": "1",
    "learning_rate": "2e-3",
    "weight_decay": "0.",
    "warmup_ratio": "0.03",
    "lr_scheduler_type": "cosine",
    "logging_steps": "1",
    "model_max_length": "256",
    "gradient_checkpointing": "True",
    "dataloader_num_workers": "0",
    "lazy_preprocess": "True",
    "report_to": "none",
    "use_cpu": "True",
    "attn_implementation": "sdpa",
    "dataloader_drop_last": "True",
}
STAGE_1 = SHARED | {
    "version": "plain",
    "data_path": "{work}/captions.json",
    "pretrain_mm_mlp_adapter": "{work}/projector.bin",  # the start: a new projector would be random
    "mm_tunable_parts": "mm_mlp_adapter",
    "learning_rate": "1e-2",
}
ANYRES = SHARED | {
    "pretrain_mm_mlp_adapter": "{work}/projector.bin",
    "mm_tunable_parts": ALL_PARTS,
    "mm_vision_tower_lr": "2e-4",
    "image_aspect_ratio": "anyres",
    "image_grid_pinpoints": PINPOINTS,
    "mm_patch_merge_type": "spatial_unpad",
    "per_device_train_batch_size": "2",
    "gradient_accumulation_steps": "2",
    "group_by_modality_length": "True",
}
FROZEN = ANYRES | {"mm_tunable_parts": "mm_mlp_adapter,mm_language_model"}
del FROZEN["mm_vision_tower_lr"]
QWEN = ANYRES | {"model_name_or_path": "{work}/qwen", "version": "qwen_1_5"}
CHECKPOINT = ANYRES | {"model_name_or_path": "{work}/llava-next-llama"}
del CHECKPOINT["pretrain_mm_mlp_adapter"]
LARGE = ANYRES | {
    "vision_tower": "{work}/tower-224",
    "data_path": "{work}/large.json",
    "image_grid_pinpoints": "(1x1),...,(3x3)",
    "num_train_epochs": "2",
}
# The traditional flags: with mm_tunable_parts the original of this commit trains the whole language model beside LoRA.
LORA = {name: flag for name, flag in FROZEN.items() if name != "mm_tunable_parts"} | {
    "lora_enable": "True",
    "lora_r": "8",
    "lora_alpha": "16",
    "lora_dropout": "0.0",
    "mm_projector_lr": "2e-3",
    "learning_rate": "1e-2",
}
SMALL_STEPS = {"gradient_accumulation_steps": "1", "per_device_train_batch_size": "4"}

# Runs of 12 updates (where there are enough samples) whose losses, norms, rates and files are gold.
RUNS: dict[str, Flags] = {
    "stage 1": STAGE_1,
    "stage 1, anyres": STAGE_1
    | {"image_aspect_ratio": "anyres", "image_grid_pinpoints": PINPOINTS, "mm_patch_merge_type": "spatial_unpad"},
    "anyres": ANYRES,
    "anyres, weight decay, projector rate": ANYRES | {"weight_decay": "0.1", "mm_projector_lr": "5e-4"},
    "anyres, frozen tower": FROZEN,
    "anyres, mixed batches": FROZEN | SMALL_STEPS | {"group_by_modality_length": "False"},
    "anyres, spatial": FROZEN | {"mm_patch_merge_type": "spatial"},
    "anyres, flat": FROZEN | {"mm_patch_merge_type": "flat"},
    "anyres, cut": FROZEN | {"model_max_length": "100"},
    "anyres, cut to nothing": FROZEN | {"model_max_length": "72"},  # some micro-batches keep no label
    "anyres, grouped auto": FROZEN | {"group_by_modality_length": "False", "group_by_modality_length_auto": "True"},
    "anyres, grouped by varying length": FROZEN | {"group_by_modality_length": "False", "group_by_varlen": "True"},
    "anyres, llava_llama_2": FROZEN | {"version": "llava_llama_2"},
    "checkpoint": CHECKPOINT,
    "checkpoint, pad": CHECKPOINT | {"image_aspect_ratio": "pad"},
    "qwen": QWEN,
    "qwen, mixed batches": QWEN | SMALL_STEPS | {"group_by_modality_length": "False"},
    "qwen, stage 1": STAGE_1 | {"model_name_or_path": "{work}/qwen"},
    "grid of tiles": LARGE,
    "anyres_max_2": LARGE | {"image_aspect_ratio": "anyres_max_2"},
    "anyres_max_9, qwen": LARGE
    | {"image_aspect_ratio": "anyres_max_9", "model_name_or_path": "{work}/qwen", "version": "qwen_1_5"},
    "several images": FROZEN | {"data_path": "{work}/several.json"},
    "several images, qwen, mixed batches": QWEN
    | SMALL_STEPS
    | {"data_path": "{work}/several.json", "group_by_modality_length": "False"},
    "lora": LORA,
    "lora, dropout": LORA | {"lora_dropout": "0.05"},
    "lora, checkpoint": CHECKPOINT | LORA | {"model_name_or_path": "{work}/llava-next-llama"},
    "lora, language model tunable": LORA | {"mm_tunable_parts": "mm_mlp_adapter,mm_language_model"},
    "lora, only the projector tunable": LORA | {"mm_tunable_parts": "mm_mlp_adapter"},  # LoRA stays zero
    "yaml": FROZEN | {"data_path": "{work}/parts.yaml", "save_strategy": "no"},
    "braces": FROZEN | {"data_path": "{work}/part-{a,b}.json", "save_strategy": "no"},
}
for name in ("pretrain_mm_mlp_adapter", "mm_tunable_parts", "mm_vision_tower_lr"):
    RUNS["lora, checkpoint"].pop(name, None)

# These run with the tower left in float32 only: in float16, where the original casts it, its training is not a number.
FLOAT32_ONLY = [name for name, flags in RUNS.items() if "mm_vision_tower" in flags.get("mm_tunable_parts", "")]
# These run a second time so, beside the float16 tower.
FLOAT32_TOO = ["stage 1", "anyres, frozen tower", "anyres, mixed batches", "several images", "lora"]
# These run a second time in float16, to show it.
FLOAT16_TOO = ["anyres", "qwen"]

# Runs whose files are gold.
LISTED = (
    "stage 1", "anyres", "anyres, frozen tower", "checkpoint", "qwen", "qwen, stage 1", "anyres_max_2",
    "lora", "lora, checkpoint", "lora, language model tunable",
    "lora, only the projector tunable", "yaml",
)  # fmt: skip

# Command lines that the original stops with an exception.
FAILS: dict[str, Flags] = {
    "mistral": FROZEN | {"model_name_or_path": "{work}/mistral", "version": "mistral_instruct"},
    "gemma": FROZEN | {"model_name_or_path": "{work}/gemma", "version": "gemma_instruct"},
    "qwen, start and end tokens": QWEN | {"mm_use_im_start_end": "True"},
    "tune_mm_mlp_adapter, start and end tokens": {
        name: flag for name, flag in STAGE_1.items() if name not in ("mm_tunable_parts", "pretrain_mm_mlp_adapter")
    }
    | {"tune_mm_mlp_adapter": "True", "mm_use_im_start_end": "True"},
    "pinpoints of a tower of 42 pixels": FROZEN | {"image_grid_pinpoints": "(1x1),...,(2x2)"},
}

_BOTH_RATES = {"mm_projector_lr": "2e-4", "mm_vision_tower_lr": "2e-5", "weight_decay": "0.1"}
# Command lines of which the optimizer's groups are gold; they stop before the first step.
GROUPS: dict[str, Flags] = {
    **{
        f"{parts}{title}": CHECKPOINT | {"mm_tunable_parts": parts, "weight_decay": "0.1"} | more
        for parts in (
            "mm_mlp_adapter",
            "mm_language_model",
            "mm_vision_tower",
            "mm_mlp_adapter,mm_language_model",
            "mm_vision_tower,mm_mlp_adapter",
            ALL_PARTS,
        )
        for title, more in (("", {}), (", both rates", _BOTH_RATES), (", projector rate", {"mm_projector_lr": "2e-4"}))
    },
    "new projector": ANYRES | _BOTH_RATES,
    "new projector, no rates": {name: flag for name, flag in ANYRES.items() if name != "mm_vision_tower_lr"},
    "no newline": ANYRES | _BOTH_RATES | {"mm_patch_merge_type": "flat"},
    "qwen": QWEN | _BOTH_RATES,
    "stage 1": STAGE_1,
    "tune_mm_mlp_adapter": {name: flag for name, flag in STAGE_1.items() if name != "mm_tunable_parts"}
    | {"tune_mm_mlp_adapter": "True"},
    "traditional": {name: flag for name, flag in FROZEN.items() if name != "mm_tunable_parts"},
    "traditional, unfrozen tower": {name: flag for name, flag in ANYRES.items() if name != "mm_tunable_parts"}
    | {"unfreeze_mm_vision_tower": "True"},
    "traditional, frozen backbone": {name: flag for name, flag in FROZEN.items() if name != "mm_tunable_parts"}
    | {"freeze_backbone": "True"},
    "lora": LORA | {"weight_decay": "0.1"},
    "lora, biases": LORA | {"lora_bias": "all", "weight_decay": "0.1"},
    "lora, one rate": {name: flag for name, flag in LORA.items() if name != "mm_projector_lr"},
    "lora, unfrozen tower": LORA | {"unfreeze_mm_vision_tower": "True", "mm_vision_tower_lr": "2e-5"},
    "lora, checkpoint": RUNS["lora, checkpoint"] | {"weight_decay": "0.1"},
    "lora, language model tunable": LORA | {"mm_tunable_parts": "mm_mlp_adapter,mm_language_model"},
    "lora, all parts tunable": LORA | {"mm_tunable_parts": ALL_PARTS},
}
