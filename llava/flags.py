"""What several commands share: a command itself, the flags of a checkpoint, sizes in bytes, and a quick start."""

from __future__ import annotations

import argparse
import contextlib
import gc
import sys
from collections.abc import Callable, Iterator
from typing import Any

from llava.errors import LlavaError

# Bits of each name that --quant takes.
QUANTIZATIONS = {"int8": 8, "int4": 4}


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], text: str
) -> argparse.ArgumentParser:
    """A command that ``run`` does."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run, parser=parser)
    return parser


def run_door(work: Callable[[], int]) -> int:
    """What ``work``, the command of a front door, returns; a mistake of the user's is one sentence on stderr."""
    try:
        return work()
    except LlavaError as error:
        print(f"llava: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130


@contextlib.contextmanager
def quick_imports() -> Iterator[None]:
    """A time without garbage collection: torch and Transformers make a million objects that all stay.

    Looking at them again and again takes a seventh of the time that a command takes to start.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def add_checkpoint_flags(parser: argparse.ArgumentParser) -> None:
    """Which model, and how it is loaded."""
    parser.add_argument(
        "--model", metavar="MODEL", help="a folder, a hub id or a short name (default: the embedded model)"
    )
    parser.add_argument(
        "--model-base", metavar="MODEL", help="what MODEL was trained on, if it holds only a projector or LoRA layers"
    )
    add_tower_flag(parser)
    parser.add_argument(
        "--merge",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="put LoRA layers into the weights (default); --no-merge keeps them apart, which is slower",
    )
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1, mps (default: the best there is)")
    parser.add_argument("--dtype", metavar="NAME", help="float32, bfloat16, float16 (default: what suits the device)")
    parser.add_argument(
        "--quant",
        choices=QUANTIZATIONS,
        help="the language model's matrices in 8 or 4 bits: a half or a quarter of the memory, and faster answers",
    )


def add_image_flags(parser: argparse.ArgumentParser) -> None:
    """What an image may cost on one's own machine."""
    parser.add_argument(
        "--max-image-pixels",
        type=read_pixels,
        metavar="N",
        help="take images of up to N px, width times height, as 400M (default: 100M, of a JPEG 300M)",
    )


def read_pixels(text: str) -> int:
    """A number of px from 50000000, 50M or 0.4G."""
    units = {"K": 10**3, "M": 10**6, "G": 10**9}
    number, unit = (text[:-1], units[text[-1].upper()]) if text[-1:].upper() in units else (text, 1)
    try:
        num_px = float(number) * unit
        if 1 <= num_px < 2**60:
            return int(num_px)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"'{text}' is no number of px; write one above 0 such as 50000000 or 400M")


def add_tower_flag(parser: argparse.ArgumentParser) -> None:
    """Where the vision tower is, if not where the checkpoint says."""
    parser.add_argument(
        "--vision-tower",
        metavar="TOWER",
        help="the folder or hub id of the vision tower, if config.json names one that is not there",
    )


def read_bytes(text: str) -> int:
    """A number of bytes from 1000000, 500M, 2G or 1.5G."""
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    number, unit = (text[:-1], units[text[-1].upper()]) if text[-1:].upper() in units else (text, 1)
    try:
        size = float(number) * unit
        if 0 < size < 2**60:
            return int(size)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"'{text}' is no size; write a number above 0 such as 500M or 2G")


def read_ids(text: str) -> tuple[int, ...]:
    """Token ids from 5,17,23."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' are no token ids; write whole numbers such as 5,17,23") from None
