"""What a recipe says: what is trained, on what data, at which rates and for how long, and how it is spread on devices.

A recipe with ``start:`` trains a checkpoint, or a language model that becomes a LLaVA by ``vision:``; this module
defines it. Its top-level keys are those of a ``TuningStage``. With ``stages:``, a list, they are what all stages share,
and each stage starts from the one before. A recipe with ``model:`` (a shape) trains a model from scratch and is defined
in ``llava.scratch.stages``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llava.conversation import conv_templates
from llava.errors import UsageError
from llava.train.recipe_file import RecipeFile, read_recipe
from llava.train.typed_values import build, check_word, list_keys
from llava.yaml_files import name_nearest

_OPTIMIZERS = ("adamw", "muon")
_SCHEDULES = (
    *("linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt"),
    *("reduce_lr_on_plateau", "cosine_with_min_lr", "warmup_stable_decay"),
)
_GROUPINGS = ("none", "length", "modality", "modality_auto", "variable_length")
_PRECISIONS = ("auto", "bfloat16", "float16", "float32")
_SHARDINGS = ("none", "fsdp")
_ORIGINALS = ("", "llava-1.5", "llava-next")
_TOO_LONG = ("cut", "skip", "error")
_PUNCTUATION = str.maketrans("", "", ".-_")
# Names in a run's folder that are not stages.
_RESERVED = ("model", "tokenizer")


@dataclass(frozen=True, kw_only=True)
class JsonData:
    """LLaVA's data files, and the folder that their image paths are relative to.

    Attributes:
        json: a file or several: .json (a list of samples), .jsonl, or LLaVA-NeXT's .yaml and ``{a,b}.json``.
        images: the image folder; "" is the working directory.
        templates: conversation templates, one of which is drawn at random for each sample; by default the checkpoint's.
    """

    json: str | tuple[str, ...]
    images: str = ""
    templates: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """The data files."""
        return (self.json,) if isinstance(self.json, str) else self.json


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The settings of every stage: how long it trains, at which rates, with which optimizer.

    Attributes:
        name: also the name of the stage's folder.
        steps: updates of the weights, at least 1.
        batch_size: samples per update and device, at least 1.
        lr: the peak learning rate, above 0.
        lr_scales: factors on it by module, above 0; see ``llava.train.parts``.
        optimizer: "adamw" or "muon".
        weight_decay: of matrices, at least 0; norms, biases and other vectors have none.
        schedule: of the learning rate, by Transformers' name.
        warmup: the share of the steps, 0 to 1, during which the rate rises from 0.
        max_grad_norm: gradients are clipped to this norm, above 0.
        weight_averaging: the share of the stage's starting weights in the weights that are saved, at least 0 and below
            1. With 0.5 the mean of both is saved, and with 0 the trained weights alone.
        seed: at least 0 and below 2**32.
        save_steps, log_steps: steps between two of the Trainer's checkpoints, and between two rows of the log.
    """

    name: str
    steps: int
    batch_size: int
    lr: float
    lr_scales: dict[str, float] = field(default_factory=dict)
    optimizer: str = "adamw"
    weight_decay: float = 0.0
    schedule: str = "cosine"
    warmup: float = 0.03
    max_grad_norm: float = 1.0
    weight_averaging: float = 0.0
    seed: int = 0
    save_steps: int = 500
    log_steps: int = 50


