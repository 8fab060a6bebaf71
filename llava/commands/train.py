"""``llava train``: trains a model from a recipe."""

from __future__ import annotations

import argparse
import importlib.util
from typing import Any

from llava.commands.flags import add_command
from llava.errors import UsageError


def add_train(commands: Any) -> None:
    """Adds the command to the parser's ``commands``."""
    parser = add_command(commands, "train", _train, "Train a model from a recipe; an interrupted run resumes.")
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file, or the name of one in the package")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="for checkpoints, curves and the model")
    parser.add_argument("--stage", metavar="NAME", help="only this stage of the recipe")
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes that load or draw samples (default: %(default)s)"
    )


def _train(arguments: argparse.Namespace) -> int:
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("Training needs the package's train extra: run pip install 'llava[train]'.")
    from llava.train.recipe_file import read_recipe

    recipe = read_recipe(arguments.recipe)
    if recipe.is_from_scratch:
        from llava.scratch.pipeline import run
    else:
        from llava.train.run import run
    print(run(recipe, arguments.output, arguments.stage, arguments.workers))
    return 0
