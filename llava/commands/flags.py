"""Flags that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from llava.commands.quantities import read_bytes, read_pixels

QUANTIZATIONS = {"int8": 8, "int4": 4}
"""Bits per weight for each value of ``--quant``."""


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], text: str, *, needs_output: bool = False
) -> argparse.ArgumentParser:
    """The parser of a command that ``run`` executes. ``needs_output``: it is refused where stdout is closed."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run, parser=parser, needs_output=needs_output)
    return parser


def add_checkpoint_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that choose a checkpoint and how it is loaded."""
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="a folder, a GGUF file, ollama:NAME, a hub id or a short name (default: a model of this package)",
    )
    parser.add_argument(
        "--model-base", metavar="MODEL", help="the base of MODEL, if MODEL holds only a projector or LoRA layers"
    )
    add_tower_flag(parser)
    parser.add_argument(
        "--merge",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="merge LoRA layers into the weights (default); --no-merge keeps them separate, which is slower",
    )
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1, mps (default: the fastest one present)")
    parser.add_argument(
        "--dtype", metavar="NAME", help="float32, bfloat16, float16 (default: the one that suits the device)"
    )
    parser.add_argument(
        "--quant",
        choices=QUANTIZATIONS,
        help="quantize the language model to 8 or 4 bits: half or a quarter of the memory, and faster answers",
    )


def add_image_flags(parser: argparse.ArgumentParser) -> None:
    """Adds ``--max-image-pixels``, the size limit of images that a local user names."""
    parser.add_argument(
        "--max-image-pixels",
        type=read_pixels,
        metavar="N",
        help="accept images of up to N pixels, width times height, such as 400M (default: 100M, JPEG 300M)",
    )


def add_tower_flag(parser: argparse.ArgumentParser) -> None:
    """Adds ``--vision-tower``, which replaces the vision tower that config.json names or the mmproj of a GGUF file."""
    parser.add_argument(
        "--vision-tower",
        "--mmproj",
        metavar="TOWER",
        help="the folder or hub id of the vision tower, if the one in config.json cannot be found; for a model in "
        "GGUF its mmproj file, if that is not beside it",
    )


def add_engine_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the settings of this package's own engine."""
    parser.add_argument(
        "--memory",
        type=read_bytes,
        metavar="SIZE",
        help="size of the KV cache, such as 500M or 2G (default: half of the free memory, at most 16 contexts)",
    )
    parser.add_argument(
        "--arithmetic",
        choices=("exact", "int8"),
        default="exact",
        help="int8, with --quant on a CPU: process prompts in 8-bit integers, which is faster and slightly less exact",
    )


class RepeatedFlag(argparse.Action):
    """A flag that may be repeated; its first use replaces the default, which a config file may have set."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, **{"default": [], **options})

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> None:
        given = getattr(namespace, self.dest)
        setattr(namespace, self.dest, [*([] if given is self.default else given), values])
