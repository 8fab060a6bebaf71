"""A recipe: one YAML file that defines what is trained, in which stages, on what data, at which rates and for how long.

This module reads any recipe: ``build`` fills typed dataclasses from YAML and refuses an unknown key with the nearest
known one. It also defines a recipe with ``start:`` (a checkpoint to train). A recipe with ``model:`` (a shape) trains a
model from scratch and is defined in ``llava.scratch.stages``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from llava.conversation import conv_templates
from llava.errors import UsageError
from llava.yaml_files import name_nearest, parse_mapping, say_kind, say_value

T = TypeVar("T")
# Folders of the package that hold recipes, below ``llava``; a recipe's name is its file's.
_SHIPPED_IN = ("train/recipes", "scratch")
_OPTIMIZERS = ("adamw", "muon")
_SCHEDULES = ("linear", "cosine", "constant", "constant_with_warmup")
# Names in a run's folder that are not stages.
_RESERVED = ("model", "tokenizer")


@dataclass(frozen=True, kw_only=True)
class JsonData:
    """LLaVA's JSON list of samples, and the folder that its image paths are relative to.

    ``templates``: conversation templates, one of which is drawn at random for each sample; by default the checkpoint's.
    """

    json: str
    images: str = ""
    templates: tuple[str, ...] = ()


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
class TuningStage(Stage):
    """Instruction tuning, or the projector's alignment: parts of a LLaVA model are trained on answers.

    Attributes:
        train: the parts that are trained, see ``llava.train.parts``.
        answer_weighting: per-answer loss weighting, see ``llava.train.loss``; 0 is the plain mean over tokens.
    """

    data: JsonData
    train: tuple[str, ...] = ("projector", "image_newline", "language_model")
    answer_weighting: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Training that starts from a checkpoint: a folder, a short name or a hub id, as ``load_model`` takes it."""

    name: str
    start: str
    stages: tuple[TuningStage, ...]


@dataclass(frozen=True)
class RecipeFile:
    """A recipe's values as in its file, and the name by which messages call it."""

    values: dict[str, Any]
    source: str

    @property
    def is_from_scratch(self) -> bool:
        """Whether the recipe trains a model from scratch (``model:``) instead of a checkpoint (``start:``)."""
        return "model" in self.values


def read_recipe(path: str | Path) -> RecipeFile:
    """The values of a YAML file, or of the recipe of that name that ships with the package.

    Raises:
        UsageError: there is no such file or recipe, it is not valid YAML, or has not exactly one of start and model.
    """
    file = Path(path)
    if not file.is_file() and "/" not in str(path) and not str(path).endswith((".yaml", ".yml")):
        shipped = _list_shipped()
        if str(path) not in shipped:
            raise UsageError(f"There is no recipe '{path}'.{name_nearest(str(path), shipped)} Or name a YAML file.")
        text = shipped[str(path)].read_text(encoding="utf-8")
    elif file.is_file():
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"The recipe file '{path}' cannot be read: {error}.") from error
    else:
        fault = "is a folder, not a YAML file" if file.is_dir() else "does not exist"
        raise UsageError(f"The recipe file '{path}' {fault}.")
    values = parse_mapping(text, f"The recipe '{path}'")
    if ("model" in values) == ("start" in values):
        raise UsageError(
            f"The recipe '{path}' needs either start (the checkpoint to train) or model (the shape of a model to train "
            "from scratch), and not both."
        )
    return RecipeFile(values, str(path))


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
    recipe = build(Recipe, file.values, "The recipe")
    check_stages(recipe.name, recipe.stages)
    for stage in recipe.stages:
        check_tuning(stage, f"Stage '{stage.name}'")
    return recipe


def find_stage(recipe: Any, name: str) -> Any:
    """The stage of that name, in a recipe of either kind. Raises UsageError."""
    for stage in recipe.stages:
        if stage.name == name:
            return stage
    names = [stage.name for stage in recipe.stages]
    raise UsageError(f"The recipe '{recipe.name}' has no stage '{name}'.{name_nearest(name, names)}")


def _list_shipped() -> dict[str, Any]:
    folders = [resources.files("llava").joinpath(folder) for folder in _SHIPPED_IN]
    files = [item for folder in folders if folder.is_dir() for item in folder.iterdir()]
    return {item.name.removesuffix(".yaml"): item for item in files if item.name.endswith(".yaml")}


