"""The ``llava`` command: arguments in, exit code out.

Only arguments live here; each command hands over to the module that does the work, imported when it is needed, so
that ``llava --help`` loads no torch. A user's mistake ends in one sentence on stderr and the exit code of its error:
2 for a wrong invocation, 1 for a failure. Ctrl-C is 130.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from llava import __version__
from llava.errors import LlavaError, UsageError
from llava.flags import (
    QUANTIZATIONS,
    add_checkpoint_flags,
    add_command,
    add_image_flags,
    add_tower_flag,
    check_written,
    quick_imports,
    read_bytes,
    read_ids,
    run_door,
)
from llava.serve.command import add_serve
from llava.text import Printer, find_flaw, for_stream, is_terminal, is_unicode, open_streams, write_line

if TYPE_CHECKING:
    from llava.backends.answerer import Answer
    from llava.image.source import LoadedImage
    from llava.model.checkpoint import LoadedModel
    from llava.sampling import Sampling


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; argparse's own mistakes leave with 2."""
    has_output = open_streams()

    def work() -> int:
        try:
            return _run(sys.argv[1:] if argv is None else list(argv), has_output)
        except SystemExit:  # argparse's, after --help too
            sys.stdout.flush()
            raise

    return run_door(work)


def _run(argv: list[str], has_output: bool) -> int:
    arguments, rest = build_parser().parse_known_args(argv)
    arguments.has_output = has_output
    if not has_output and arguments.run in (_info, _chat, _eval_synth):
        raise LlavaError("Standard output is closed, and what this command does is to write there.")
    # Images may stand on both sides of a flag, which argparse cannot do by itself.
    flags = [word for word in rest if word.startswith("-") and word != "-"]
    if flags or (rest and "words" not in arguments):
        arguments.parser.error(f"unrecognized arguments: {' '.join(flags or rest)}")
    if rest:
        arguments.words += rest
    code: int = arguments.run(arguments)
    return code


class _Parser(argparse.ArgumentParser):
    """Says a mistake the way every other mistake of this command is said."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        write_line(f"llava: error: {message}")
        self.exit(UsageError.exit_code)


def build_parser() -> argparse.ArgumentParser:
    """Every command and flag; docs/cli.md is written from it."""
    parser = _Parser(prog="llava", description="Ask a LLaVA model about an image, train one, measure it.")
    parser.add_argument("--version", action=_Version, help="show this program's version, and of what it runs on")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_ask(commands)
    _add_chat(commands)
    _add_info(commands)
    _add_convert(commands)
    add_serve(commands)
    _add_train(commands)
    _add_synth(commands)
    _add_eval(commands)
    return parser


class _Version(argparse.Action):
    """What decides how models run here: on Python 3.10, say, Transformers' newest version is an older one."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        parts = [f"Python {platform.python_version()}"]
        for name in ("transformers", "torch"):
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                parts.append(f"{name} {importlib.metadata.version(name)}")
        print(f"llava {__version__} ({', '.join(parts)})")
        parser.exit()


def _add_talking_flags(parser: argparse.ArgumentParser) -> None:
    add_checkpoint_flags(parser)
    add_image_flags(parser)
    parser.add_argument("--conv-mode", metavar="NAME", help="conversation template (default: the checkpoint's own)")
    parser.add_argument(
        "--temperature", type=float, default=0.0, metavar="T", help="0 is greedy (default: %(default)s)"
    )
    parser.add_argument("--top-p", type=float, metavar="P", help="sample among the likeliest words that sum to P")
    parser.add_argument("--top-k", type=int, metavar="K", help="sample among the K likeliest words")
    parser.add_argument(
        "--min-p", type=float, default=0.0, metavar="P", help="sample among words P times as likely as the likeliest"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="the same seed gives the same answer")
    parser.add_argument(
        "--repetition-penalty",
        type=float,
        metavar="X",
        help="above 1: fewer repetitions (default: the checkpoint's own, or 1)",
    )
    parser.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="end the answer before TEXT; may be given again"
    )
    parser.add_argument("--max-new-tokens", type=int, default=512, metavar="N", help="at most (default: %(default)s)")
    parser.add_argument(
        "--min-new-tokens", type=int, metavar="N", help="at least (default: the checkpoint's own, or none)"
    )
    parser.add_argument(
        "--no-repeat-ngram-size",
        type=int,
        metavar="N",
        help="no N tokens come twice in the same order; 0 is off (default: the checkpoint's own, or 0)",
    )
    parser.add_argument(
        "--bad-words", action="append", default=[], metavar="TEXT", help="never write TEXT; may be given again"
    )
    parser.add_argument(
        "--suppress-tokens", type=read_ids, default=(), metavar="IDS", help="never choose these token ids, as 5,17,23"
    )
    parser.add_argument(
        "--memory",
        type=read_bytes,
        metavar="SIZE",
        help="for the KV cache, as 500M or 2G (default: half of the free memory)",
    )
    parser.add_argument(
        "--arithmetic",
        choices=("exact", "int8"),
        default="exact",
        help="int8, with --quant on a CPU: prompts in 8-bit integers, faster and slightly less exact",
    )


