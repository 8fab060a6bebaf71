"""What the original's five ``model_vqa`` commands share: their flags, and answering into their answers file.

Source: haotian-liu/LLaVA@c121f04 llava/eval/model_vqa.py and the modules beside it.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.entry_point import run_command
from llava.errors import UsageError
from llava.eval.question_files import take_chunk
from llava.eval.task import Question, find_oddities
from llava.text import write_line

DEFAULT_NEW_TOKENS = 1024  # of the commands without a flag for it


@dataclass(frozen=True)
class Settings:
    """How a model is asked, by the original's names."""

    temperature: float = 0.2
    top_p: float | None = None
    num_beams: int = 1
    max_new_tokens: int | None = None  # None is DEFAULT_NEW_TOKENS


def add_original_flags(parser: argparse.ArgumentParser, *, question_file: str = "tables/question.jsonl") -> None:
    """Adds the flags that four of the five commands have, with the original's defaults."""
    parser.add_argument("--model-path", default="facebook/opt-350m")
    parser.add_argument("--model-base", default=None)
    parser.add_argument("--image-folder", default="")
    parser.add_argument("--question-file", default=question_file)
    parser.add_argument("--answers-file", default="answer.jsonl")
    parser.add_argument("--conv-mode", default="llava_v1")
    parser.add_argument("--num-chunks", type=int, default=1)
    parser.add_argument("--chunk-idx", type=int, default=0)
    parser.add_argument("--temperature", type=float, default=0.2)


def add_beam_flags(parser: argparse.ArgumentParser) -> None:
    """Adds ``--top_p`` and ``--num_beams``."""
    parser.add_argument("--top_p", type=float, default=None)
    parser.add_argument("--num_beams", type=int, default=1)


def read_settings(args: Any, max_new_tokens: int | None = None) -> Settings:
    """The settings that ``args`` holds; what it lacks is the original's fixed value."""
    return Settings(args.temperature, getattr(args, "top_p", None), getattr(args, "num_beams", 1), max_new_tokens)


def name_template(model_path: str, conv_mode: str) -> str:
    """``conv_mode``, with ``_mmtag`` for a plain model; printed as the original prints it."""
    from llava.model.sources import name_checkpoint

    name = name_checkpoint(os.path.expanduser(model_path))
    if "plain" not in name or "finetune" in name.lower() or "mmtag" in conv_mode:
        return conv_mode
    conv_mode += "_mmtag"
    print(f"It seems that this is a plain model, but it is not using a mmtag prompt, auto switching to {conv_mode}.")
    return conv_mode


def answer_into_file(
    questions: Sequence[Question],
    args: Any,
    settings: Settings,
    template: str,
    chunk: tuple[int, int] = (1, 0),
) -> int:
    """Answers a chunk of the questions into ``args.answers_file``; returns the exit code, 1 if a question failed."""
    questions = take_chunk(questions, *chunk)
    target = Path(os.path.expanduser(args.answers_file))
    for note in find_oddities(questions):
        write_line(f"llava: {note}")
    if not questions:
        write_line(f"llava: chunk {chunk[1]} of {chunk[0]} has no questions; '{target}' is empty.")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"")
        return 0
    images = {image for question in questions for image in question.images if isinstance(image, Path)}
    if images and not any(image.is_file() for image in images):
        raise UsageError(f"None of the {len(images)} images is there, such as '{min(images)}': see --image-folder.")
    how = f"sampled at temperature {settings.temperature:g}; the published scores are greedy, --temperature 0"
    write_line(f"llava: answers are {'greedy' if settings.temperature == 0 else how}.")

    from llava.eval.answer_run import answer_questions
    from llava.eval.answers_file import check_answers_path
    from llava.eval.askers import LocalAsker
    from llava.model.checkpoint import load_model
    from llava.model.sources import name_checkpoint
    from llava.sampling import Sampling

    sampling = Sampling(
        temperature=settings.temperature,
        top_p=settings.top_p,
        num_beams=settings.num_beams,
        max_new_tokens=settings.max_new_tokens or DEFAULT_NEW_TOKENS,
    )
    check_answers_path(target, "--answers-file")  # before the model is loaded
    path = os.path.expanduser(args.model_path)
    loaded = load_model(path, base=args.model_base, for_engine=settings.num_beams == 1)
    asker = LocalAsker(loaded, name_checkpoint(path), sampling, template, model_path=path)
    return 1 if answer_questions(questions, asker, target).failed else 0


def run_main(parser: argparse.ArgumentParser, argv: Sequence[str] | None, work: Any) -> int:
    """Parses the command line and runs ``work`` with it; returns the exit code."""
    args = parser.parse_args(argv)
    return run_command(lambda: work(args))
