"""The command lines of the gold runs, with ``{work}`` for the folder that ``inputs.write_everything`` fills.

The flags are those of the published scripts (pretrain.sh, finetune.sh, finetune_lora.sh and finetune_task.sh of
scripts/v1_5), with rates and sizes for the tiny model, in float32 on a CPU. Used by make_original.py and by our tests.
"""

from __future__ import annotations

from pathlib import Path

Flags = dict[str, str]

# What the scripts of all stages pass.
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
}
STAGE_1 = SHARED | {
    "version": "plain",
    "data_path": "{work}/captions.json",
    "pretrain_mm_mlp_adapter": "{work}/projector.bin",  # the start: a new projector would be random
    "tune_mm_mlp_adapter": "True",
    "learning_rate": "1e-2",
}
STAGE_2 = SHARED | {
    "pretrain_mm_mlp_adapter": "{work}/projector.bin",
    "image_aspect_ratio": "pad",
    "group_by_modality_length": "True",
    "per_device_train_batch_size": "2",
    "gradient_accumulation_steps": "2",
}
LORA = STAGE_2 | {
    "lora_enable": "True",
    "lora_r": "8",
    "lora_alpha": "16",
    "lora_dropout": "0.0",
    "mm_projector_lr": "2e-3",
    "learning_rate": "1e-2",
}
TASK = STAGE_2 | {"model_name_or_path": "{work}/llava"}
del TASK["pretrain_mm_mlp_adapter"]
TEXTS = {name: flag for name, flag in SHARED.items() if not name.startswith("mm_") and name != "vision_tower"}

# Runs of 12 updates whose losses, norms, rates and files are gold.
RUNS: dict[str, Flags] = {
    "stage 1": STAGE_1,
    "stage 1, linear": STAGE_1
    | {"mm_projector_type": "linear", "pretrain_mm_mlp_adapter": "{work}/projector-linear.bin"},
    "stage 1, last layer with class token": STAGE_1
    | {"mm_vision_select_layer": "-1", "mm_vision_select_feature": "cls_patch"},
    "stage 2": STAGE_2,
    "stage 2, mixed batches, square": STAGE_2
    | {"group_by_modality_length": "False", "image_aspect_ratio": "square", "gradient_accumulation_steps": "1"}
    | {"per_device_train_batch_size": "4"},
    "stage 2, weight decay": STAGE_2 | {"weight_decay": "0.1"},
    "stage 2, projector rate": STAGE_2 | {"mm_projector_lr": "2e-4", "weight_decay": "0.1"},
    "stage 2, cut": STAGE_2 | {"model_max_length": "72"},
    "stage 2, frozen projector": STAGE_2 | {"freeze_mm_mlp_adapter": "True"},
    "stage 2, frozen backbone": STAGE_2 | {"freeze_backbone": "True"},
    "stage 2, no checkpointing, clip 0.1": STAGE_2 | {"gradient_checkpointing": "False", "max_grad_norm": "0.1"},
    "stage 2, linear schedule, seed 7": STAGE_2 | {"lr_scheduler_type": "linear", "seed": "7", "warmup_ratio": "0.25"},
    "stage 2, start and end tokens": TASK | {"mm_use_im_start_end": "True"},
    "stage 2, start and end tokens given": STAGE_2
    | {"mm_use_im_start_end": "True", "pretrain_mm_mlp_adapter": "{work}/projector-marks.bin"},
    "task": TASK,
    "task, version v0": TASK | {"version": "v0"},
    "lora": LORA,
    "lora, dropout": LORA | {"lora_dropout": "0.05"},
    "lora, one rate": {name: flag for name, flag in LORA.items() if name != "mm_projector_lr"},
    "lora, task": TASK
    | {name: LORA[name] for name in LORA if name.startswith("lora_")}
    | {"learning_rate": "1e-2", "mm_projector_lr": "2e-3", "weight_decay": "0.1"},
    "texts only, no tower": TEXTS | {"data_path": "{work}/texts.json"},
    # 27 samples in batches of 2, 4 of them an update, two epochs: neither number divides the other.
    "accumulation with a remainder": STAGE_2
    | {"data_path": "{work}/mix-27.json", "gradient_accumulation_steps": "4", "num_train_epochs": "2"}
    | {"save_steps": "100"},
}
# These run a second time with the tower left in float32, where the original casts it to float16.
FLOAT32_TOWER = ["stage 1", "stage 2", "task", "lora", "stage 2, mixed batches, square"]