def _sampling(arguments: argparse.Namespace) -> Sampling:
    from llava.sampling import Sampling

    return Sampling(
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        num_beams=getattr(arguments, "num_beams", 1),
        max_new_tokens=arguments.max_new_tokens,
        top_k=arguments.top_k,
        min_p=arguments.min_p,
        repetition_penalty=arguments.repetition_penalty,
        seed=arguments.seed,
        stop=tuple(arguments.stop),
        min_new_tokens=arguments.min_new_tokens,
        no_repeat_ngram_size=arguments.no_repeat_ngram_size,
        bad_words=tuple(arguments.bad_words),
        suppress_tokens=arguments.suppress_tokens,
    )


def _load(arguments: argparse.Namespace) -> LoadedModel:
    """The model that the flags name, with its memory; a person who waits at a terminal is told what for."""
    with quick_imports():
        from llava.backends.answerer import Answerer
        from llava.model.checkpoint import load_model
        from llava.model.sources import DEFAULT_MODEL

    waiting = is_terminal(sys.stderr)
    if waiting:
        name = for_stream(arguments.model or "the embedded model", sys.stderr)
        print(f"loading {name} ...", end="", file=sys.stderr, flush=True)
    try:
        loaded = load_model(
            arguments.model or DEFAULT_MODEL,
            base=arguments.model_base,
            vision_tower=arguments.vision_tower,
            merge=arguments.merge,
            device=arguments.device,
            dtype=arguments.dtype,
            bits=QUANTIZATIONS.get(arguments.quant, 16),
            for_engine=getattr(arguments, "num_beams", 1) == 1,
        )
        arithmetic = getattr(arguments, "arithmetic", "exact")
        Answerer.of(loaded, memory_bytes=getattr(arguments, "memory", None), arithmetic=arithmetic)
        return loaded
    finally:
        if waiting:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def _add_ask(commands: Any) -> None:
    parser = add_command(commands, "ask", _ask, "Ask one question about images, or about none.")
    parser.usage = "llava ask [options] IMAGE... QUESTION"
    parser.add_argument(
        "words",
        nargs="*",
        metavar="IMAGE... QUESTION",
        help="paths, http(s) URLs, data URIs or - for standard input; the question comes last",
    )
    parser.add_argument("-q", "--question", metavar="TEXT", help="the question; everything else is then an image")
    _add_talking_flags(parser)
    parser.add_argument("--num-beams", type=int, default=1, metavar="N", help="beam search (default: %(default)s)")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object: answer or error, images, tokens, times"
    )


def _ask(arguments: argparse.Namespace) -> int:
    printer = Printer("" if arguments.has_output else "it is closed")
    images: list[LoadedImage] = []
    try:
        _ask_about(arguments, images, printer)
    except LlavaError as error:
        if arguments.json and not printer.text:
            failure = {"answer": None, "error": str(error), "images": [image.describe() for image in images]}
            _print_json(failure, printer)
        raise
    check_written(printer)
    return 0


