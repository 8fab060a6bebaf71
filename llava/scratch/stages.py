"""The recipe of a model that is trained from scratch: the model's shape, and stages of four kinds.

- tower (0a): the vision tower learns to predict what is drawn in every patch.
- oracle (0b): the decoder learns to answer from perfect labels instead of features.
- align (1): the projector learns to reproduce the oracle's features.
- instruct (2): LLaVA's own instruction tuning.

Each kind accepts only the keys that it uses. default.yaml made the embedded default model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from llava.conversation import conv_templates
from llava.errors import UsageError
from llava.synth.scenes import ALL_KINDS, KINDS
from llava.train.recipe import JsonData, Stage, check_answers, check_stages
from llava.train.recipe_file import RecipeFile, read_recipe
from llava.train.typed_values import build, check_word
from llava.yaml_files import name_nearest

ASPECTS = ("pad", "anyres")


@dataclass(frozen=True, kw_only=True)
class TowerShape:
    """A CLIP vision transformer; sizes as in Transformers' CLIPVisionConfig."""

    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int


@dataclass(frozen=True, kw_only=True)
class DecoderShape:
    """A Llama decoder; sizes as in Transformers' LlamaConfig. ``context_tokens``: its longest sequence."""

    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    intermediate_size: int
    context_tokens: int = 2048
    rope_theta: float = 10000.0


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """The shape of a LLaVA-NeXT model.

    Attributes:
        tile_px, patch_px: the sides of a tile and of a patch in pixels; tile_px is a multiple of patch_px.
        pinpoints: the canvases of AnyRes, (width, height) in pixels.
        template: the conversation template, by its name.
    """

    tile_px: int
    patch_px: int
    pinpoints: tuple[tuple[int, int], ...]
    tower: TowerShape
    decoder: DecoderShape
    template: str = "vicuna_v1"


@dataclass(frozen=True, kw_only=True)
class DrawnData:
    """Images that are drawn during training.

    Attributes:
        kinds: kinds of scene, and how often each is drawn relative to the others.
        sizes: ranges (least width, most width, least height, most height) in pixels; each batch uses a random one.
        spoil: how much noise, blur and JPEG artefacts there are, 0 to 1.
    """

    kinds: dict[str, float]
    sizes: tuple[tuple[int, int, int, int], ...]
    spoil: float = 0.5


@dataclass(frozen=True, kw_only=True)
class DrawnConversations(DrawnData):
    """Drawn images with questions and answers.

    Attributes:
        turns: question-answer pairs per image, at least 1.
        caption_rate: the probability, 0 to 1, that one of them asks for a caption.
        templates: conversation templates, one of which is drawn at random for each sample; by default the model's own.
    """

    turns: int = 4
    caption_rate: float = 0.5
    templates: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ScratchStage(Stage):
    """The settings that all kinds of stage share.

    Attributes:
        kind: a key of ``STAGE_KINDS``.
        start: earlier stages from whose weights this one starts; later ones win. Without any, the weights are random.
        aspect: "pad" is LLaVA-1.5's single tile, "anyres" LLaVA-NeXT's grid of tiles.
    """

    kind: str
    data: DrawnData | JsonData
    start: tuple[str, ...] = ()
    aspect: str = "anyres"


@dataclass(frozen=True, kw_only=True)
class TowerStage(ScratchStage):
    """Stage 0a. ``batch_size`` counts tiles."""

    data: DrawnData
    train: ClassVar = ("vision_tower", "heads")


@dataclass(frozen=True, kw_only=True)
class OracleStage(ScratchStage):
    """Stage 0b. ``answer_weighting``: per-answer loss weighting, see ``llava.train.loss``."""

    data: DrawnConversations
    answer_weighting: float = 0.0
    train: ClassVar = ("image_newline", "language_model", "oracle")


@dataclass(frozen=True, kw_only=True)
class AlignStage(ScratchStage):
    """Stage 1. ``batch_size`` counts tiles."""

    data: DrawnData
    train: ClassVar = ("projector",)


@dataclass(frozen=True, kw_only=True)
class InstructStage(ScratchStage):
    """Stage 2.

    Attributes:
        train: the parts that are trained, see ``llava.train.parts``.
        answer_weighting: per-answer loss weighting, see ``llava.train.loss``.
        patch_loss: the weight of the tower's own loss beside that of the answers, for drawn images only; 0 is none.
    """

    data: DrawnConversations | JsonData
    train: tuple[str, ...] = ("projector", "image_newline", "language_model")
    answer_weighting: float = 0.0
    patch_loss: float = 0.0


STAGE_KINDS: dict[str, type[ScratchStage]] = {
    "tower": TowerStage,
    "oracle": OracleStage,
    "align": AlignStage,
    "instruct": InstructStage,
}


@dataclass(frozen=True, kw_only=True)
class ScratchRecipe:
    """All stages of one model."""

    name: str
    model: ModelShape
    stages: tuple[Any, ...]


