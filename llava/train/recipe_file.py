"""Finds and reads a recipe's file: a YAML file of the user's, or one that ships with the package, by its name."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from llava.errors import UsageError
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