def _ask_about(arguments: argparse.Namespace, images: list[LoadedImage], printer: Printer) -> None:
    """Read the images into ``images``, ask, and print the answer."""
    sources, question = _split_words(arguments.words, arguments.question)
    with quick_imports():
        from llava.answer import ask
        from llava.image.source import FOR_LOCAL_USER, load_image, say_notes

    # What can be wrong with the call is found out before the model is loaded.
    sampling = _sampling(arguments)
    limits = FOR_LOCAL_USER.with_pixels(arguments.max_image_pixels)
    for source in sources:
        images.append(load_image(source, limits))
        say_notes(images[-1:])
    began = time.perf_counter()
    loaded = _load(arguments)
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
    return {
        "answer": reply.text,
        "error": None,
        "finished": reply.finished,
        "finish_reason": reply.finish_reason,
        "note": note,
        "model": model or "embedded",
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


# Of a file that is there or not: a question of one word does not end like that.
_IMAGE_NAME = re.compile(r"\S+\.(?:avif|bmp|gif|hei[cf]|jpe?g|png|tiff?|webp)", re.IGNORECASE)


def _split_words(words: list[str], question: str | None) -> tuple[list[str], str]:
    """Images and question from what stands on the command line: the last word is the question."""
    if question is None:
        if not words:
            raise UsageError('There is no question. Write: llava ask image.jpg "What is in the image?"')
        *words, question = words
        if (
            question == "-"
            or question.startswith(("http://", "https://", "data:"))
            or _IMAGE_NAME.fullmatch(question)
            or os.path.isfile(os.path.expanduser(question))
        ):
            raise UsageError(f"The last word has to be the question, but '{question[:80]}' is an image.")
    if not question.strip():
        raise UsageError("The question is empty.")
    if (flaw := find_flaw(question)) is not None:
        raise UsageError(f"The question {flaw}.")
    return words, question


def _add_chat(commands: Any) -> None:
    parser = add_command(commands, "chat", _chat, "Talk about images in the terminal.")
    parser.add_argument("words", nargs="*", metavar="IMAGE", help="images to begin with; /image adds more")
    _add_talking_flags(parser)


def _chat(arguments: argparse.Namespace) -> int:
    from llava.chat import Chat, run_chat

    sampling = _sampling(arguments)
    chat = Chat(_load(arguments), sampling, template=arguments.conv_mode, max_image_pixels=arguments.max_image_pixels)
    return run_chat(chat, arguments.words)


def _add_info(commands: Any) -> None:
    parser = add_command(
        commands,
        "info",
        _info,
        "Say what a checkpoint is, how it cuts an image into tokens, or what exactly is sent for a prompt.",
    )
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="a folder, a file or a name (default: the embedded model)"
    )
    add_tower_flag(parser)
    parser.add_argument(
        "--image",
        action="append",
        default=[],
        metavar="IMAGE",
        help="show what becomes of this image instead; with --prompt it may be given again",
    )
    add_image_flags(parser)
    parser.add_argument("--plot", metavar="FILE.png", help="draw it: canvas, padding, tiles, kept patches, counts")
    parser.add_argument(
        "--prompt",
        action="append",
        default=[],
        metavar="TEXT",
        help="list exactly what is sent for this question, text and tokens; for a chat repeat it after --answer",
    )
    parser.add_argument(
        "--answer",
        action="append",
        default=[],
        metavar="TEXT",
        help="the answer to the --prompt before it; with one for each --prompt, mark the tokens that the loss sees",
    )
    parser.add_argument("--conv-mode", metavar="NAME", help="template of the prompt (default: the checkpoint's own)")
    parser.add_argument("--json", action="store_true", help="print the prompt as one JSON object")


def _info(arguments: argparse.Namespace) -> int:
    from llava.info import describe_checkpoint, describe_image, describe_prompt

    if arguments.prompt:
        if arguments.plot is not None:
            raise UsageError("--plot draws an image's tokens and --prompt lists a prompt's: give one of them.")
        describe_prompt(
            arguments.model,
            arguments.prompt,
            arguments.answer,
            arguments.image,
            template=arguments.conv_mode,
            max_pixels=arguments.max_image_pixels,
            tower=arguments.vision_tower,
            as_json=arguments.json,
        )
        return 0
    given = {"--answer": arguments.answer, "--conv-mode": arguments.conv_mode, "--json": arguments.json}
    if words := [flag for flag, value in given.items() if value]:
        raise UsageError(f"{words[0]} is about a prompt: add --prompt TEXT.")
    if len(arguments.image) > 1:
        raise UsageError(
            f"There are {len(arguments.image)} --image. Several images belong to one prompt: add --prompt."
        )
    if arguments.image:
        describe_image(
            arguments.model,
            arguments.image[0],
            plot=arguments.plot,
            max_pixels=arguments.max_image_pixels,
            tower=arguments.vision_tower,
        )
    elif arguments.plot is not None:
        raise UsageError("--plot draws an image's tokens: name the image with --image.")
    else:
        describe_checkpoint(arguments.model, arguments.vision_tower)
    return 0


