"""The original's command lines mean recipes: every flag of both is heard, has no effect and says so, or is refused."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from llava.errors import Notice, UsageError
from llava.train.original import renamed_arguments
from llava.train.original.argument_classes import DataArguments, ModelArguments, TrainingArguments
from llava.train.original.flag_translation import OriginalRun, translate
from llava.train.original.parsed_flags import read_flags
from llava.train.original.unused_flags import REFUSED, WITHOUT_EFFECT
from llava.train.recipe import Lora, TuningStage, Vision

GOLD = Path(__file__).parents[1] / "gold/training/script_flags.json"
SCRIPTS: dict[str, Any] = json.loads(GOLD.read_text(encoding="utf-8"))["scripts"]
KINDS = (ModelArguments, DataArguments, TrainingArguments)
REQUIRED = "--model_name_or_path vicuna --vision_tower clip --data_path data.json --output_dir out"


def translate_words(words: list[str], *, starts_from_llava: bool = False) -> OriginalRun:
    return translate(read_flags(words), starts_from_llava=starts_from_llava)


def run_of(text: str, **options: Any) -> OriginalRun:
    return translate_words([*REQUIRED.split(), *text.split()], **options)


def stage_of(text: str, **options: Any) -> TuningStage:
    return run_of(text, **options).recipe.stages[0]


def words_of_script(name: str) -> list[str]:
    """The script's flags, with its variables filled: those that it leaves to its caller by their names."""
    script = SCRIPTS[name]

    def fill(value: str) -> str:
        for _ in range(2):
            value = re.sub(r"\$\{?(\w+)\}?", lambda match: script["variables"].get(match[1], match[1].lower()), value)
        return value

    return [fill(word) for flag in script["flags"].items() for word in flag]


def is_heard(name: str, words: list[str], without: list[str], *, starts_from_llava: bool = False) -> bool:
    """Whether the flag in ``words`` changes what ``without`` means, is said to have no effect, or is refused."""
    try:
        run = translate_words(words, starts_from_llava=starts_from_llava)
    except UsageError as error:
        return name in str(error)
    other = translate_words(without, starts_from_llava=starts_from_llava)
    if any(notice.startswith(f"--{name} has no effect") for notice in run.notices + other.notices):
        return True
    return dataclasses.replace(run, notices=()) != dataclasses.replace(other, notices=())


# ---- The published scripts


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_flag_of_a_published_script_is_heard(name: str) -> None:
    words = words_of_script(name)
    flags = dict(zip(words[::2], words[1::2], strict=True))
    from_llava = "liuhaotian" in flags["--model_name_or_path"]
    assert translate_words(words, starts_from_llava=from_llava).output == Path(flags["--output_dir"])
    for flag, value in flags.items():
        changed = {**flags, flag: change(flag.removeprefix("--"), value)}
        both = [[word for pair in each.items() for word in pair] for each in (changed, flags)]
        assert is_heard(flag.removeprefix("--"), *both, starts_from_llava=from_llava), flag


def change(name: str, value: str) -> str:
    """Another value for the flag."""
    chosen = {
        "version": "llava_v0",
        "evaluation_strategy": "steps",
        "save_strategy": "best",
        "lr_scheduler_type": "linear",
        "mm_tunable_parts": "mm_language_model",
        "bits": "8",
        "image_grid_pinpoints": "(1x1),...,(2x2)",
    }
    if name in chosen:
        return chosen[name]
    if value in ("True", "False"):
        return str(value == "False")
    try:
        return str(int(value) + 1)
    except ValueError:
        return "0.25" if re.fullmatch(r"[\d.]+(e-\d+)?", value) else f"other-{value}"