def build(kind: type[T], values: Any, where: str) -> T:
    """An instance of that dataclass, filled from a mapping, converted and checked by its type hints.

    Args:
        where: what messages begin with, such as "Stage 'next'".

    Raises:
        UsageError: a key is unknown or missing, or a value has the wrong type; the key is named.
    """
    if not isinstance(values, dict):
        raise UsageError(f"{where} must be a mapping of keys to values, not {say_kind(values)}.")
    types_of_all = typing.get_type_hints(kind)
    hints = {each.name: types_of_all[each.name] for each in dataclasses.fields(typing.cast(Any, kind))}
    for name in values:
        if name not in hints:
            raise UsageError(f"{where} has the unknown key '{name}'.{name_nearest(str(name), hints)}")
    missing = [name for name in _required_keys(kind) if name not in values]
    if missing:
        raise UsageError(f"{where} lacks the key '{missing[0]}'.")
    return kind(**{name: _convert(value, hints[name], f"{where}: {name}") for name, value in values.items()})


def _required_keys(kind: Any) -> list[str]:
    return [
        each.name
        for each in dataclasses.fields(kind)
        if each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
    ]


def _convert(value: Any, hint: Any, where: str) -> Any:
    """A YAML value, converted to the type of a field. Raises UsageError."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, inner, where)
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, where)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise UsageError(f"{where} must be a list, not {say_kind(value)}.")
        wanted = [inner[0]] * len(value) if inner[-1] is Ellipsis else list(inner)
        if len(value) != len(wanted):
            raise UsageError(f"{where} must have {len(wanted)} items, not {len(value)}.")
        return tuple(
            _convert(item, each, f"{where}[{i}]") for i, (item, each) in enumerate(zip(value, wanted, strict=True))
        )
    if origin is dict:
        if not isinstance(value, dict):
            raise UsageError(f"{where} must be a mapping of names to numbers, not {say_kind(value)}.")
        return {str(key): _convert(item, inner[1], f"{where}.{key}") for key, item in value.items()}
    return _convert_plain(value, hint, where)


def _convert_union(value: Any, kinds: tuple[Any, ...], where: str) -> Any:
    """An instance of the first dataclass whose required keys are all present. Raises UsageError."""
    for kind in kinds:
        if isinstance(value, dict) and set(_required_keys(kind)) <= set(value):
            return build(kind, value, where)
    raise UsageError(f"{where} needs the keys {', or '.join(' and '.join(_required_keys(kind)) for kind in kinds)}.")


def _convert_plain(value: Any, hint: Any, where: str) -> Any:
    if hint is float and isinstance(value, str):  # PyYAML reads 1e-3, without a point, as text
        with contextlib.suppress(ValueError):
            value = float(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    fits = isinstance(value, hint) and not (hint is int and isinstance(value, bool))
    if not fits or (hint is float and not math.isfinite(value)):
        names = {int: "a whole number", float: "a finite number", str: "text", bool: "true or false"}
        raise UsageError(f"{where} is {say_value(value)} and must be {names[hint]}.")
    return value


def check_stages(recipe_name: str, stages: tuple[Stage, ...]) -> None:
    """Raises UsageError for a stage with a setting out of range, and for names that are invalid or occur twice."""
    if not stages:
        raise UsageError(f"The recipe '{recipe_name}' has no stages.")
    names: set[str] = set()
    for stage in stages:
        where = f"Stage '{stage.name}'"
        if not stage.name.replace("-", "").replace("_", "").isalnum() or stage.name in _RESERVED:
            raise UsageError(
                f"{where}: a stage's name is also its folder's; use letters, digits, - and _, and none of "
                f"{', '.join(_RESERVED)}."
            )
        if stage.name in names:
            raise UsageError(f"{where} occurs twice in the recipe; each stage needs a name of its own.")
        names.add(stage.name)
        for key in ("steps", "batch_size", "lr", "max_grad_norm", "save_steps", "log_steps"):
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


def check_tuning(stage: Any, where: str) -> None:
    """Raises UsageError for a wrong setting of a stage that trains on answers, beyond ``check_stages``."""
    if not stage.train:
        raise UsageError(f"{where}: train is empty, so nothing would be trained.")
    if stage.answer_weighting < 0:
        raise UsageError(f"{where}: answer_weighting is {stage.answer_weighting} and must not be negative.")
    for template in stage.data.templates:
        check_word(template, conv_templates, f"{where}: there is no template")


def check_word(word: str, known: Iterable[str], fault: str) -> None:
    """Raises UsageError, with the nearest known word, if ``word`` is not one of ``known``."""
    known = list(known)
    if word not in known:
        raise UsageError(f"{fault} '{word}'.{name_nearest(word, known)}")
