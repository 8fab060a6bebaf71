"""``llava ask``: one question about images."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llava.commands.answering import add_answering_flags, load, read_sampling
from llava.commands.flags import add_command
from llava.commands.question_words import split_words
from llava.entry_point import check_written, quick_imports
from llava.errors import LlavaError
from llava.text import Printer, is_terminal, is_unicode, write_line

if TYPE_CHECKING:
    from llava.backends.answerer import Answer
    from llava.image.source import LoadedImage


def add_ask(commands: Any) -> None:
    """Adds the command to the parser's ``commands``."""
    parser = add_command(commands, "ask", _ask, "Ask one question, about images or without any.")
    parser.usage = "llava ask [options] IMAGE... QUESTION"
    parser.add_argument(
        "words",
        nargs="*",
        metavar="IMAGE... QUESTION",
        help="paths, http(s) URLs, data URIs or - for standard input; the question comes last",
    )
    parser.add_argument("-q", "--question", metavar="TEXT", help="the question; all other arguments are then images")
    add_answering_flags(parser)
    parser.add_argument("--num-beams", type=int, default=1, metavar="N", help="beam search (default: %(default)s)")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object: answer or error, images, tokens, times"
    )


def _ask(arguments: argparse.Namespace) -> int:
    printer = Printer("" if arguments.has_output else "it is closed")
    images: list[LoadedImage] = []
    try:
        _print_answer(arguments, images, printer)
    except LlavaError as error:
        if arguments.json and not printer.text:
            failure = {"answer": None, "error": str(error), "images": [image.describe() for image in images]}
            _print_json(failure, printer)
        raise
    check_written(printer)
    return 0


def _print_answer(arguments: argparse.Namespace, images: list[LoadedImage], printer: Printer) -> None:
    """Appends the images to ``images`` as they are read, and prints the answer."""
    sources, question = split_words(arguments.words, arguments.question)
    with quick_imports():
        from llava.answer import ask
        from llava.image.source import FOR_LOCAL_USER, load_image, say_notes

    # Everything about the call that can be wrong is checked before the model is loaded.
    sampling = read_sampling(arguments)
    limits = FOR_LOCAL_USER.with_pixels(arguments.max_image_pixels)
    for source in sources:
        images.append(load_image(source, limits))
        say_notes(images[-1:])
    began = time.perf_counter()
    loaded = load(arguments)
    load_s = time.perf_counter() - began

    on_text = None if arguments.json else printer.say
    reply = ask(loaded, question, images, sampling, template=arguments.conv_mode, on_text=on_text)
    note = reply.explain(loaded.tokenizer)
    if arguments.json:
        _print_json(_as_json(reply, note, arguments.model, load_s, images), printer)
    else:
        printer.say("\n")
    if note is not None and not arguments.json:
        write_line(f"llava: {note[0].lower()}{note[1:]}")


def _print_json(report: dict[str, Any], printer: Printer) -> None:
    is_plain = not is_unicode(sys.stdout) or is_terminal(sys.stdout)
    printer.say(json.dumps(report, ensure_ascii=is_plain, indent=2) + "\n")


def _as_json(
    reply: Answer, note: str | None, model: str | None, load_s: float, images: Sequence[LoadedImage]
) -> dict[str, Any]:
    from llava.model.default_choice import resolve_name

    return {
        "answer": reply.text,
        "error": None,
        "finished": reply.finished,
        "finish_reason": reply.finish_reason,
        "note": note,
        "model": resolve_name(model),
        "prompt_tokens": reply.prompt_tokens,
        "image_positions": list(reply.image_positions),
        "images": [image.describe() for image in images],
        "new_tokens": reply.new_tokens,
        "seconds": {
            "load": round(load_s, 4),
            "first_token": round(reply.first_token_s, 4),
            "answer": round(reply.total_s, 4),
        },
    }