@dataclass(frozen=True, kw_only=True)
class Vision:
    """How images enter the model, by the keys of config.json; None keeps what the checkpoint has.

    A language model becomes a LLaVA by ``mm_vision_tower``. The defaults are then mlp2x_gelu, layer -2, "patch",
    "flat" and "square", those of LLaVA-1.5's pretraining.

    Attributes:
        mm_vision_tower: a CLIP or SigLIP tower's folder or hub id.
        pretrain_mm_mlp_adapter: a projector's weights, such as stage 1's mm_projector.bin.
        image_aspect_ratio: "square", "pad", "anyres", "anyres_max_9" ...
        mm_patch_merge_type: "flat", "spatial", "spatial_unpad" ...
        image_grid_pinpoints: canvases [width, height] in pixels, or text such as "(1x1),...,(6x6)".
        mm_use_im_start_end, mm_use_im_patch_token: whether these tokens are added to the tokenizer.
    """

    mm_vision_tower: str | None = None
    mm_projector_type: str | None = None
    pretrain_mm_mlp_adapter: str | None = None
    mm_vision_select_layer: int | None = None
    mm_vision_select_feature: str | None = None
    mm_patch_merge_type: str | None = None
    image_aspect_ratio: str | None = None
    image_grid_pinpoints: Any = None
    mm_use_im_start_end: bool = False
    mm_use_im_patch_token: bool = False


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Low-rank adapters on the language model's linear layers, by PEFT.

    Attributes:
        rank, alpha, dropout, bias: as in PEFT's LoraConfig; bias is "none", "all" or "lora_only".
        dora: weight-decomposed adapters (DoRA).
        targets: names of linear layers, such as "q_proj"; by default all of the decoder's.
        start: an adapter's folder whose training is continued.
    """

    rank: int = 128
    alpha: float = 256
    dropout: float = 0.05
    bias: str = "none"
    dora: bool = False
    targets: tuple[str, ...] = ()
    start: str | None = None


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """The frozen language model in 4 or 8 bits under LoRA (QLoRA), by bitsandbytes, which needs CUDA."""

    bits: int = 4
    kind: str = "nf4"
    double: bool = True


@dataclass(frozen=True, kw_only=True)
class TuningStage(Stage):
    """Instruction tuning, or the projector's alignment: parts of a LLaVA model are trained on answers.

    Attributes:
        data: the samples; they may also be named on the command line.
        train: the parts that are trained, see ``llava.train.parts``. With ``lora``, "language_model" stands for the
            adapters on it.
        vision: changes to how images enter the model.
        answer_weighting: per-answer loss weighting, see ``llava.train.loss``; 0 is the plain mean over tokens.
        steps, epochs: how long it trains; exactly one of them is above 0.
        batch_size: samples per forward pass and device.
        accumulation: forward passes per update.
        global_batch_size: samples per update over all devices; if it is above 0, ``accumulation`` follows from it.
        max_length: of a sample in positions, images included; 0 is the model's context.
        too_long: what happens to a longer sample: "cut" on the right, as in the original, "skip" (it is counted and
            named), or "error".
        max_skipped: how many samples may be left out because they cannot be trained on (counted and named); the first
            one above it is an error.
        group_by: "none", "length" or "modality" (image and text-only samples never share a batch, and are sorted by
            length), or one of LLaVA-NeXT's "modality_auto" and "variable_length".
        packing: several samples share one row of ``max_length`` positions, each with attention and positions of its
            own; ``batch_size`` then counts rows.
        precision: of the computation; trained weights are kept in float32. "auto" is bfloat16 where it is fast.
        gradient_checkpointing: parts whose activations are computed again in the backward pass, "language_model" or
            "vision_tower".
        cache_features: keep a frozen tower's features in ``features/`` of the run's folder, on at most half of the free
            disk. It pays from the second epoch or run on.
        lora, quantization: None trains the weights themselves.
        sharding: "none" replicates the model on every device (DDP); "fsdp" shards weights, gradients and optimizer
            (FSDP2).
        deepspeed: a DeepSpeed configuration's JSON file; "" does without DeepSpeed.
        compile: compile the model with torch.compile.
        eval_data, held_out, eval_steps: samples to evaluate on, or the share of ``data`` that is held out for it, and
            how often; 0 is at every save.
        save_limit: how many checkpoints are kept; 0 keeps all.
        report_to: "tensorboard", "wandb" ... where they are installed.
        compatible_with: "llava-1.5" or "llava-next": the loss is the mean over micro-batches of their token means, a
            frozen tower runs in float16 without bfloat16, and samples are drawn in that repository's order; "" is the
            better choice in each.
        trainer: further settings by their names in Transformers' TrainingArguments.
    """

    steps: int = 0
    epochs: float = 0.0
    data: JsonData | None = None
    train: tuple[str, ...] = ("projector", "image_newline", "image_adapter", "language_model")
    vision: Vision = Vision()
    answer_weighting: float = 0.0
    accumulation: int = 1
    global_batch_size: int = 0
    max_length: int = 0
    too_long: str = "cut"
    max_skipped: int = 0
    group_by: str = "none"
    packing: bool = False
    precision: str = "auto"
    gradient_checkpointing: tuple[str, ...] = ()
    cache_features: bool = False
    lora: Lora | None = None
    quantization: Quantization | None = None
    sharding: str = "none"
    deepspeed: str = ""
    compile: bool = False
    eval_data: JsonData | None = None
    held_out: float = 0.0
    eval_steps: int = 0
    save_limit: int = 1
    report_to: tuple[str, ...] = ()
    compatible_with: str = ""
    trainer: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Training that starts from a checkpoint or a language model: a folder, a short name or a hub id."""

    name: str
    start: str
    stages: tuple[TuningStage, ...]

    def title(self, stage: Stage) -> str:
        """What a stage is called where no other says which recipe is meant."""
        return self.name if stage.name == self.name else f"{self.name}: {stage.name}"


