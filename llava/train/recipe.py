"""A recipe: one YAML file that says which model is trained, in which stages, on what, by whom and how long.

Every key is checked; an unknown one is an error that names it. A stage's keys can be read on one screen in
recipes/default.yaml, which made the embedded default model.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml

from llava.errors import UsageError

T = TypeVar("T")
STAGE_KINDS = ("tower", "oracle", "align", "instruct")
TRAINABLE_PARTS = ("tower", "projector", "language_model")


@dataclass(frozen=True)
class TowerShape:
    """A CLIP vision transformer: widths and counts as CLIPVisionConfig names them."""

    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int


@dataclass(frozen=True)
class DecoderShape:
    """A Llama decoder."""

    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    intermediate_size: int
    context_tokens: int = 2048
    rope_theta: float = 10000.0


@dataclass(frozen=True)
class ModelShape:
    """A LLaVA-NeXT model built from nothing."""

    tile_px: int
    patch_px: int
    pinpoints: tuple[tuple[int, int], ...]  # (width, height) in pixels, as the released configs write them
    tower: TowerShape
    decoder: DecoderShape
    template: str = "vicuna_v1"


@dataclass(frozen=True)
class DataSource:
    """Where a stage's samples come from: drawn pictures (``kinds``), or LLaVA's JSON with an image folder."""

    kinds: dict[str, float] = field(default_factory=dict)
    sizes: tuple[tuple[int, int, int, int], ...] = ()
    spoil: float = 0.5
    turns: int = 4
    caption_rate: float = 0.5
    templates: tuple[str, ...] = ()
    json: str = ""
    images: str = ""


@dataclass(frozen=True)
class Stage:
    """One training run. ``start`` names earlier stages whose parts it takes over (later ones win).

    ``patch_loss``: weight of the tower's warm-up task beside the answers (drawn pictures only; 0 is none).
    ``learnt_share``: of what was learnt, in the weights that are saved; the rest is what the stage began with. The mean
    of two models of one descent is often better than both.
    ``answer_power``: a token of an answer of n tokens weighs n ** -answer_power; 0 is the original's plain mean.
    """

    name: str
    kind: str
    steps: int
    batch_size: int
    lr: float
    data: DataSource
    start: tuple[str, ...] = ()
    train: tuple[str, ...] = ("projector", "language_model")
    aspect: str = "anyres"
    patch_loss: float = 0.0
    answer_power: float = 0.0
    learnt_share: float = 1.0
    optimizer: str = "adamw"
    weight_decay: float = 0.0
    lr_scales: dict[str, float] = field(default_factory=dict)
    schedule: str = "cosine"
    warmup: float = 0.03
    seed: int = 0
    max_grad_norm: float = 1.0
    save_steps: int = 500
    log_steps: int = 50


@dataclass(frozen=True)
class Recipe:
    """All stages of one model."""

    name: str
    model: ModelShape
    stages: tuple[Stage, ...]

    def stage(self, name: str) -> Stage:
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise UsageError(
            f"The recipe '{self.name}' has no stage '{name}'; it has {', '.join(s.name for s in self.stages)}."
        )


def _build(kind: type[T], values: Any, where: str) -> T:
    if not isinstance(values, dict):
        raise UsageError(f"{where} must be a mapping, not {type(values).__name__}.")
    known = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise UsageError(f"{where} has the unknown key '{unknown[0]}'; known are {', '.join(known)}.")
    missing = [
        name
        for name, f in known.items()
        if name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UsageError(f"{where} lacks the key '{missing[0]}'.")
    nested = {"tower": TowerShape, "decoder": DecoderShape, "data": DataSource, "model": ModelShape}
    built: dict[str, Any] = {}
    for name, value in values.items():
        if name in nested and kind in (ModelShape, Stage, Recipe) and isinstance(value, dict):
            value = _build(nested[name], value, f"{where}.{name}")
        elif name == "stages":
            value = tuple(_build(Stage, item, f"{where}.stages[{i}]") for i, item in enumerate(value))
        elif isinstance(value, list):
            value = tuple(tuple(item) if isinstance(item, list) else item for item in value)
        built[name] = value
    return kind(**built)


def _check(recipe: Recipe) -> None:
    names: list[str] = []
    for stage in recipe.stages:
        where = f"Stage '{stage.name}'"
        if stage.kind not in STAGE_KINDS:
            raise UsageError(f"{where} is of the unknown kind '{stage.kind}'; known are {', '.join(STAGE_KINDS)}.")
        for part in stage.train:
            if part not in TRAINABLE_PARTS:
                raise UsageError(f"{where} trains the unknown part '{part}'; known are {', '.join(TRAINABLE_PARTS)}.")
        for earlier in stage.start:
            if earlier not in names:
                raise UsageError(f"{where} starts from '{earlier}', which is no earlier stage.")
        if bool(stage.data.json) == bool(stage.data.kinds):
            raise UsageError(f"{where} needs either data.kinds (drawn pictures) or data.json, and not both.")
        if not 0 < stage.learnt_share <= 1:
            raise UsageError(f"{where}: learnt_share is {stage.learnt_share} and must be above 0 and at most 1.")
        for key in ("steps", "batch_size", "lr"):
            if getattr(stage, key) <= 0:
                raise UsageError(f"{where}: {key} is {getattr(stage, key)} and must be above 0.")
        names.append(stage.name)


def load_recipe(path: str | Path) -> Recipe:
    """The recipe in a YAML file, or the one of that name that ships with the package."""
    file = Path(path)
    if not file.exists() and "/" not in str(path) and not str(path).endswith((".yaml", ".yml")):
        shipped = resources.files("llava.train").joinpath("recipes", f"{path}.yaml")
        if not shipped.is_file():
            folder = resources.files("llava.train").joinpath("recipes")
            names = sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))
            raise UsageError(f"There is no recipe '{path}': name a YAML file or one of {', '.join(names)}.")
        text = shipped.read_text(encoding="utf-8")
    elif file.is_file():
        text = file.read_text(encoding="utf-8")
    else:
        raise UsageError(f"The recipe file '{path}' does not exist.")
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"The recipe '{path}' is not valid YAML: {str(error).splitlines()[0]}.") from error
    recipe = _build(Recipe, values, "The recipe")
    _check(recipe)
    return recipe
