"""Finds and reads a recipe's file: a YAML file of the user's, or one that ships with the package, by its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from llava.errors import UsageError
from llava.train.typed_values import apply_overrides
from llava.yaml_files import name_nearest, parse_mapping

# Folders of the package that hold recipes, below ``llava``; a recipe's name is its file's.
_SHIPPED_IN = ("train/recipes", "scratch")


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

    ``extends: RECIPE`` takes the values of another recipe where the file has none; null takes away a value of it.

    Raises:
        UsageError: there is no such file or recipe, it is not valid YAML, or has not exactly one of start and model.
    """
    values = _read_extended(str(path), ())
    if ("model" in values) == ("start" in values):
        raise UsageError(
            f"The recipe '{path}' needs either start (the checkpoint to train) or model (the shape of a model to train "
            "from scratch), and not both."
        )
    return RecipeFile(values, str(path))


def change_recipe(
    recipe: RecipeFile,
    settings: Sequence[str],
    *,
    data: Sequence[str] = (),
    images: str | None = None,
    start: str | None = None,
) -> RecipeFile:
    """The recipe with ``key=value`` settings replaced, see ``apply_overrides``, and with other data or another start.

    ``stages.NAME.key=value`` replaces a setting of one stage.

    Raises:
        UsageError: a setting is not of that form, or would have no effect because stages have it themselves; or data or
            a start is given for a recipe that trains from scratch.
    """
    named = [name for name, value in (("--data", data), ("--images", images), ("--start", start)) if value]
    if recipe.is_from_scratch and named:
        raise UsageError(f"{named[0]} cannot be used with '{recipe.source}': it trains a model from scratch.")
    values = _replace_settings(recipe, settings)
    if data or images is not None:
        _check_shared(values, "data", "--data and --images")
        before = values.get("data")
        values["data"] = {**before} if isinstance(before, dict) else {}
        if data:
            values["data"]["json"] = list(data)
        if images is not None:
            values["data"]["images"] = images
    if start is not None:
        values["start"] = start
    return RecipeFile(values, recipe.source)


def _replace_settings(recipe: RecipeFile, settings: Sequence[str]) -> dict[str, Any]:
    values = recipe.values
    stages = values.get("stages")
    names = [str(stage.get("name")) for stage in stages if isinstance(stage, dict)] if isinstance(stages, list) else []
    of_stage: dict[str, list[str]] = {name: [] for name in names}
    shared = []
    for setting in settings:
        owner = next((name for name in names if setting.startswith(f"stages.{name}.")), None)
        if owner is None:
            shared.append(setting)
        else:
            of_stage[owner].append(setting.removeprefix(f"stages.{owner}."))
    values = apply_overrides(values, shared)
    for setting in shared:
        _check_shared(values, setting.partition("=")[0].partition(".")[0], setting)
    if names:
        values["stages"] = [
            apply_overrides(stage, of_stage[str(stage.get("name"))]) if isinstance(stage, dict) else stage
            for stage in values["stages"]
        ]
    return values


def _check_shared(values: dict[str, Any], key: str, setting: str) -> None:
    """Raises UsageError if a stage sets the key itself, so that a setting for all stages would not reach it."""
    stages = values.get("stages")
    for stage in stages if isinstance(stages, list) else ():
        if isinstance(stage, dict) and key in stage:
            name = stage.get("name")
            raise UsageError(
                f"{setting} would have no effect on the stage '{name}', which has its own {key}: write "
                f"stages.{name}.{key}=..."
            )


def _read_extended(path: str, extending: tuple[str, ...]) -> dict[str, Any]:
    """The values of a recipe on top of those of the one that it extends. ``extending``: the recipes that led here."""
    if path in extending:
        raise UsageError(f"The recipe '{path}' extends itself: {' -> '.join((*extending, path))}.")
    values = _read_values(path)
    if (base := values.pop("extends", None)) is None:
        return values
    if not isinstance(base, str):
        raise UsageError(f"The recipe '{path}': extends is {base!r} and must be the name of one recipe.")
    beside = Path(path).parent / base
    if beside.is_file():
        base = str(beside)
    return _lay_over(_read_extended(base, (*extending, path)), values)


def _lay_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """The values of both, those of ``above`` where both have one; mappings are laid over each other in the same way."""
    result = dict(below)
    for key, value in above.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(below.get(key), dict):
            result[key] = _lay_over(below[key], value)
        else:
            result[key] = value
    return result


def _read_values(path: str) -> dict[str, Any]:
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
    return parse_mapping(text, f"The recipe '{path}'")


def _list_shipped() -> dict[str, Any]:
    folders = [resources.files("llava").joinpath(folder) for folder in _SHIPPED_IN]
    files = [item for folder in folders if folder.is_dir() for item in folder.iterdir()]
    return {item.name.removesuffix(".yaml"): item for item in files if item.name.endswith(".yaml")}


def find_stage(recipe: Any, name: str) -> Any:
    """The stage of that name, in a recipe of either kind. Raises UsageError."""
    for stage in recipe.stages:
        if stage.name == name:
            return stage
    names = [stage.name for stage in recipe.stages]
    raise UsageError(f"The recipe '{recipe.name}' has no stage '{name}'.{name_nearest(name, names)}")
