"""Flags of the commands that answer questions: how a model is loaded, and how its answers are sampled."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import TYPE_CHECKING, Any

from llava.commands.flags import QUANTIZATIONS, add_checkpoint_flags, add_engine_flags, add_image_flags
from llava.commands.quantities import read_ids
from llava.entry_point import quick_imports
from llava.text import for_stream, is_terminal

if TYPE_CHECKING:
    from llava.model.checkpoint import LoadedModel
    from llava.sampling import Sampling

_NUMBERS = (
    ("--top-p", float, None, "P", "sample among the likeliest tokens whose probabilities sum to P"),
    ("--top-k", int, None, "K", "sample among the K likeliest tokens"),
    ("--min-p", float, 0.0, "P", "sample among tokens at least P times as likely as the likeliest"),
    ("--seed", int, None, "N", "make sampling reproducible: the same seed gives the same answer"),
    ("--repetition-penalty", float, None, "X", "above 1: fewer repetitions (default: the checkpoint's own, or 1)"),
    ("--max-new-tokens", int, 512, "N", "the longest answer (default: %(default)s)"),
    ("--min-new-tokens", int, None, "N", "the shortest answer (default: the checkpoint's own, or 0)"),
    (
        "--no-repeat-ngram-size",
        int,
        None,
        "N",
        "forbid repeated n-grams of N tokens; 0 is off (default: the checkpoint's own, or 0)",
    ),
)


def add_answering_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the checkpoint, of its images and prompt template, and of sampling."""
    add_checkpoint_flags(parser)
    add_image_flags(parser)
    parser.add_argument("--conv-mode", metavar="NAME", help="conversation template (default: the checkpoint's own)")
    parser.add_argument(
        "--temperature", type=float, default=0.0, metavar="T", help="0 is greedy (default: %(default)s)"
    )
    for flag, kind, default, metavar, text in _NUMBERS:
        parser.add_argument(flag, type=kind, default=default, metavar=metavar, help=text)
    for flag, text in (
        ("--stop", "end the answer before TEXT; may be repeated"),
        ("--bad-words", "never generate TEXT; may be repeated"),
    ):
        parser.add_argument(flag, action="append", default=[], metavar="TEXT", help=text)
    parser.add_argument(
        "--suppress-tokens",
        type=read_ids,
        default=(),
        metavar="IDS",
        help="never generate these token ids, as in 5,17,23",
    )
    add_engine_flags(parser)


def read_sampling(arguments: argparse.Namespace) -> Sampling:
    """The sampling parameters that the flags give. Raises UsageError for one out of range."""
    from llava.sampling import Sampling

    names = [one.name for one in dataclasses.fields(Sampling)]
    given = {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}
    texts = {name: tuple(given[name]) for name in ("stop", "bad_words")}
    return Sampling(**(given | texts))


def loading_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The keyword arguments of ``load_model`` that the checkpoint flags give."""
    return {
        "base": arguments.model_base,
        "vision_tower": arguments.vision_tower,
        "merge": arguments.merge,
        "device": arguments.device,
        "dtype": arguments.dtype,
        "bits": QUANTIZATIONS.get(arguments.quant, 16),
    }


def load(arguments: argparse.Namespace) -> LoadedModel:
    """The model that the flags name, with its answerer; on a terminal, a progress line is shown meanwhile."""
    with quick_imports():
        from llava.backends.answerer import Answerer
        from llava.model.checkpoint import load_model
        from llava.model.default_choice import resolve_name

    name = resolve_name(arguments.model)
    on_terminal = is_terminal(sys.stderr)
    if on_terminal:
        print(f"loading {for_stream(name, sys.stderr)} ...", end="", file=sys.stderr, flush=True)
    try:
        loaded = load_model(
            name,
            for_engine=getattr(arguments, "num_beams", 1) == 1,
            **loading_options(arguments),
        )
        arithmetic = getattr(arguments, "arithmetic", "exact")
        Answerer.of(loaded, memory_bytes=getattr(arguments, "memory", None), arithmetic=arithmetic)
        return loaded
    finally:
        if on_terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
