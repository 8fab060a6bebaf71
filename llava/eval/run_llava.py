"""FRONT DOOR: the original's ``llava.eval.run_llava``: ``eval_model(args)`` and the command line around it.

It translates ``args`` and decides nothing. Deliberate differences from the original: the model stays loaded for
the next call with the same checkpoint; ``args`` is not modified; the answer is also returned; the device is chosen
automatically; the template comes from the checkpoint's files before its name; every image gets a slot even without
placeholders (the original encoded them all and used the first); an answer ends at the template's separator.

Source: haotian-liu/LLaVA@c121f04 llava/eval/run_llava.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from llava.commands.flags import add_image_flags
from llava.constants import IMAGE_PLACEHOLDER
from llava.entry_point import check_written, run_command
from llava.errors import UsageError
from llava.image.source import FOR_LOCAL_USER, LoadedImage, say_notes
from llava.image.source import load_image as read_image
from llava.text import Printer, open_streams, write_line

if TYPE_CHECKING:
    from llava.model.checkpoint import LoadedModel


def image_parser(args: Any) -> list[str]:
    """The names in ``args.image_file``, separated by ``args.sep``; a data URI has to be the only one."""
    if args.image_file[:5].lower() == "data:":
        return [args.image_file]
    if not args.sep:
        raise UsageError('The separator of image names (sep) is empty; the original\'s default is ",".')
    return args.image_file.split(args.sep)


def load_image(image_file: str) -> Image.Image:
    """The image at a path, an http(s) URL or in a data URI, upright and RGB. Raises BadImage."""
    return read_image(image_file, FOR_LOCAL_USER).image


def load_images(image_files: Sequence[str]) -> list[Image.Image]:
    """The images in their order."""
    return [load_image(image_file) for image_file in image_files]


def eval_model(args: Any) -> str:
    """Prints the answer to ``args.query`` about the images of ``args.image_file``, and returns it.

    Reads ``model_path, model_base, query, conv_mode, image_file, sep, temperature, top_p, num_beams, max_new_tokens``
    of any object, as the original does; ``model_name`` is ignored, and ``max_image_pixels``, if present, is the size
    limit of an image. ``<image-placeholder>`` in the query marks the place of an image; without one the images come
    first. A prompt longer than the context is truncated on the right, as in the original, with a warning on stderr. An
    answer that cannot be written to stdout is written to stderr, and LlavaError is raised.
    """
    return _answer(args, Printer())


def _answer(args: Any, printer: Printer) -> str:
    from llava.answer import Sampling, answer, image_slot, place_images, start_conversation
    from llava.prompt import escape_image_tokens

    sampling = Sampling(
        temperature=args.temperature,
        top_p=args.top_p,
        num_beams=args.num_beams,
        max_new_tokens=args.max_new_tokens,
    )
    limits = FOR_LOCAL_USER.with_pixels(getattr(args, "max_image_pixels", None))
    images: list[LoadedImage] = [read_image(name, limits) for name in image_parser(args)]
    say_notes(images)
    loaded = _load(args.model_path, args.model_base)
    conversation = start_conversation(loaded, args.conv_mode)
    if args.conv_mode is not None and args.conv_mode != loaded.template:
        write_line(
            f"[WARNING] the auto inferred conversation mode is {loaded.template}, "
            f"while `--conv-mode` is {args.conv_mode}, using {args.conv_mode}"
        )
    pieces = args.query.split(IMAGE_PLACEHOLDER)
    if len(pieces) == 1:
        message = place_images(loaded, args.query, len(images))
    elif len(pieces) - 1 == len(images):
        message = image_slot(loaded).join(escape_image_tokens(piece) for piece in pieces)
    else:
        raise UsageError(
            f"The query has {len(pieces) - 1} {IMAGE_PLACEHOLDER}, but there are {len(images)} images: "
            "write one for each, or none."
        )
    conversation.append_message(conversation.roles[0], message)
    conversation.append_message(conversation.roles[1], None)
    loaded.model.config.truncate_to_model_max_length = True
    reply = answer(loaded, conversation, images, sampling)
    if reply.cut_tokens:
        kept = reply.prompt_tokens
        write_line(f"[WARNING] the prompt was cut to its first {kept} of {kept + reply.cut_tokens} tokens")
    printer.say(f"{reply.text}\n")
    if not reply.text:
        write_line(f"[WARNING] {reply.explain(loaded.tokenizer)}")
    check_written(printer)
    return reply.text


_kept: dict[tuple[str, str | None, int], LoadedModel] = {}


def _load(model_path: str, model_base: str | None) -> LoadedModel:
    """The model, loaded at the first call for these files and kept until a call for another one."""
    from llava.model.checkpoint import load_model

    folders = [Path(path) for path in (model_path, model_base) if path is not None]
    written_ns = max((file.stat().st_mtime_ns for folder in folders for file in folder.glob("*")), default=0)
    key = (model_path, model_base, written_ns)
    if key not in _kept:
        _kept.clear()  # before loading: two models at once may not fit
        _kept[key] = load_model(model_path, base=model_base)
    return _kept[key]


def build_parser() -> argparse.ArgumentParser:
    """The original's flags and defaults, and the size limit of images."""
    parser = argparse.ArgumentParser(prog="python -m llava.eval.run_llava")
    parser.add_argument("--model-path", required=True)
    parser.add_argument("--model-base", default=None)
    parser.add_argument("--image-file", required=True)
    parser.add_argument("--query", required=True)
    parser.add_argument("--conv-mode", default=None)
    parser.add_argument("--sep", default=",")
    parser.add_argument("--temperature", type=float, default=0.2)
    parser.add_argument("--top_p", type=float, default=None)
    parser.add_argument("--num_beams", type=int, default=1)
    parser.add_argument("--max_new_tokens", type=int, default=512)
    add_image_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``eval_model`` from the command line; returns the exit code."""
    has_output = open_streams()
    args = build_parser().parse_args(argv)

    def work() -> int:
        _answer(args, Printer("" if has_output else "it is closed"))
        return 0

    return run_command(work)


if __name__ == "__main__":
    sys.exit(main())