def test_the_lora_script_of_llava_1_5_is_this_recipe() -> None:
    run = translate_words(words_of_script("LLaVA/scripts/v1_5/finetune_lora.sh"))
    stage = run.recipe.stages[0]
    assert run.recipe.start == "lmsys/vicuna-13b-v1.5"
    assert run.workers == 4
    assert run.output == Path("checkpoints/llava-v1.5-13b-lora")
    assert run.notices == ("--lazy_preprocess has no effect: samples are always prepared when they are drawn.",)
    assert (stage.epochs, stage.steps, stage.batch_size, stage.accumulation) == (1, 0, 16, 1)
    assert (stage.lr, stage.lr_scales, stage.weight_decay) == (2e-4, {"projector": pytest.approx(0.1)}, 0)
    assert (stage.schedule, stage.warmup, stage.max_grad_norm, stage.seed) == ("cosine", 0.03, 1.0, 42)
    assert (stage.max_length, stage.group_by, stage.precision) == (2048, "modality", "bfloat16")
    assert stage.train == ("projector", "image_newline", "language_model")
    assert stage.lora == Lora(rank=128, alpha=256, dropout=0.05)
    assert stage.data is not None
    assert stage.data.templates == ("v1",)
    assert stage.vision == Vision(
        mm_vision_tower="openai/clip-vit-large-patch14-336",
        pretrain_mm_mlp_adapter="./checkpoints/llava-v1.5-13b-pretrain/mm_projector.bin",
        mm_projector_type="mlp2x_gelu",
        mm_vision_select_layer=-2,
        mm_vision_select_feature="patch",
        mm_patch_merge_type="flat",
        image_aspect_ratio="pad",
    )
    assert (stage.save_steps, stage.save_limit, stage.log_steps) == (50000, 1, 1)
    assert (stage.gradient_checkpointing, stage.deepspeed) == (("language_model",), "./scripts/zero3.json")
    assert (stage.report_to, stage.compatible_with) == (("wandb",), "llava-1.5")
    assert stage.trainer == {"per_device_eval_batch_size": 4, "save_strategy": "steps", "tf32": True}