def load_scratch_recipe(path: str) -> ScratchRecipe:
    """The recipe in that file, or of that name, checked. Raises UsageError."""
    return parse_scratch_recipe(read_recipe(path))


def parse_scratch_recipe(file: RecipeFile) -> ScratchRecipe:
    """The checked recipe in a file's values. Raises UsageError, which names the key."""
    stages = file.values.get("stages")
    # A stage's keys depend on its kind, so the stages are built one by one.
    values = {**file.values, "stages": []} if isinstance(stages, list) else file.values
    recipe = build(ScratchRecipe, values, "The recipe")
    assert isinstance(stages, list)
    built = tuple(_build_stage(item, f"The recipe: stages[{i}]") for i, item in enumerate(stages))
    recipe = replace(recipe, stages=built)
    _check_shape(recipe.model)
    check_stages(recipe.name, recipe.stages)
    names: list[str] = []
    for stage in recipe.stages:
        _check_stage(stage, names)
        names.append(stage.name)
    return recipe


def _build_stage(values: Any, where: str) -> ScratchStage:
    if not isinstance(values, dict) or "kind" not in values:
        raise UsageError(f"{where} lacks the key 'kind': one of {', '.join(STAGE_KINDS)}.")
    where = f"Stage '{values.get('name', where)}'"
    check_word(str(values["kind"]), STAGE_KINDS, f"{where}: there is no kind")
    return build(STAGE_KINDS[values["kind"]], values, where)


def _check_shape(shape: ModelShape) -> None:
    if shape.patch_px < 1 or shape.tile_px < 1 or shape.tile_px % shape.patch_px:
        raise UsageError(
            f"The model's tile_px is {shape.tile_px} and must be a multiple of patch_px, {shape.patch_px}."
        )
    for name, part in (("tower", shape.tower), ("decoder", shape.decoder)):
        for key, value in vars(part).items():
            if value < 1:
                raise UsageError(f"The model's {name}.{key} is {value} and must be at least 1.")
        if part.hidden_size % part.heads:
            raise UsageError(
                f"The model's {name}.hidden_size is {part.hidden_size} and must be a multiple of heads, {part.heads}."
            )
    if shape.decoder.heads % shape.decoder.kv_heads:
        raise UsageError(
            f"The model's decoder.heads is {shape.decoder.heads} and must be a multiple of its kv_heads, "
            f"{shape.decoder.kv_heads}."
        )
    check_word(shape.template, conv_templates, "The model: there is no template")


def _check_stage(stage: ScratchStage, earlier: list[str]) -> None:
    where = f"Stage '{stage.name}'"
    if stage.steps < 1:
        raise UsageError(f"{where}: steps is {stage.steps} and must be above 0.")
    check_word(stage.aspect, ASPECTS, f"{where}: there is no aspect")
    for name in stage.start:
        if name not in earlier:
            known = name_nearest(name, earlier) if earlier else ""
            raise UsageError(f"{where} starts from '{name}', which is not an earlier stage.{known}")
    data = stage.data
    if isinstance(data, DrawnData):
        _check_drawn(data, where)
    if isinstance(stage, OracleStage | InstructStage):
        check_answers(stage.train, stage.answer_weighting, stage.data.templates, where)
    if isinstance(stage, InstructStage):
        if stage.patch_loss < 0:
            raise UsageError(f"{where}: patch_loss is {stage.patch_loss} and must not be negative.")
        if stage.patch_loss and isinstance(data, JsonData):
            raise UsageError(f"{where} asks for patch_loss, which only drawn images allow (data.kinds).")


def _check_drawn(data: DrawnData, where: str) -> None:
    for kind, weight in data.kinds.items():
        # A conversation needs a kind of scene that has questions.
        known = KINDS if isinstance(data, DrawnConversations) else ALL_KINDS
        check_word(kind, known, f"{where}: data.kinds names the unknown kind of scene")
        if weight < 0:
            raise UsageError(f"{where}: data.kinds.{kind} is {weight} and must not be negative.")
    if not sum(data.kinds.values()) > 0:
        raise UsageError(f"{where}: data.kinds has no kind of scene with a weight above 0.")
    if not data.sizes:
        raise UsageError(f"{where}: data.sizes is empty.")
    for narrow, wide, low, high in data.sizes:
        if not (0 < narrow <= wide and 0 < low <= high):
            raise UsageError(
                f"{where}: data.sizes has {[narrow, wide, low, high]}; it must be least width, most width, least "
                "height, most height in pixels, from 1 on and in this order."
            )
    if not 0 <= data.spoil <= 1:
        raise UsageError(f"{where}: data.spoil is {data.spoil} and must be from 0 to 1.")
    if isinstance(data, DrawnConversations):
        if data.turns < 1:
            raise UsageError(f"{where}: data.turns is {data.turns} and must be at least 1.")
        if not 0 <= data.caption_rate <= 1:
            raise UsageError(f"{where}: data.caption_rate is {data.caption_rate} and must be from 0 to 1.")
