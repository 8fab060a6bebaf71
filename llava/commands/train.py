"""``llava train``: trains a model from a recipe."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import Any

from llava.commands.flags import add_command
from llava.errors import UsageError


def add_train(commands: Any) -> None:
    """Adds the command to the parser's ``commands``."""
    parser = add_command(commands, "train", _train, "Train a model from a recipe; an interrupted run resumes.")
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file, or the name of one in the package")
    parser.add_argument(
        "words",
        nargs="*",
        metavar="KEY=VALUE",
        help="settings that replace those of the recipe, such as lr=1e-5 or lora.rank=8",
    )
    parser.add_argument("--data", nargs="+", metavar="FILE", help="the samples, in place of the recipe's")
    parser.add_argument("--images", metavar="FOLDER", help="the folder that image names are relative to")
    parser.add_argument("--start", metavar="MODEL", help="the checkpoint or language model to start from")
    parser.add_argument("--output", metavar="FOLDER", help="for checkpoints, log, report and the model; required")
    parser.add_argument("--stage", metavar="NAME", help="only this stage of the recipe")
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes that load or draw samples (default: %(default)s)"
    )
    parser.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="continue an interrupted run (default); --no-resume refuses a folder with an interrupted one",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="only print what would be trained, in how many steps, with how much memory, and the first samples",
    )


def _train(arguments: argparse.Namespace) -> int:
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("Training needs the package's train extra: run pip install 'llava[train]'.")
    from llava.train.recipe_file import change_recipe, read_recipe

    if arguments.output == "":
        raise UsageError("--output is empty: name the folder for checkpoints, the log and the model.")
    data, settings = _split_words(arguments.data)
    recipe = change_recipe(
        read_recipe(arguments.recipe),
        [*arguments.words, *settings],
        data=data,
        images=arguments.images,
        start=arguments.start,
    )
    if arguments.dry_run:
        from llava.train.dry_run import describe

        describe(recipe, arguments.output, arguments.stage, arguments.workers)
        return 0
    if arguments.output is None:
        raise UsageError("Without --dry-run this is required: --output FOLDER, for checkpoints, the log and the model.")
    if recipe.is_from_scratch:
        from llava.scratch.pipeline import run

        if not arguments.resume:
            raise UsageError("A recipe that trains from scratch always resumes: name another --output to start over.")
        print(run(recipe, arguments.output, arguments.stage, arguments.workers))
        return 0
    from llava.train.devices.parallel import leave_group, read_rank
    from llava.train.run import run as run_tuning

    result = run_tuning(recipe, arguments.output, arguments.stage, arguments.workers, arguments.resume)
    if read_rank() == 0:
        print(result)
    leave_group()
    return 0


def _split_words(words: list[str] | None) -> tuple[list[str], list[str]]:
    """Files and settings: argparse gives settings that are written after ``--data FILE`` to that flag."""
    files = [word for word in words or () if "=" not in word or Path(word).exists()]
    if words and not files:
        raise UsageError("--data names no file.")
    return files, [word for word in words or () if word not in files]
