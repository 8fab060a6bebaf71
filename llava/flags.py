"""What several commands share: a command itself, the flags of a checkpoint, sizes in bytes, and a quick start."""

from __future__ import annotations

import argparse
import contextlib
import errno
import gc
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from llava.errors import LlavaError, Notice
from llava.text import Printer, give_up, open_streams, write_line

# Bits of each name that --quant takes.
QUANTIZATIONS = {"int8": 8, "int4": 4}


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], text: str
) -> argparse.ArgumentParser:
    """A command that ``run`` does."""
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run, parser=parser)
    return parser


INTERRUPTED = 130
BROKEN_PIPE = 141

# An OSError of these, about no file, is about standard output.
_NOT_WRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)


def run_door(work: Callable[[], int]) -> int:
    """What ``work``, a command, returns, or the exit code of what it raised: a mistake is one sentence on stderr.

    The standard streams take any text, and notices are lines on stderr.
    """
    open_streams()
    try:
        with _notices_as_lines():
            code = work()
        sys.stdout.flush()  # here, so that a reader who left is noticed here
        return code
    except LlavaError as error:
        return complain(str(error), error.exit_code)
    except KeyboardInterrupt:
        write_line("")
        return INTERRUPTED
    except BrokenPipeError:
        give_up(sys.stdout)
        return BROKEN_PIPE
    except OSError as error:
        if error.filename is None and error.errno not in _NOT_WRITTEN:
            raise
        if error.filename is None:
            give_up(sys.stdout)
            return complain(f"Standard output cannot be written: {error.strerror}.", LlavaError.exit_code)
        return complain(f"{error.strerror}: {error.filename}", LlavaError.exit_code)


def complain(sentence: str, exit_code: int) -> int:
    """The exit code, after the sentence was written to stderr, behind what is on its way to stdout."""
    try:
        sys.stdout.flush()
    except OSError:
        give_up(sys.stdout)
    write_line(f"llava: error: {sentence}")
    return exit_code


def check_written(printer: Printer) -> None:
    """Repeats on standard error what could not be written to standard output, and raises LlavaError."""
    if printer.failure:
        write_line(printer.text)
        raise LlavaError(f"Standard output cannot be written ({printer.failure}); what belongs there is above.")


@contextlib.contextmanager
def _notices_as_lines() -> Iterator[None]:
    """What Python code would be warned of is a line on standard error."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", Notice)
        show_others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
            if issubclass(category, Notice):
                write_line(f"llava: {message}")
            else:
                show_others(message, category, *rest, **more)

        warnings.showwarning = show
        yield


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
    """A number of bytes from 1000000, 500M, 2G, 1.5G or 1.5GiB."""
    units = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
    short = text[:-2] if text[-3:].upper() in (f"{unit}IB" for unit in units) else text
    number, unit = (short[:-1], units[short[-1].upper()]) if short[-1:].upper() in units else (text, 1)
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