def test_the_anyres_script_of_llava_next_trains_the_tower_at_its_own_rate() -> None:
    stage = translate_words(words_of_script("LLaVA-NeXT/scripts/train/direct_finetune_clip.sh")).recipe.stages[0]
    assert stage.train == ("vision_tower", "projector", "image_newline", "language_model")
    assert stage.lr * stage.lr_scales["vision_tower"] == pytest.approx(2e-6, rel=1e-12)
    assert stage.vision.image_grid_pinpoints == [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
    assert (stage.vision.image_aspect_ratio, stage.vision.mm_patch_merge_type) == ("anyres", "spatial_unpad")
    assert stage.gradient_checkpointing == ("language_model", "vision_tower")
    assert (stage.max_length, stage.compile, stage.compatible_with) == (32768, True, "llava-next")
    assert stage.trainer["torch_compile_backend"] == "inductor"
    assert stage.trainer["dataloader_drop_last"] is True


# ---- Every single flag

# A value that is not the default, for flags whose type does not say which values they have.
VALUES: dict[str, str] = {
    "version": "plain",
    "mm_tunable_parts": "mm_mlp_adapter",
    "image_grid_pinpoints": "[(336, 672)]",
    "bits": "8",
    "lr_scheduler_type": "cosine",
    "optim": "adafactor",
    "trainer_mode": "zo",
    "gradient_checkpointing": "False",
    "activation_checkpointing": "False",
    "mm_mask_drop_ratio": "0.5",
    "train_sampling_strategy": "group_by_length",
    "eval_strategy": "steps",
    "evaluation_strategy": "epoch",
    "save_strategy": "epoch",
    "logging_strategy": "epoch",
    "hub_strategy": "end",
    "log_level": "info",
    "log_level_replica": "info",
    "max_grad_norm": "0.5",
    "save_steps": "7",
    "logging_steps": "7",
    "warmup_ratio": "0.5",
}
# Flags that mean something beside another one.
BESIDE: dict[str, str] = {
    **dict.fromkeys(("lora_r", "lora_alpha", "lora_dropout", "lora_bias", "lora_weight_path"), "--lora_enable True"),
    **dict.fromkeys(("double_quant", "quant_type"), "--bits 4"),
    "early_mix_text": "--group_by_modality_length True",
    "mm_vision_tower_lr": "--unfreeze_mm_vision_tower True",
    "push_to_hub_organization": "--hub_model_id name",
    "eval_steps": "--eval_data_path held_out.json --eval_strategy steps",
    "fsdp_config": "--fsdp full_shard",
}


def list_fields() -> list[str]:
    return [each.name for kind in KINDS for each in dataclasses.fields(kind) if each.init]


@pytest.mark.parametrize("name", list_fields())
def test_every_flag_of_both_repositories_and_of_transformers_is_heard(name: str) -> None:
    # A flag that only LLaVA-NeXT has, so that the one under test does not decide whose flags these are.
    mark = ["--verbose_logging" if name == "zo_eps" else "--zo_eps", "True" if name == "zo_eps" else "1"]
    words = [*REQUIRED.split(), *mark, *BESIDE.get(name, "").split()]
    assert is_heard(name, [*words, f"--{name}", VALUES.get(name) or choose_value(name)], words)


def choose_value(name: str) -> str:
    default = read_flags(REQUIRED.split()).defaults[name]
    kind = next(get_type_hints(kind)[name] for kind in KINDS if name in get_type_hints(kind))
    if isinstance(default, bool) or kind in (bool, bool | None):
        return str(not default)
    if isinstance(default, (int, float)) or "int" in str(kind) or "float" in str(kind):
        return "7" if "float" not in str(kind) else "0.25"
    return "x"


def test_a_flag_is_translated_or_has_no_effect_or_is_refused_but_not_two_of_these() -> None:
    known = set(list_fields())
    assert known >= WITHOUT_EFFECT.keys() | REFUSED | renamed_arguments.WITHOUT_EFFECT.keys()
    assert not WITHOUT_EFFECT.keys() & REFUSED


def test_a_llava_keeps_what_no_flag_changes() -> None:
    run = run_of("--mm_vision_select_feature cls_patch", starts_from_llava=True)
    assert run.recipe.stages[0].vision == Vision(mm_vision_tower="clip", mm_vision_select_feature="cls_patch")
    said = next(notice for notice in run.notices if "own settings are kept" in notice)
    assert all(f"--{name}" in said for name in ("image_aspect_ratio", "mm_patch_merge_type", "mm_vision_select_layer"))


def test_lora_on_a_llava_leaves_its_newline_vector_frozen_and_trains_a_new_one() -> None:
    words = "--lora_enable True --mm_patch_merge_type spatial_unpad"
    assert stage_of(words).train == ("projector", "image_newline", "language_model")
    assert stage_of(words, starts_from_llava=True).train == ("projector", "language_model")
    named = f"{words} --mm_tunable_parts mm_mlp_adapter,mm_language_model"
    assert stage_of(named, starts_from_llava=True).train == ("projector", "image_newline", "language_model")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--lora_enable True --tune_mm_mlp_adapter True", "--lora_enable has nothing to adapt"),
        ("--fp16 True --bf16 True", "--fp16 and --bf16 exclude each other"),
        ("--lora_weight_path adapter", "needs --lora_enable True"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(words: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run_of(words)


@pytest.mark.parametrize("value", ["True", "true", "False", "None"])
def test_resuming_as_such_means_the_last_checkpoint_of_the_folder(value: str) -> None:
    assert run_of(f"--resume_from_checkpoint {value}").resume is None
    assert run_of("--resume_from_checkpoint run/checkpoint-5").resume == "run/checkpoint-5"


def test_optimizers_that_transformers_has_removed_are_those_that_took_their_place() -> None:
    with pytest.warns(Notice, match="--optim adamw_hf is adamw_torch now"):
        assert TrainingArguments(output_dir="out", optim="adamw_hf", use_cpu=True).optim == "adamw_torch"