def _add_convert(commands: Any) -> None:
    parser = add_command(
        commands,
        "convert",
        _convert,
        "Rewrite a checkpoint in the original's layout or in llava-hf's; merges LoRA layers.",
    )
    parser.add_argument("source", metavar="SRC", help="a folder, a hub id or a short name, in either layout")
    parser.add_argument("--model-base", metavar="MODEL", help="what SRC was trained on, if it holds only a part")
    add_tower_flag(parser)
    parser.add_argument("folder", metavar="DST", help="where to write; an older checkpoint there is replaced")
    parser.add_argument(
        "--to",
        required=True,
        metavar="LAYOUT",
        help="original, for this package and the original; hf, for Transformers, vLLM and others",
    )


def _convert(arguments: argparse.Namespace) -> int:
    from llava.model.conversion import convert

    # Ended from outside, it takes away what it has written so far, as after Ctrl-C.
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        base, tower = arguments.model_base, arguments.vision_tower
        done = convert(arguments.source, arguments.folder, arguments.to, base=base, vision_tower=tower)
    finally:
        signal.signal(signal.SIGTERM, before)
    size = f"{done.num_tensors} tensors, {done.num_bytes / 1e9:.2f} GB, layout {done.layout}"
    print(for_stream(f"{done.folder}: {size}", sys.stdout))
    for note in done.notes:
        write_line(f"llava: {note}")
    return 0


def _add_train(commands: Any) -> None:
    parser = add_command(commands, "train", _train, "Train a model as a recipe says; a run that stopped goes on.")
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file, or the name of one in the package")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="where checkpoints, curves and the model go")
    parser.add_argument("--stage", metavar="NAME", help="only this stage of the recipe")
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes that draw (default: %(default)s)"
    )


def _train(arguments: argparse.Namespace) -> int:
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("Training needs the package's train extra: run pip install 'llava[train]'.")
    from llava.train.recipe import read_recipe

    recipe = read_recipe(arguments.recipe)
    if recipe.is_from_scratch:
        from llava.scratch.pipeline import run
    else:
        from llava.train.run import run
    print(run(recipe, arguments.output, arguments.stage, arguments.workers))
    return 0


def _add_synth(commands: Any) -> None:
    parser = add_command(commands, "synth", _synth, "Draw images whose answers are known, in LLaVA's data format.")
    parser.add_argument("folder", metavar="FOLDER", help="where data.json and images/ go")
    parser.add_argument("--count", type=int, default=100, metavar="N", help="images (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--kind", action="append", default=[], metavar="NAME", help="only such images; may be repeated")
    parser.add_argument("--turns", type=int, default=4, metavar="N", help="questions an image (default: %(default)s)")


def _synth(arguments: argparse.Namespace) -> int:
    from llava.synth.write import write

    count, seed, turns = arguments.count, arguments.seed, arguments.turns
    print(write(arguments.folder, count, seed=seed, kinds=arguments.kind, turns=turns))
    return 0


def _add_eval(commands: Any) -> None:
    suites = commands.add_parser("eval", help="Score a model.", description="Score a model.")
    suites = suites.add_subparsers(title="suites", metavar="SUITE", required=True)
    parser = add_command(suites, "synth", _eval_synth, "Score a model on drawn images that were never trained on.")
    parser.add_argument("--count", type=int, default=200, metavar="N", help="questions a task (default: %(default)s)")
    parser.add_argument("--task", action="append", metavar="NAME", help="only tasks that begin so; repeatable")
    parser.add_argument("--save", type=Path, metavar="FILE.json", help="write the scores as JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the scores and their goals")
    parser.add_argument("--wrong", type=Path, metavar="FILE.jsonl", help="write every wrong answer")
    add_checkpoint_flags(parser)


def _eval_synth(arguments: argparse.Namespace) -> int:
    from llava.eval.synth import find_tasks, score

    find_tasks(arguments.task)  # an unknown task is refused before the model is loaded
    score(
        _load(arguments),
        arguments.model or "embedded",
        count=arguments.count,
        tasks=arguments.task,
        json_path=arguments.save,
        plot_path=arguments.plot,
        wrong_path=arguments.wrong,
    )
    return 0