def load_recipe(path: str | Path) -> Recipe:
    """The checked recipe in that file, which starts from a checkpoint. Raises UsageError, also for the other kind."""
    file = read_recipe(path)
    if file.is_from_scratch:
        raise UsageError(
            f"The recipe '{path}' trains a model from scratch (model:); it has no checkpoint to start from."
        )
    return parse_recipe(file)


def parse_recipe(file: RecipeFile) -> Recipe:
    """The checked recipe in a file's values. Raises UsageError, which names the key."""
    values = _spread_stages(file)
    if isinstance(values["stages"], list):  # each of its own, so that messages name them
        values["stages"] = [build(TuningStage, each, _name_stage(each)) for each in values["stages"]]
    recipe = build(Recipe, values, "The recipe")
    check_stages(recipe.name, recipe.stages)
    for stage in recipe.stages:
        check_tuning(stage, f"Stage '{stage.name}'")
    return recipe


def _name_stage(values: Any) -> str:
    return f"Stage '{values['name']}'" if isinstance(values, dict) and "name" in values else "A stage of the recipe"


def _spread_stages(file: RecipeFile) -> dict[str, Any]:
    """The file's values with a list of stages, each of which has the shared keys that it does not set itself."""
    own = ("name", "start", "stages")
    shared = {key: value for key, value in file.values.items() if key not in own}
    for key in shared:
        if key not in (known := list_keys(TuningStage)):
            raise UsageError(f"The recipe has the unknown key '{key}'.{name_nearest(str(key), [*own, *known])}")
    stages = file.values.get("stages", [{"name": str(file.values.get("name"))}])
    if isinstance(stages, list):
        stages = [{**shared, **stage} if isinstance(stage, dict) else stage for stage in stages]
    return {**{key: file.values[key] for key in own[:2] if key in file.values}, "stages": stages}


