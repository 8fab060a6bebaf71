"""``llava info``: what a checkpoint is, how it tiles an image, and the tokens of a prompt."""

from __future__ import annotations

import argparse
from typing import Any

from llava.commands.flags import add_command, add_image_flags, add_tower_flag
from llava.errors import UsageError


def add_info(commands: Any) -> None:
    """Adds the command to the parser's ``commands``."""
    parser = add_command(
        commands,
        "info",
        _info,
        "Describe a checkpoint, how it tiles an image into tokens, or the exact tokens of a prompt.",
        needs_output=True,
    )
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="a folder, a file or a name (default: a model of this package)"
    )
    add_tower_flag(parser)
    parser.add_argument(
        "--image",
        action=_ImageOfPrompt,
        default=[],
        metavar="IMAGE",
        help="show how this image is tiled; it belongs to the last --prompt before it, or else to the first",
    )
    add_image_flags(parser)
    parser.add_argument("--plot", metavar="FILE.png", help="draw canvas, padding, tiles, kept patches and counts")
    parser.add_argument(
        "--prompt",
        action="append",
        default=[],
        metavar="TEXT",
        help="list the text and tokens that this question becomes; repeat it, each with an --answer, for a chat",
    )
    parser.add_argument(
        "--answer",
        action="append",
        default=[],
        metavar="TEXT",
        help="the answer to the preceding --prompt; if every --prompt has one, the loss mask is shown",
    )
    parser.add_argument("--conv-mode", metavar="NAME", help="template of the prompt (default: the checkpoint's own)")
    parser.add_argument("--json", action="store_true", help="print the prompt as one JSON object")


class _ImageOfPrompt(argparse.Action):
    """Appends (index of its question, image): the last ``--prompt`` before it; the first if none is before it."""

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: str | None = None
    ) -> None:
        question = max(len(namespace.prompt) - 1, 0)
        setattr(namespace, self.dest, [*getattr(namespace, self.dest), (question, values)])


def _info(arguments: argparse.Namespace) -> int:
    from llava.inspection import describe_checkpoint, describe_image, describe_prompt

    images = [image for _, image in arguments.image]
    if arguments.prompt:
        if arguments.plot is not None:
            raise UsageError("--plot draws an image's tokens and --prompt lists a prompt's: give one of them.")
        describe_prompt(
            arguments.model,
            arguments.prompt,
            arguments.answer,
            images,
            image_questions=[question for question, _ in arguments.image],
            template=arguments.conv_mode,
            max_pixels=arguments.max_image_pixels,
            tower=arguments.vision_tower,
            as_json=arguments.json,
        )
        return 0
    given = {"--answer": arguments.answer, "--conv-mode": arguments.conv_mode, "--json": arguments.json}
    if words := [flag for flag, value in given.items() if value]:
        raise UsageError(f"{words[0]} is about a prompt: add --prompt TEXT.")
    if len(images) > 1:
        raise UsageError(f"--image is given {len(images)} times. Several images belong to one prompt: add --prompt.")
    if images:
        describe_image(
            arguments.model,
            images[0],
            plot=arguments.plot,
            max_pixels=arguments.max_image_pixels,
            tower=arguments.vision_tower,
        )
    elif arguments.plot is not None:
        raise UsageError("--plot draws an image's tokens: name the image with --image.")
    else:
        describe_checkpoint(arguments.model, arguments.vision_tower)
    return 0
