"""FRONT DOOR: ``python -m llava.serve.cli``, the original's chat about an image in the terminal; and ``load_image``.

It translates the command line and decides nothing; ``llava.terminal_chat`` does the work, as for ``llava chat``.
Deliberate differences: the device is chosen automatically, the template comes from the checkpoint's files before its
name, an answer ends at the template's separator, and an error costs one question instead of the conversation.

Source: haotian-liu/LLaVA@c121f04 llava/serve/cli.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image

from llava.commands.flags import add_image_flags
from llava.conversation import find_template
from llava.entry_point import run_command
from llava.errors import LlavaError, UsageError
from llava.image.source import FOR_LOCAL_USER, say_notes
from llava.image.source import load_image as read_image
from llava.sampling import Sampling
from llava.serve.original_commands import warn_unused
from llava.text import find_flaw, for_stream, write_line

if TYPE_CHECKING:
    from llava.model.checkpoint import LoadedModel


def load_image(image_file: str) -> Image.Image:
    """The image at a path, an http(s) URL or in a data URI, upright and RGB. Raises BadImage."""
    return read_image(image_file, FOR_LOCAL_USER).image


def main(args: Any) -> None:
    """Chats until an empty line or the end of the input; ``args`` has the flags as attributes.

    Raises LlavaError for a model or an image that cannot be used.
    """
    from llava.terminal_chat import Chat

    sampling = Sampling(temperature=args.temperature, max_new_tokens=args.max_new_tokens)
    if args.image_file == "-":
        raise UsageError("No image is read from standard input, where the questions come from: name a file.")
    limits = FOR_LOCAL_USER.with_pixels(getattr(args, "max_image_pixels", None))
    image = read_image(args.image_file, limits)  # an invalid one is refused before the model is loaded
    say_notes([image])
    loaded = _load(args)
    mode = getattr(args, "conv_mode", None)
    if mode is not None and mode != loaded.template:
        write_line(
            f"[WARNING] the auto inferred conversation mode is {loaded.template}, "
            f"while `--conv-mode` is {mode}, using {mode}"
        )
    chat = Chat(loaded, sampling, template=mode)
    chat.waiting.append(image)
    roles = find_template(mode or loaded.template).roles
    while True:
        try:
            question = input(f"{roles[0]}: ").strip()
        except EOFError:
            question = ""
        if not question:
            print("exit...")
            return
        print(f"{roles[1]}: ", end="", flush=True)
        try:
            if (flaw := find_flaw(question)) is not None:
                raise UsageError(f"The question {flaw}.")
            reply = chat.ask(question, lambda piece: print(for_stream(piece, sys.stdout), end="", flush=True))
        except LlavaError as error:
            print(flush=True)
            write_line(f"llava: error: {error}")
            continue
        print(flush=True)
        if reply is not None and not reply.text:
            write_line(f"[WARNING] {reply.explain(loaded.tokenizer)}")
        if getattr(args, "debug", False) and reply is not None:
            print("\n", {"prompt_tokens": reply.prompt_tokens, "outputs": for_stream(reply.text, sys.stdout)}, "\n")


def _load(args: Any) -> LoadedModel:
    from llava.model.checkpoint import load_model
    from llava.model.default_choice import DEFAULT_MODEL

    if args.load_8bit and args.load_4bit:
        raise UsageError("--load-8bit and --load-4bit are both given: leave one out.")
    return load_model(
        args.model_path or DEFAULT_MODEL,
        base=args.model_base,
        device=getattr(args, "device", None),
        bits=8 if args.load_8bit else 4 if args.load_4bit else 16,
        for_engine=True,
    )


def build_parser() -> argparse.ArgumentParser:
    """The original's flags and defaults, except for the model and the device; and the size limit of images."""
    parser = argparse.ArgumentParser(prog="python -m llava.serve.cli")
    parser.add_argument("--model-path", help="a folder, a hub id or a short name (default: a model of this package)")
    parser.add_argument("--model-base")
    parser.add_argument("--image-file", required=True)
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best there is)")
    parser.add_argument("--num-gpus", type=int)  # LLaVA-NeXT's, in place of --device
    parser.add_argument("--conv-mode")
    parser.add_argument("--temperature", type=float, default=0.2)
    parser.add_argument("--max-new-tokens", type=int, default=512)
    parser.add_argument("--load-8bit", action="store_true")
    parser.add_argument("--load-4bit", action="store_true")
    parser.add_argument("--debug", action="store_true")
    add_image_flags(parser)
    return parser


def _run(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    warn_unused(args, {"num_gpus": "name the device with --device"})

    def work() -> int:
        main(args)
        return 0

    return run_command(work)


if __name__ == "__main__":
    sys.exit(_run())