def check_stages(recipe_name: str, stages: tuple[Stage, ...]) -> None:
    """Raises UsageError for a stage with a setting out of range, and for names that are invalid or occur twice."""
    if not stages:
        raise UsageError(f"The recipe '{recipe_name}' has no stages.")
    names: set[str] = set()
    for stage in stages:
        where = f"Stage '{stage.name}'"
        if not stage.name.translate(_PUNCTUATION).isalnum() or stage.name in _RESERVED:
            raise UsageError(
                f"{where}: a stage's name is also its folder's; use letters, digits, dots, - and _, and none of "
                f"{', '.join(_RESERVED)}."
            )
        if stage.name in names:
            raise UsageError(f"{where} occurs twice in the recipe; each stage needs a name of its own.")
        names.add(stage.name)
        for key in ("batch_size", "lr", "max_grad_norm", "save_steps", "log_steps"):
            if not getattr(stage, key) > 0:
                raise UsageError(f"{where}: {key} is {getattr(stage, key)} and must be above 0.")
        for key, scale in stage.lr_scales.items():
            if not scale > 0:
                raise UsageError(f"{where}: lr_scales.{key} is {scale} and must be above 0.")
        if not 0 <= stage.weight_averaging < 1:
            raise UsageError(
                f"{where}: weight_averaging is {stage.weight_averaging} and must be at least 0 and below 1."
            )
        if not 0 <= stage.warmup <= 1:
            raise UsageError(f"{where}: warmup is {stage.warmup}; as a share of the steps it must be from 0 to 1.")
        if not 0 <= stage.seed < 2**32:
            raise UsageError(f"{where}: seed is {stage.seed} and must be at least 0 and below 2**32.")
        if stage.weight_decay < 0:
            raise UsageError(f"{where}: weight_decay is {stage.weight_decay} and must not be negative.")
        check_word(stage.optimizer, _OPTIMIZERS, f"{where}: there is no optimizer")
        check_word(stage.schedule, _SCHEDULES, f"{where}: there is no schedule")


def check_tuning(stage: TuningStage, where: str) -> None:
    """Raises UsageError for a wrong setting of a stage that trains a checkpoint, beyond ``check_stages``."""
    if (stage.steps > 0) == (stage.epochs > 0):
        remedy = "Set the one that is not meant to 0, such as epochs=0." if stage.steps > 0 else "Set one of them."
        raise UsageError(
            f"{where} needs either steps or epochs above 0, but has {stage.steps} and {stage.epochs:g}. {remedy}"
        )
    if stage.accumulation < 1:
        raise UsageError(f"{where}: accumulation is {stage.accumulation} and must be at least 1.")
    for key in ("steps", "epochs", "global_batch_size", "max_length", "max_skipped", "eval_steps", "save_limit"):
        if getattr(stage, key) < 0:
            raise UsageError(f"{where}: {key} is {getattr(stage, key)} and must not be negative.")
    if not 0 <= stage.held_out < 1:
        raise UsageError(f"{where}: held_out is {stage.held_out} and must be at least 0 and below 1.")
    for key, known in (
        ("group_by", _GROUPINGS),
        ("precision", _PRECISIONS),
        ("sharding", _SHARDINGS),
        ("too_long", _TOO_LONG),
        ("compatible_with", _ORIGINALS),
    ):
        check_word(getattr(stage, key), known, f"{where}: {key} cannot be")
    if stage.lora is not None and "layers" in stage.train:
        raise UsageError(
            f"{where} trains layers, whose weights are frozen below LoRA layers. Name language_model, which with lora "
            "stands for the LoRA layers, or leave lora out."
        )
    if stage.lora is not None and stage.lora.start is None and "language_model" not in stage.train:
        raise UsageError(
            f"{where} adds LoRA layers (lora) and trains none of them: add language_model to train, or leave lora out."
        )
    check_answers(stage.train, stage.answer_weighting, stage.data.templates if stage.data else (), where)


def check_answers(train: tuple[str, ...], answer_weighting: float, templates: tuple[str, ...], where: str) -> None:
    """Raises UsageError for a wrong setting of any stage that trains on answers."""
    if not train:
        raise UsageError(f"{where}: train is empty, so nothing would be trained.")
    if answer_weighting < 0:
        raise UsageError(f"{where}: answer_weighting is {answer_weighting} and must not be negative.")
    for template in templates:
        check_word(template, conv_templates, f"{where}: there is no template")