# Runs of which only the order of the samples is gold.
ORDERS: dict[str, Flags] = {
    f"{data}, grouped {grouped}, accumulation {accumulation}, seed {seed}": STAGE_1
    | {"version": "v1", "data_path": f"{{work}}/{data}.json", "group_by_modality_length": grouped}
    | {"gradient_accumulation_steps": accumulation, "seed": seed, "num_train_epochs": "2", "save_strategy": "no"}
    | {"per_device_train_batch_size": "2", "gradient_checkpointing": "False"}
    for data in ("mix-27", "images-27")
    for grouped in ("True", "False")
    for accumulation in ("1", "2", "4")
    for seed in ("42", "7")
}

# Command lines of which the optimizer's groups are gold; they stop before the first step.
GROUPS: dict[str, Flags] = {
    "stage 1": STAGE_1,
    "stage 1, weight decay and projector rate": STAGE_1 | {"weight_decay": "0.1", "mm_projector_lr": "2e-4"},
    "stage 1, start and end tokens": TASK | {"tune_mm_mlp_adapter": "True", "mm_use_im_start_end": "True"},
    "stage 1, newline": STAGE_1 | {"mm_patch_merge_type": "spatial_unpad"},
    "stage 2": STAGE_2,
    "stage 2, weight decay": STAGE_2 | {"weight_decay": "0.1"},
    "stage 2, projector rate": STAGE_2 | {"mm_projector_lr": "2e-4", "weight_decay": "0.1"},
    "stage 2, newline": STAGE_2 | {"mm_patch_merge_type": "spatial_unpad", "weight_decay": "0.1"},
    "stage 2, newline, projector rate": STAGE_2
    | {"mm_patch_merge_type": "spatial_unpad", "weight_decay": "0.1", "mm_projector_lr": "2e-4"},
    "stage 2, frozen backbone": STAGE_2 | {"freeze_backbone": "True"},
    "stage 2, frozen projector": STAGE_2 | {"freeze_mm_mlp_adapter": "True", "weight_decay": "0.1"},
    "stage 2, both frozen": STAGE_2 | {"freeze_backbone": "True", "freeze_mm_mlp_adapter": "True"},
    "stage 2, patch token": STAGE_2 | {"mm_use_im_patch_token": "True"},
    "task": TASK | {"weight_decay": "0.1"},
    "task, frozen backbone": TASK | {"freeze_backbone": "True"},
    "lora": LORA | {"weight_decay": "0.1"},
    "lora, one rate": {name: flag for name, flag in LORA.items() if name != "mm_projector_lr"},
    "lora, biases": LORA | {"lora_bias": "all", "weight_decay": "0.1"},
    "lora, frozen projector": LORA | {"freeze_mm_mlp_adapter": "True"},
    "lora, stage 1": LORA | {"tune_mm_mlp_adapter": "True"},
    "lora, task": TASK | {name: LORA[name] for name in LORA if name.startswith("lora_")} | {"weight_decay": "0.1"},
    "texts only, no tower": TEXTS | {"data_path": "{work}/texts.json", "weight_decay": "0.1"},
}


def arguments(flags: Flags, work: Path, output: Path) -> list[str]:
    """``flags`` as argv with their folders filled in, and the output folder."""
    filled = {name: flag.replace("{work}", str(work)) for name, flag in flags.items()} | {"output_dir": str(output)}
    return [word for name, flag in filled.items() for word in (f"--{name}", flag)]
