"""The original's flags as a recipe: each ends in the recipe, is reported to have no effect, or is refused by name.

Nothing is decided here that a flag does not say. A checkpoint that is a LLaVA keeps what no flag changes; a language
model that becomes one gets the original's defaults.

Source: haotian-liu/LLaVA@c121f04 and LLaVA-VL/LLaVA-NeXT@df17966, both llava/train/train.py (``train``) and
llava/train/llava_trainer.py.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llava.conversation import conv_templates
from llava.errors import UsageError
from llava.train.original.parsed_flags import Flags
from llava.train.original.renamed_arguments import modernize
from llava.train.original.unused_flags import WITHOUT_EFFECT, find_refusal
from llava.train.recipe import Recipe, parse_recipe
from llava.train.recipe_file import RecipeFile
from llava.train.typed_values import check_word

# The original's name of a part -> ours. The newline vector has no name there and belongs to the language model.
_PARTS: dict[str, tuple[str, ...]] = {
    "mm_vision_tower": ("vision_tower",),
    "mm_mlp_adapter": ("projector",),
    "mm_language_model": ("image_newline", "language_model"),
    "mm_vision_resampler": (),
}

# The recipe's keys of ``vision`` -> flags.
_VISION = {
    "mm_vision_tower": "vision_tower",
    **{
        name: name
        for name in (
            *("pretrain_mm_mlp_adapter", "mm_projector_type", "mm_vision_select_layer", "mm_vision_select_feature"),
            *("mm_patch_merge_type", "image_aspect_ratio", "image_grid_pinpoints"),
            *("mm_use_im_start_end", "mm_use_im_patch_token"),
        )
    },
}

# For these versions the original leaves its default template as it is, and it falls back on it for unknown ones.
_OLD_VERSIONS, _FALLBACK = ("v0", "v0.5"), "vicuna_v1"


@dataclass(frozen=True)
class OriginalRun:
    """What a command line of the original asks for.

    Attributes:
        recipe: with one stage.
        output: the folder that the original writes its checkpoints and its result into.
        workers: processes that prepare samples.
        resume: the checkpoint to continue from, if one is named; otherwise the last one in ``output``.
        log_folder: TensorBoard's folder, if one is named.
        notices: sentences for the user: flags without effect, and defaults that are worth knowing.
    """

    recipe: Recipe
    output: Path
    workers: int
    resume: str | None
    log_folder: str | None
    notices: tuple[str, ...]


def translate(flags: Flags, *, starts_from_llava: bool) -> OriginalRun:
    """The recipe that these flags mean.

    Args:
        starts_from_llava: whether ``--model_name_or_path`` is a LLaVA, and not a language model that becomes one.

    Raises:
        UsageError: a flag asks for what is not supported, or flags contradict each other.
    """
    draft = _Draft(flags, starts_from_llava)
    draft.read_length()
    draft.read_data()
    draft.read_vision()
    draft.read_parts()
    draft.read_rates()
    draft.read_memory()
    draft.read_schedule()
    draft.read_reports()
    output = draft.take("output_dir")
    if output is None:
        raise UsageError("There is no folder for the result: name one with --output_dir.")
    workers, resume = draft.take("dataloader_num_workers"), draft.take_checkpoint()
    log_folder = draft.take("logging_dir", None)
    draft.collect_rest()
    return OriginalRun(
        parse_recipe(RecipeFile({"name": _choose_name(output), **draft.values}, "the command line")),
        Path(output),
        workers,
        resume,
        log_folder,
        tuple(draft.notices),
    )


@dataclass
class _Draft:
    """A recipe's values in the making; ``left`` are the given flags that no key has been made of yet."""

    flags: Flags
    starts_from_llava: bool
    values: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        flags = self.flags
        if (refusal := find_refusal({name: flags.values[name] for name in sorted(flags.given)})) is not None:
            raise UsageError(refusal)
        self.left, notices = modernize({name: flags.values[name] for name in flags.given})
        self.notices += notices

    def take(self, name: str, *default: Any) -> Any:
        """The flag's value, which is its default unless it is given. Each flag is taken once."""
        return self.left.pop(name, *(default or (self.flags.defaults.get(name),)))

    def take_checkpoint(self) -> str | None:
        """The checkpoint that is named to continue from; True and False stand for what is done without the flag."""
        name = self.take("resume_from_checkpoint")
        return None if str(name).lower() in ("true", "false", "none", "") else name

    def is_given(self, name: str) -> bool:
        """Whether the flag is given and not taken yet."""
        return name in self.left

    def read_data(self) -> None:
        """``data``, and the template, which the original keeps for the whole process."""
        path = self.take("data_path")
        if not path:
            raise UsageError("There are no samples to train on: name a file with --data_path.")
        version = self.take("version")
        if version in _OLD_VERSIONS:
            version = _FALLBACK
        elif version not in conv_templates:
            self.notices.append(
                f"--version {version} is no conversation template: {_FALLBACK} is used instead, as in the original. "
                f"The names are: {', '.join(conv_templates)}."
            )
            version = _FALLBACK
        images = self.take("image_folder") or ""
        self.values["start"] = self.take("model_name_or_path")
        self.values["data"] = {"json": path, "images": images, "templates": [version]}
        if (held_out := self.take("eval_data_path")) is not None:
            self.values["eval_data"] = {**self.values["data"], "json": held_out}

    def read_vision(self) -> None:
        """``vision``: how images enter the model."""
        kept = []
        vision: dict[str, Any] = {}
        for key, name in _VISION.items():
            if self.is_given(name) or not self.starts_from_llava:
                value = self.take(name)
                vision[key] = _read_pinpoints(value) if name == "image_grid_pinpoints" else value
            elif name in ("image_aspect_ratio", "mm_patch_merge_type", "mm_vision_select_layer"):
                kept.append(f"--{name}")
        if kept:
            self.notices.append(f"The checkpoint's own settings are kept for {', '.join(kept)}.")
        if not self.starts_from_llava:
            if vision["mm_vision_tower"] is None:
                raise UsageError(
                    f"{self.values['start']} has no vision tower: name one with --vision_tower. Training on text "
                    "alone is not supported."
                )
            if vision["mm_vision_select_layer"] == -1:
                self.notices.append(
                    "The tower's last layer is read (mm_vision_select_layer -1); released LLaVAs read -2."
                )
        self.values["vision"] = vision

    def read_parts(self) -> None:
        """``train``, ``lora`` and ``quantization``: which parts are trained, and how."""
        trained = self._choose_parts()
        lora, bits = self.take("lora_enable"), self.take("bits")
        settings = {
            "rank": self.take("lora_r"),
            "alpha": self.take("lora_alpha"),
            "dropout": self.take("lora_dropout"),
            "bias": self.take("lora_bias"),
            "start": self.take("lora_weight_path") or None,
        }
        if bits not in (4, 8, 16):
            raise UsageError(f"--bits is {bits} and must be 4, 8 or 16.")
        if lora:
            self.values["lora"] = settings
            trained |= {"language_model"}
        elif settings["start"] is not None:
            raise UsageError("--lora_weight_path continues an adapter, which needs --lora_enable True.")
        kind, double = self.take("quant_type"), self.take("double_quant")
        if bits != 16:
            self.values["quantization"] = {"bits": bits, "kind": kind, "double": double}
            if not lora and "language_model" in trained:
                trained -= {"language_model"}
                self.notices.append(f"A language model in {bits} bits is frozen; --lora_enable True trains it.")
        order = ("vision_tower", "projector", "image_newline", "language_model", "lm_head")
        self.values["train"] = [part for part in order if part in trained]
        if not trained:
            raise UsageError("The flags freeze every part of the model, so nothing would be trained.")

    def _choose_parts(self) -> set[str]:
        named, alone = self.take("mm_tunable_parts"), self.take("tune_mm_mlp_adapter")
        without_backbone, without_projector = self.take("freeze_backbone"), self.take("freeze_mm_mlp_adapter")
        with_tower = self.take("unfreeze_mm_vision_tower")
        if named is not None:
            parts: set[str] = set()
            for part in filter(None, map(str.strip, named.split(","))):
                check_word(part, _PARTS, "--mm_tunable_parts has no part")
                parts |= {*_PARTS[part]}
            return parts
        if alone and self.flags.values["lora_enable"]:
            raise UsageError("--tune_mm_mlp_adapter trains the projector alone, so --lora_enable has nothing to adapt.")
        parts = {"projector"} if alone else {"projector", "image_newline", "language_model"}
        has_lora = self.flags.values["lora_enable"]
        if has_lora and self.starts_from_llava:
            parts -= {"image_newline"}  # PEFT has frozen it; one that is new is made after that
        if without_backbone and not alone:
            # The original freezes the model below its head. A newline vector that is new is made after that.
            parts -= {"language_model", *({"image_newline"} if self.starts_from_llava else ())}
            if not has_lora:
                parts |= {"lm_head"}
                self.notices.append("--freeze_backbone leaves the language model's head trained, as in the original.")
        if without_projector:
            parts -= {"projector"}
        return parts | ({"vision_tower"} if with_tower else set())

    def read_rates(self) -> None:
        """``lr`` and ``lr_scales``, and the optimizer."""
        rate = self.take("learning_rate")
        self.values["lr"] = rate
        scales = {}
        for part, name in (("projector", "mm_projector_lr"), ("vision_tower", "mm_vision_tower_lr")):
            own = self.take(name)
            if own is None:
                continue
            if part not in self.values["train"]:
                self.notices.append(f"--{name} has no effect: the {part.replace('_', ' ')} is not trained.")
            elif not (rate > 0 and own > 0):
                raise UsageError(f"--{name} is {own} and --learning_rate {rate}; both must be above 0.")
            else:
                scales[part] = own / rate
        self.values["lr_scales"] = scales
        for name, key in (("weight_decay", "weight_decay"), ("seed", "seed")):
            self.values[key] = self.take(name)
        if (norm := self.take("max_grad_norm")) > 0:
            self.values["max_grad_norm"] = norm
        else:
            self.trainer["max_grad_norm"] = norm  # 0 does not clip
        if (optimizer := self.take("optim")) != "adamw_torch":
            self.trainer["optim"] = optimizer

    def read_length(self) -> None:
        """How long is trained, on how many samples at once, and how long one may be."""
        steps, epochs = self.take("max_steps"), self.take("num_train_epochs")
        self.values |= {"steps": steps} if steps > 0 else {"epochs": epochs}
        self.values |= {
            "batch_size": self.take("per_device_train_batch_size"),
            "accumulation": self.take("gradient_accumulation_steps"),
            "max_length": self._take_length(),
            "group_by": self._choose_grouping(),
            "compatible_with": self.flags.repository,
        }

    def _take_length(self) -> int:
        length: int = self._take_default("model_max_length")
        if length < 1:
            raise UsageError(f"--model_max_length is {length} and must be at least 1.")
        return length

    def _take_default(self, name: str) -> Any:
        """The value of a flag whose default differs between the repositories; the user is told which one applies."""
        if not self.is_given(name):
            value = self.flags.defaults[name]
            whose = "LLaVA-NeXT's" if self.flags.repository == "llava-next" else "LLaVA-1.5's"
            self.notices.append(f"--{name} is not given and is {value}, {whose} default.")
        return self.take(name)

    def _choose_grouping(self) -> str:
        by_length = self.take("train_sampling_strategy") == "group_by_length"
        by_modality, mixed = self.take("group_by_modality_length"), self.take("early_mix_text")
        automatic, variable = self.take("group_by_modality_length_auto"), self.take("group_by_varlen")
        if mixed and not (by_modality or automatic):
            self.notices.append("--early_mix_text has no effect without --group_by_modality_length.")
        if by_length and by_modality and self.flags.repository == "llava-1.5":
            return "modality"
        if by_length or ((by_modality or automatic) and mixed):
            return "length"
        if by_modality:
            return "modality"
        return "modality_auto" if automatic else "variable_length" if variable else "none"

    def read_memory(self) -> None:
        """Precision, recomputed activations, and how the model is spread on devices."""
        half, brain = self.take("fp16"), self.take("bf16")
        if half and brain:
            raise UsageError("--fp16 and --bf16 exclude each other.")
        self.values["precision"] = "bfloat16" if brain else "float16" if half else "float32"
        recompute = self._take_default("gradient_checkpointing")
        if (newer := self.take("activation_checkpointing")) is not None:
            recompute = newer
        parts = ["language_model", *(["vision_tower"] if "vision_tower" in self.values["train"] else [])]
        self.values["gradient_checkpointing"] = parts if recompute else []
        self.values["deepspeed"] = self.take("deepspeed") or ""
        self.values["compile"] = self.take("torch_compile")
        if kinds := self.take("fsdp"):
            self.values["sharding"] = "fsdp"
            self.trainer["fsdp"] = kinds

    def read_schedule(self) -> None:
        """The learning rate's schedule, and when the run saves, logs and evaluates."""
        self.values["schedule"] = str(self.take("lr_scheduler_type"))
        warmup = self.take("warmup_steps")
        self.values["warmup"] = warmup if warmup < 1 else 0.0
        if warmup >= 1:
            self.trainer["warmup_steps"] = warmup
        for name, key in (("save_steps", "save_steps"), ("logging_steps", "log_steps")):
            num = self.take(name)
            if num >= 1:
                self.values[key] = int(num)
            else:
                self.trainer[name] = num  # a share of all steps
        limit = self.take("save_total_limit")
        self.values["save_limit"] = limit or 0
        strategy, steps = str(self.take("eval_strategy")), self.take("eval_steps")
        if "eval_data" not in self.values:
            if strategy != "no":
                raise UsageError(
                    f"--eval_strategy {strategy} (formerly --evaluation_strategy) needs samples to evaluate on: name a "
                    "file with --eval_data_path."
                )
        elif strategy == "steps" and steps is not None and steps >= 1:
            self.values["eval_steps"] = int(steps)
        elif strategy == "no":
            self.notices.append("The samples of --eval_data_path are evaluated at every save.")
        else:
            self.trainer |= {"eval_strategy": strategy} | ({"eval_steps": steps} if steps is not None else {})

    def read_reports(self) -> None:
        """Where the log goes besides the terminal."""
        names = self.take("report_to") or []
        names = [names] if isinstance(names, str) else list(names)
        self.values["report_to"] = [name for name in names if name != "none"]

    def collect_rest(self) -> None:
        """``trainer``: every other training argument; for flags without effect, a notice."""
        for name in sorted(self.left):
            value = self.left[name]
            if name in WITHOUT_EFFECT:
                if value != self.flags.defaults.get(name):
                    self.notices.append(f"--{name} has no effect: {WITHOUT_EFFECT[name]}.")
            elif name in self.flags.names[2]:
                self.trainer[name] = value
        self.values["trainer"] = self.trainer


def _choose_name(output: str) -> str:
    """The last part of the folder's name, where that can be a recipe's name."""
    name = re.sub(r"[^0-9A-Za-z._-]+", "-", Path(output).name).strip("-_.")
    return name if name not in ("", "model", "tokenizer") else "run"


def _read_pinpoints(text: str | None) -> Any:
    """The canvases in ``[(336, 672), ...]``; text such as ``(1x1),...,(6x6)`` is left as it is. Raises UsageError."""
    if text is None or "x" in text:
        return text
    try:
        pinpoints = ast.literal_eval(text)
        return [[int(width), int(height)] for width, height in pinpoints]
    except (ValueError, TypeError, SyntaxError) as error:
        raise UsageError(
            f"--image_grid_pinpoints is {text!r}; it must be canvases such as [(336, 672), (672, 336)], or a range of "
            "grids such as (1x1),...,(6x6)."
        ) from error
